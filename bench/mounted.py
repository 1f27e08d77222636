"""A volume of 2+1 over three local buckets, mounted, that is gone afterwards.

Owns its directories and the mount.  ``BENCH_DIR`` names where they are made.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

OBJFS = [sys.executable, "-m", "objfs"]


@dataclass(frozen=True, slots=True)
class Mounted:
    """``root`` is an empty place beside the mount, on the disk that holds buckets and state."""

    directory: Path
    root: Path
    environment: Mapping[str, str]

    def objfs(self, *arguments: str) -> str:
        """Standard output of a command.  Raises CalledProcessError."""
        command = [*OBJFS, *arguments]
        return subprocess.run(
            command, check=True, env=self.environment, stdout=subprocess.PIPE, text=True
        ).stdout


@contextmanager
def mounted(*options: str) -> Iterator[Mounted]:
    """``options`` are those of ``objfs mount``."""
    with tempfile.TemporaryDirectory(prefix="objfs-bench-", dir=os.environ.get("BENCH_DIR")) as place:
        root = Path(place)
        environment = os.environ | {"OBJFS_HOME": str(root / "home"), "OBJFS_PASSPHRASE": "bench"}
        volume = Mounted(_directory(root / "mounted"), root, environment)
        buckets = [word for name in "abc" for word in ("--bucket", str(_directory(root / name)))]
        volume.objfs("mkfs", "bench", "--code", "2+1", *buckets)
        volume.objfs("mount", "bench", str(volume.directory), *options)
        try:
            yield volume
        finally:
            volume.objfs("umount", str(volume.directory))


def _directory(path: Path) -> Path:
    path.mkdir()
    return path
