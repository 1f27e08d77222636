"""``make realapps``: programs that people use, on the mount and beside it, each result checked.

    python -m tests.conformance.realapps REPOSITORY [--only WORD] [--dbench-seconds N]

REPOSITORY is a git repository of the Linux Test Project: large enough for git, and a C program with the usual
build for make.  Everything is checked once more after a new mount, out of the volume.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.conformance import report, wheel
from tests.conformance.report import Outcome
from tests.conformance.scratch import NotReady, require_programs, run, scratch
from tests.conformance.speedtest import unsound
from tests.console import say
from tests.system import tree
from tests.system.harness import REPOSITORY as OBJFS

HOW = "LTP=PATH must name a git repository: git clone https://github.com/linux-test-project/ltp"
PROGRAMS = ("git", "autoconf", "automake", "pkg-config", "cc", "tar", "rsync", "cp", "dbench")
STEP_S = 3600.0
FILES, MEGABYTES = 3_000, 60


class Wrong(Exception):
    """What a program left is not what it should be."""


@dataclass(frozen=True)
class Desk:
    """Where one side works: ``base`` is on the file system under test, ``source`` is a tree elsewhere."""

    base: Path
    source: Path
    repository: Path
    dbench_seconds: int

    def call(self, *words: str | Path, cwd: Path | None = None, **extra: str) -> str:
        """What a program says.  Raises Wrong with the end of it when its exit code is not 0."""
        done = subprocess.run(
            list(map(str, words)),
            cwd=cwd or self.base,
            env={**os.environ, **extra},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=STEP_S,
        )
        if done.returncode != 0:
            last = " | ".join(done.stdout.strip().splitlines()[-5:])
            raise Wrong(f"{' '.join(map(str, words))[:200]}: exit code {done.returncode}: {last}")
        return done.stdout

    def fsck(self, repository: Path) -> list[str]:
        """What git finds wrong, in order: a partial repository lacks objects, and so does its clone."""
        words = [
            "git",
            "--git-dir",
            str(git_directory(repository)),
            "fsck",
            "--full",
            "--strict",
            "--no-dangling",
        ]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=STEP_S)
        return [*sorted(done.stdout.splitlines()), f"exit code {done.returncode}"]

    def same_tree(self, copy: Path) -> None:
        """Raises Wrong where rsync, comparing every byte, would still change something."""
        found = tree.differences(self.source, copy)
        if found:
            raise Wrong(f"{len(found)} differences from the source: {' | '.join(found[:5])}")


# --- the programs --------------------------------------------------------------------------


def git(desk: Desk) -> None:
    """A clone of the whole history, copied object by object."""
    desk.call("git", "clone", "--quiet", "--no-hardlinks", desk.repository, "clone")
    check_git(desk)


def check_git(desk: Desk) -> None:
    clone = desk.base / "clone"
    if desk.fsck(clone) != desk.fsck(desk.repository):
        raise Wrong("git fsck finds other things in the clone than in the repository")
    changed = desk.call("git", "status", "--porcelain", "--untracked-files=no", cwd=clone)
    there = desk.call("git", "--git-dir", git_directory(desk.repository), "rev-parse", "HEAD")
    if changed or desk.call("git", "rev-parse", "HEAD", cwd=clone) != there:
        raise Wrong(f"the clone differs: {changed[:300]}")


def build(desk: Desk) -> None:
    """Configure and make; a second make finds nothing to do; the program works."""
    clone = desk.base / "clone"
    desk.call("make", "-s", "autotools", cwd=clone)
    desk.call("./configure", "-q", cwd=clone)
    desk.call("make", "-s", "-j2", "-C", "lib", cwd=clone)
    tests = clone / "testcases" / "kernel" / "syscalls" / "access"
    desk.call("make", "-s", cwd=tests)
    again = desk.call("make", cwd=tests)
    if "CC " in again:
        raise Wrong(f"make compiles again what it has just compiled: {again[:300]}")
    desk.call(tests / "access01", TMPDIR=str(desk.base))


def sqlite(desk: Desk) -> None:
    """The statements of a speed test, in both journal modes."""
    for mode in ("wal", "delete"):
        file = desk.base / f"{mode}.db"
        desk.call(
            sys.executable,
            "-m",
            "tests.conformance.speedtest",
            file,
            mode,
            cwd=desk.base,
            PYTHONPATH=str(OBJFS),
        )
    check_sqlite(desk)


def check_sqlite(desk: Desk) -> None:
    found = [f"{mode}: {line}" for mode in ("wal", "delete") for line in unsound(desk.base / f"{mode}.db")]
    if found:
        raise Wrong(" | ".join(found))


def venv(desk: Desk) -> None:
    """A virtual environment, and a wheel installed into it without a network."""
    made = wheel.build(OBJFS / "objfs", desk.base)
    desk.call(sys.executable, "-m", "venv", "environment")
    python = desk.base / "environment" / "bin" / "python"
    desk.call(python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--compile", made)
    check_venv(desk)


def check_venv(desk: Desk) -> None:
    """Every file of the wheel is there as its record says."""
    python = desk.base / "environment" / "bin" / "python"
    desk.call(python, "-P", "-c", wheel.CHECK)


def tar(desk: Desk) -> None:
    """Out of the tree, into an archive on the file system, out of it again."""
    keep = ("--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--numeric-owner")
    desk.call("tar", *keep, "-C", desk.source, "-cf", "tree.tar", ".")
    (desk.base / "tar").mkdir()
    desk.call("tar", *keep, "-C", "tar", "-xpf", "tree.tar")
    desk.call("tar", "--compare", *keep, "-C", "tar", "-f", "tree.tar")
    check_tar(desk)


def check_tar(desk: Desk) -> None:
    desk.same_tree(desk.base / "tar")


def rsync(desk: Desk) -> None:
    """Everything that rsync keeps; a second run finds nothing to do."""
    words = ("rsync", "-aHAXS", "--itemize-changes", f"{desk.source}/", "rsync/")
    desk.call(*words)
    if again := desk.call(*words):
        raise Wrong(f"a second run still changes: {again[:300]}")
    check_rsync(desk)


def check_rsync(desk: Desk) -> None:
    desk.same_tree(desk.base / "rsync")


def cp(desk: Desk) -> None:
    desk.call("cp", "-a", "--sparse=always", desk.source, "cp")
    check_cp(desk)


def check_cp(desk: Desk) -> None:
    desk.same_tree(desk.base / "cp")


def dbench(desk: Desk) -> None:
    """Four clients of a file server, as they were once recorded."""
    (desk.base / "dbench").mkdir()
    said = desk.call("dbench", "-t", str(desk.dbench_seconds), "-D", "dbench", "4")
    wrong = [line for line in said.splitlines() if "ERROR" in line or "failed" in line]
    if wrong or "Throughput" not in said:
        raise Wrong(" | ".join(wrong[:5]) or said[-500:])


STEPS: Mapping[str, Callable[[Desk], None]] = {
    step.__name__: step for step in (git, build, sqlite, venv, tar, rsync, cp, dbench)
}
COLD: Mapping[str, Callable[[Desk], None]] = {
    "git": check_git,
    "sqlite": check_sqlite,
    "venv": check_venv,
    "tar": check_tar,
    "rsync": check_rsync,
    "cp": check_cp,
}


# --- running -------------------------------------------------------------------------------


def attempt(step: Callable[[Desk], None], desk: Desk) -> Outcome:
    try:
        step(desk)
    except (Wrong, OSError, subprocess.TimeoutExpired) as error:
        return Outcome(0, (str(error),))
    return Outcome(1)


def perform(side: str, steps: Mapping[str, Callable[[Desk], None]], desk: Desk) -> dict[str, Outcome]:
    """All steps in order, said as they end."""
    done: dict[str, Outcome] = {}
    for name, step in steps.items():
        done[name] = attempt(step, desk)
        say(f"  {side}: {name}: {'well' if not done[name].failures else done[name].failures[0]}")
    return done


def git_directory(repository: Path) -> Path:
    return repository / ".git" if (repository / ".git").exists() else repository


def main() -> bool:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("repository", nargs="?")
    parser.add_argument("--only", default="", help="steps whose name has this in it")
    parser.add_argument("--dbench-seconds", type=int, default=60)
    options = parser.parse_args()
    if not options.repository or not (git_directory(Path(options.repository)) / "HEAD").is_file():
        raise NotReady(HOW)
    require_programs(*PROGRAMS)
    steps = {name: step for name, step in STEPS.items() if options.only in name}
    with scratch("realapps") as ground:
        source = ground.plain.parent / "source"
        tree.build(source, files=FILES, megabytes=MEGABYTES)
        repository = Path(options.repository).resolve()
        sides = [
            Desk(base, source, repository, options.dbench_seconds) for base in (ground.plain, ground.mount)
        ]
        plain = perform(ground.plain_kind(), steps, sides[0])
        mount = perform("objfs", steps, sides[1])
        ground.restart()
        cold = perform("objfs, cold", {name: step for name, step in COLD.items() if name in steps}, sides[1])
        mount |= {f"{name}, cold": outcome for name, outcome in cold.items()}
        return report.show("programs", mount, plain, ground.plain_kind())


if __name__ == "__main__":
    sys.exit(run(main))
