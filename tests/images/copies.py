"""rsync at work: a source that is another in each run, and whether what was copied is whole.

Owns what is in the source.  rsync writes a temporary file and renames it, so whenever its destination is
looked at, each file there is that of one run, or temporary, or not there.
"""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.powercut.programs import Say

NAMES = tuple(f"{folder}/file{number}" for folder in ("one", "two") for number in range(4))
SIZES = (0, 100, 5_000, 70_000, 300_000)
THERE = 0.8
"""The share of runs in which the source has a file."""
TAG = 16
"""Bytes at the start of a file that say of which run it is."""


@dataclass(frozen=True)
class Copies:
    """One run after the other into a directory.  ``source`` is a directory elsewhere."""

    source: Path

    @property
    def name(self) -> str:
        return "rsync"

    def prepare(self, root: Path) -> None:
        for folder in ("one", "two"):
            (self.source / folder).mkdir(parents=True)
            (root / folder).mkdir()

    def work(self, root: Path, say: Say) -> None:
        run = 0
        while True:
            run += 1
            self._fill(run)
            # Two files of one size may be of one second: times are not looked at.
            words = ("rsync", "-a", "--delete", "--ignore-times", f"{self.source}/", f"{root}/")
            subprocess.run(words, check=True, capture_output=True)
            say(run)

    def _fill(self, run: int) -> None:
        for name in NAMES:
            content = _content(name, run)
            if content is None:
                (self.source / name).unlink(missing_ok=True)
            else:
                (self.source / name).write_bytes(content)

    def complaint(self, root: Path, acknowledged: int) -> str:
        """``acknowledged``: how many runs had ended."""
        found = {name: _run_of(root, name) for name in NAMES}
        newest = max([acknowledged, *(run for run in found.values() if run)])
        for name, run in found.items():
            if run is None:
                may_be_absent = any(_content(name, at) is None for at in range(acknowledged, newest + 2))
                if acknowledged and not may_be_absent:
                    return f"rsync: {name} is not there after {acknowledged} runs"
            elif run < acknowledged or (root / name).read_bytes() != _content(name, run):
                return f"rsync: {name} is not that of a run from {acknowledged} on"
        return _strangers(root)


def _content(name: str, run: int) -> bytes | None:
    """What a file of the source has in a run, if it is there; run 0 is before the first."""
    generator = random.Random(f"{name} {run}")
    if not run or generator.random() > THERE:
        return None
    return b"%016d" % run + generator.randbytes(generator.choice(SIZES))


def _run_of(root: Path, name: str) -> int | None:
    """Of which run a file says it is; -1 where it says nothing, None where it is not there."""
    if not (root / name).exists():
        return None
    tag = (root / name).read_bytes()[:TAG]
    return int(tag) if len(tag) == TAG and tag.isdigit() else -1


def _strangers(root: Path) -> str:
    """What is neither a file of the source nor a temporary one."""
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        temporary = path.name.startswith(".") and f"{path.parent.name}/{path.stem[1:]}" in NAMES
        if path.is_file() and name not in NAMES and not temporary:
            return f"rsync: {name} is nothing that rsync makes"
    return ""
