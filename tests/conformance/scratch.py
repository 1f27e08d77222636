"""Where a suite runs: a fresh 2+1 volume over local buckets, mounted for everybody, and a plain directory.

Owns both and what is needed to make them; all of it is gone at the end.  Knows no suite.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system.harness import Station, have_fuse, local_buckets, urls

VOLUME = "conformance"
MIB = 1024 * 1024
NOT_READY = 2
"""The exit code of a runner that cannot begin."""


class NotReady(Exception):
    """Something that a suite needs is not here; the message says what to do."""


@dataclass(frozen=True)
class Scratch:
    """A mounted volume, and a directory of the machine's own file system."""

    station: Station
    mount: Path
    plain: Path
    buckets: Sequence[Path]

    def plain_kind(self) -> str:
        """The name of the plain directory's file system."""
        asked = ["df", "--output=fstype", str(self.plain)]
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()[-1]

    def restart(self, *options: str) -> None:
        """Unmounts and mounts again: another process, an empty page cache."""
        self.station.umount(self.mount)
        self.station.mount(VOLUME, self.mount, *options)


@contextmanager
def scratch(name: str, *options: str, chunk_size: int = MIB) -> Iterator[Scratch]:
    """``options`` are those of ``objfs mount``.  Raises NotReady."""
    require_root()
    root = Path(tempfile.mkdtemp(prefix=f"objfs-{name}-"))
    try:
        root.chmod(0o755)  # suites try as other users, who must get as far as the mount
        plain = root / "plain"
        plain.mkdir()
        places = local_buckets(root, 3)
        with Station(root / "machine") as station:
            station.mkfs(VOLUME, urls(places), "2+1", "--chunk-size", str(chunk_size))
            station.mount(VOLUME, root / "mnt", *options)
            yield Scratch(station, root / "mnt", plain, places)
            station.umount(root / "mnt")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def require_root() -> None:
    """Raises NotReady where the suites would fail for the wrong reason."""
    if os.geteuid() != 0 or not have_fuse():
        raise NotReady("this suite needs root, /dev/fuse and fusermount3")


def require_checkout(variable: str, path: str | None, built: str, how: str) -> Path:
    """The checkout that ``variable`` names; ``built`` is a file that building it makes.  Raises NotReady."""
    wanted = f"{variable}=PATH must name a built checkout: {how}"
    if not path:
        raise NotReady(wanted)
    if not (Path(path) / built).is_file():
        raise NotReady(f"{path} has no {built}. {wanted}")
    return Path(path).resolve()


def require_programs(*programs: str) -> None:
    """Raises NotReady naming those that are not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise NotReady(f"not installed: {', '.join(missing)}; `make suite-packages` installs them")


def run(main: Callable[[], bool]) -> int:
    """The exit code of a runner: 0 when ``main`` says that all is well, 1 when not, 2 if it cannot begin."""
    try:
        return 0 if main() else 1
    except NotReady as reason:
        sys.stderr.write(f"{reason}\n")
        return NOT_READY
