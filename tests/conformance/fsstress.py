"""``make fsx``, second part: several processes do everything to one tree at the same time.

    python -m tests.conformance.fsstress CHECKOUT [--processes N] [--operations N] [--seed N]

fsstress of xfstests checks little by itself.  Afterwards the tree must look the same before and after a new
mount, the inode table must keep its invariants, and when all is removed nothing may be left.
"""

from __future__ import annotations

import argparse
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from objfs.meta import MetaDatabase
from tests.conformance import report
from tests.conformance.fsx import HOW, digest
from tests.conformance.report import Outcome
from tests.conformance.scratch import VOLUME, Scratch, require_checkout, run, scratch

STRESS_S = 7200.0
ROOT_ONLY = 1
"""Inodes of an empty volume."""


def stress(program: Path, directory: Path, options: argparse.Namespace) -> Outcome:
    directory.mkdir()
    words = ["-d", directory, "-p", options.processes, "-n", options.operations, "-s", options.seed]
    command = [str(program), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=STRESS_S)
    if done.returncode == 0:
        return Outcome(1)
    return Outcome(0, (f"exit code {done.returncode}: {(done.stdout + done.stderr)[-500:]}",))


def remounted(ground: Scratch) -> Outcome:
    """The tree is the same when another process serves it, out of the volume."""
    before = dict(walk(ground.mount / "stress"))
    ground.restart()
    after = dict(walk(ground.mount / "stress"))
    changed = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    return Outcome(len(before), tuple(f"{path} changed by a new mount" for path in sorted(changed)[:20]))


def walk(directory: Path) -> Iterator[tuple[str, tuple[object, ...]]]:
    """By path: what lstat says but for times of reading, the target, the digest of the content."""
    for place, names, files in os.walk(directory):
        for name in (*names, *files):
            path = Path(place) / name
            found = path.lstat()
            facts = (found.st_ino, found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_rdev)
            times = (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            yield str(path), (*facts, *times, _content(path, found.st_mode), _attributes(path))


def _content(path: Path, mode: int) -> str | None:
    if stat.S_ISLNK(mode):
        return os.readlink(path)
    if not stat.S_ISREG(mode):
        return None
    return digest(path)


def _attributes(path: Path) -> tuple[tuple[str, bytes], ...]:
    names = os.listxattr(path, follow_symlinks=False)
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names))


def audited(ground: Scratch) -> Outcome:
    """The invariants of the inode table, of the state that an unmounted volume has."""
    ground.station.umount(ground.mount)
    with MetaDatabase.open(ground.station.home / VOLUME / "meta.db", boot_id=b"") as table:
        found = table.check()
    ground.station.mount(VOLUME, ground.mount)
    return Outcome(1, tuple(found)) if found else Outcome(1)


def removed(ground: Scratch) -> Outcome:
    """All is removed, and nothing is left of it."""
    shutil.rmtree(ground.mount / "stress")
    found = audited(ground)
    left = ground.station.status(ground.mount)["inodes"]
    extra = () if left == ROOT_ONLY else (f"{left - ROOT_ONLY} inodes are left when all is removed",)
    return Outcome(1, (*found.failures, *extra))


def main() -> bool:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", nargs="?")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--operations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    program = require_checkout("XFSTESTS", options.checkout, "ltp/fsstress", HOW) / "ltp" / "fsstress"
    with scratch("fsstress") as ground:
        plain = {"stress": stress(program, ground.plain / "stress", options)}
        mount = {"stress": stress(program, ground.mount / "stress", options)}
        mount["the same after a new mount"] = remounted(ground)
        mount["invariants"] = audited(ground)
        mount["removed"] = removed(ground)
        return report.show("fsstress", mount, plain, ground.plain_kind())


if __name__ == "__main__":
    sys.exit(run(main))
