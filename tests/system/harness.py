"""Volumes and mounts for tests and scripts, driven through the command line as a person would.

Owns what it starts: every mount made through a ``Station`` is gone when its ``with`` ends, also when a
test failed.  Knows no internals of objfs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VOLUME = "vol"
PASSPHRASE = "correct horse battery staple"
REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND_S = 600.0
OURS = ("OBJFS_", "PYTHONDONTWRITEBYTECODE")
"""Variables that no command inherits; without what Python compiled each starts in twice the time."""


def have_fuse() -> bool:
    """Whether this machine can mount at all."""
    return os.access("/dev/fuse", os.R_OK | os.W_OK) and shutil.which("fusermount3") is not None


class CommandFailed(AssertionError):
    """A command ended with another exit code than was expected."""


@dataclass
class Station:
    """One machine: a home for state and the commands that run there.

    ``environment`` is added to that of every command (credentials of a server, for example); ``flags`` are
    Python's own, as strict as the libraries that a command loads allow.
    """

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    mounted: list[Path] = field(default_factory=list)
    flags: Sequence[str] = ("-bb", "-W", "error::ResourceWarning")

    @property
    def home(self) -> Path:
        return self.root / "home"

    def __enter__(self) -> Station:
        self.home.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_exc: object) -> None:
        for directory in reversed(self.mounted):
            self.clean_up(directory)

    def command(self, *arguments: str | os.PathLike[str]) -> list[str]:
        words = [os.fspath(argument) for argument in arguments]
        return [sys.executable, *self.flags, "-m", "objfs", *words]

    def full_environment(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
        own = {"OBJFS_HOME": str(self.home), "OBJFS_PASSPHRASE": PASSPHRASE, "PYTHONPATH": str(REPOSITORY)}
        return inherited | own | dict(self.environment)

    def run(
        self, *arguments: str | os.PathLike[str], code: int = 0, timeout: float = COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        """Runs one command; raises CommandFailed with all it said when its exit code is another, or it takes
        longer than ``timeout`` seconds."""
        try:
            done = subprocess.run(
                self.command(*arguments),
                capture_output=True,
                text=True,
                errors="surrogateescape",
                env=self.full_environment(),
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as late:
            raise CommandFailed(f"{late}\n{self.logs()}") from late
        if done.returncode != code:
            raise CommandFailed(
                f"objfs {' '.join(map(str, arguments))}: exit code {done.returncode}, expected {code}\n"
                f"{done.stdout}{done.stderr}{self.logs()}"
            )
        return done

    def logs(self) -> str:
        """The tails of the logs of this machine's mounts."""
        tails = []
        for file in sorted(self.home.glob("*/mount.log")):
            lines = file.read_text(errors="replace").splitlines()[-60:]
            tails.append(f"--- {file} ---\n" + "\n".join(lines))
        return "\n".join(tails)

    def mkfs(self, name: str, buckets: Sequence[str], code: str = "2+1", *options: str) -> None:
        urls = [word for url in buckets for word in ("--bucket", url)]
        self.run("mkfs", name, *urls, "--code", code, *options)

    def attach(self, name: str, buckets: Sequence[str]) -> None:
        self.run("attach", name, *[word for url in buckets for word in ("--bucket", url)])

    def mount(self, name: str, directory: Path, *options: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        flags = ["-o", "allow_other,dev,suid"] if os.geteuid() == 0 else []
        self.mounted.append(directory)
        self.run("mount", name, directory, *flags, *options)

    def umount(self, directory: Path, *options: str) -> None:
        self.run("umount", directory, *options)
        self.mounted.remove(directory)

    def status(self, word: str | Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", word, "--json").stdout)
        return found

    def forget(self, name: str) -> None:
        """The machine is lost: nothing of the volume stays here."""
        shutil.rmtree(self.home / name)

    def drop_cache(self, name: str, directory: Path) -> None:
        """A cold cache: unmounts, forgets the volume here, attaches and mounts again."""
        config = (self.home / name / "volume.toml").read_text()
        self.umount(directory)
        self.forget(name)
        (self.home / name).mkdir(mode=0o700)
        (self.home / name / "volume.toml").write_text(config)
        (self.home / name / "volume.toml").chmod(0o600)
        self.mount(name, directory)

    def clean_up(self, directory: Path) -> None:
        """Takes a mount away whatever state it is in, and ends its process."""
        pid = self._process(directory)
        # Not os.path.ismount: it says no where the mount's process is dead.
        subprocess.run(["fusermount3", "-u", "-z", "--", str(directory)], capture_output=True)
        if pid is not None:
            end_process(pid)

    def _process(self, directory: Path) -> int | None:
        """The process of the mount at ``directory``, if it still answers."""
        command = self.command("status", directory, "--json")
        with contextlib.suppress(subprocess.TimeoutExpired, ValueError, KeyError):
            done = subprocess.run(
                command, capture_output=True, text=True, env=self.full_environment(), timeout=20
            )
            return int(json.loads(done.stdout)["pid"]) if done.returncode == 0 else None
        return None


@contextlib.contextmanager
def mounted_station(root: Path, *options: str) -> Iterator[Station]:
    """A machine with a volume over three directories, mounted at ``root / "mnt"``."""
    with Station(root / "machine") as station:
        station.mkfs(VOLUME, urls(local_buckets(root, 3)))
        station.mount(VOLUME, root / "mnt", *options)
        yield station
        station.umount(root / "mnt")


def end_process(pid: int) -> None:
    """Ends a mount's process: asks it to stop at once (second signal), then insists."""
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if wait_for_end(pid, 5.0):
            return


def wait_for_end(pid: int, timeout: float) -> bool:
    """Whether a process that is not our child ended in time."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not _alive(pid):
            return True
        time.sleep(0.02)  # a process that is not our child gives no other sign
    return not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def local_buckets(root: Path, count: int) -> list[Path]:
    """Directories that serve as buckets."""
    places = [root / "buckets" / chr(ord("a") + number) for number in range(count)]
    for place in places:
        place.mkdir(parents=True)
    return places


def stored_bytes(places: Iterable[Path]) -> int:
    """Of all shards in the buckets that are there."""
    return sum(path.stat().st_size for place in places for path in place.glob("segment/*/*"))


@contextlib.contextmanager
def away(places: Iterable[Path]) -> Iterator[None]:
    """The buckets are somewhere else meanwhile."""
    moved = {place: place.with_suffix(".away") for place in places}
    for place, aside in moved.items():
        place.rename(aside)
    try:
        yield
    finally:
        for place, aside in moved.items():
            aside.rename(place)


def contents(directory: Path) -> dict[str, bytes]:
    """What its files have in them, by name."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def urls(places: Sequence[Path]) -> list[str]:
    return [f"file://{place}" for place in places]
