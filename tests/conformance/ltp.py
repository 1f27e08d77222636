"""``make ltp``: the Linux Test Project's tests of file system calls, and its file system exercisers.

    python -m tests.conformance.ltp CHECKOUT [--only WORD]

Run are the commands that the checkout's ``runtest`` lists name for ``CALLS``, each in a directory of the
mount and in one of the machine's own file system.  Not run are tests that make a file system of their own on
a block device: they would test that one.  Exercisers of ``runtest/fs`` that run for minutes run for
``SHORT_S``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conformance import report
from tests.conformance.report import Outcome
from tests.conformance.scratch import require_checkout, run, scratch

HOW = "clone https://github.com/linux-test-project/ltp; make autotools && ./configure && make"
CALLS = """
    access chdir chmod chown chroot close copy_file_range creat dup dup2 dup3 execve execveat faccessat
    faccessat2 fadvise fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr
    flistxattr flock fpathconf fremovexattr fsetxattr fstat fstatat fstatfs fsync ftruncate futimesat getcwd
    getdents getxattr inotify io_submit lchown lgetxattr link linkat listxattr llistxattr llseek lremovexattr
    lseek lstat mkdir mkdirat mknod mknodat mmap msync munmap name_to_handle_at nftw open open_by_handle_at
    openat openat2 pathconf pread preadv preadv2 pwrite pwritev pwritev2 read readahead readdir readlink
    readlinkat readv realpath removexattr rename renameat renameat2 rmdir sendfile setxattr splice stat statfs
    statvfs statx symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat utime
    utimensat utimes vmsplice write writev
"""
EXERCISERS = ("fs", "fs_perms_simple")
NOT_FILES = re.compile(r"proc01|read_all|quota_remount|isofs|binfmt")
"""Exercisers of ``runtest/fs`` for /proc, devices and quota: not of the file system that they stand on."""
KNOWN = {
    "fallocate01": "pyfuse3 has no call for fallocate",
    "fallocate03": "pyfuse3 has no call for fallocate",
    "lseek11": "pyfuse3 has no call for lseek",
    "openat03": "pyfuse3 has no call for tmpfile",
    "setxattr03": "pyfuse3 has no call for ioctl",
}
"""What every file system behind the binding fails or leaves out."""
OWN_DEVICE = re.compile(r"\.(mount_device|needs_device|format_device|all_filesystems)\b")
OWN_DEVICE_SAYS = "makes a file system of its own on a block device"
SHORT_S = 5
TEST_S = 300.0
FAILED, BROKEN, WARNED, NOT_CONFIGURED = 1, 2, 4, 32
_TEST_LINE = re.compile(r"\b(TPASS|TFAIL|TBROK|TWARN|TCONF)\b\s*:?\s*(.*)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Command:
    """One line of a ``runtest`` list; ``directory`` is where its program was built."""

    name: str
    line: str
    directory: Path

    def makes_own_device(self) -> bool:
        program = re.sub(r"_(16|64)$", "", self.line.split()[0])
        source = self.directory / f"{program}.c"
        return source.is_file() and OWN_DEVICE.search(source.read_text(errors="replace")) is not None


class Suite:
    """The built checkout: which programs there are, and how they are run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        kernel = root / "testcases" / "kernel"
        places = [kernel / "syscalls" / call for call in CALLS.split()]
        places += [Path(place) for place, _, _ in os.walk(kernel / "fs")]
        self._places = [place for place in places if place.is_dir()]

    def commands(self) -> Iterator[Command]:
        for file in ("syscalls", *EXERCISERS):
            for line in (self.root / "runtest" / file).read_text().splitlines():
                name, _, words = line.strip().partition(" ")
                command = self._command(name, words.strip())
                if command and not name.startswith("#") and not NOT_FILES.search(name):
                    yield command

    def _command(self, name: str, line: str) -> Command | None:
        """None where its program belongs to another part of the suite."""
        for word in re.split(r"[\s;]+", line):
            for place in self._places:
                if word and "/" not in word and (place / word).is_file():
                    return Command(name, line, place)
        return None

    def run(self, command: Command, directory: Path) -> Outcome:
        if command.makes_own_device():
            return Outcome(0, (), OWN_DEVICE_SAYS)
        directory.mkdir(mode=0o777)
        directory.chmod(0o777)
        done = _bounded(
            ["/bin/sh", "-c", in_place(shortened(command.line))],
            command.directory,
            self._environment(directory),
        )
        shutil.rmtree(directory, ignore_errors=True)
        return done

    def _environment(self, directory: Path) -> dict[str, str]:
        tools = (self.root / "testcases" / "lib", self.root / "tools" / "apicmds")
        path = [*map(str, (*self._places, *tools)), os.environ["PATH"]]
        own = {
            "LTPROOT": str(self.root),
            "TMPDIR": str(directory),
            "LTP_TIMEOUT_MUL": "3",
            "PATH": ":".join(path),
        }
        return {**os.environ, **own}


def shortened(line: str) -> str:
    """growfiles' ``-L`` and rwtest's ``-i`` are how long they go on."""
    return re.sub(r"-i \d+s\b", f"-i {SHORT_S}s", re.sub(r"-L \d+\b", f"-L {SHORT_S}", line))


def in_place(line: str) -> str:
    """rwtest is a script that wants to be installed, with its two programs beside it."""
    there = "mkdir $TMPDIR/testcases && ln -s $PWD $TMPDIR/testcases/bin && LTPROOT=$TMPDIR bash ./rwtest -"
    return line.replace("rwtest -", there)


def _bounded(command: list[str], directory: Path, environment: dict[str, str]) -> Outcome:
    """The outcome of one program, ended when it takes too long; what it started ends with it."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=directory, env=environment, stdout=pipe, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=TEST_S)
        except subprocess.TimeoutExpired:
            _end_group(process.pid)
            process.communicate()
            return Outcome(0, (f"not ended after {TEST_S:.0f} s",))
        finally:
            _end_group(process.pid)  # one that lives on would keep the mount busy
    return outcome(process.returncode, said.decode(errors="replace"))


def _end_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def outcome(code: int, said: str) -> Outcome:
    """From the exit code, and from the lines that name a verdict where there are any."""
    found = [match for line in _COLOURS.sub("", said).splitlines() if (match := _TEST_LINE.search(line))]
    lines = {word: [match[2].strip() for match in found if match[1] == word] for word in ("TPASS", "TCONF")}
    if code == NOT_CONFIGURED:
        return Outcome(len(lines["TPASS"]), (), (lines["TCONF"] or ["says TCONF"])[0])
    if code == 0:
        return Outcome(max(1, len(lines["TPASS"])))
    wrong = [match[0] for match in found if match[1] in ("TFAIL", "TBROK", "TWARN")]
    tail = " | ".join(said.strip().splitlines()[-3:])
    return Outcome(len(lines["TPASS"]), tuple(wrong) or (f"exit code {code}: {tail}",))


def main() -> bool:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", nargs="?")
    parser.add_argument("--only", default="", help="tests whose name has this in it")
    options = parser.parse_args()
    suite = Suite(require_checkout("LTP", options.checkout, "testcases/kernel/syscalls/access/access01", HOW))
    commands = [command for command in suite.commands() if options.only in command.name]
    with scratch("ltp") as ground:
        sides = [
            {command.name: suite.run(command, place / command.name) for command in commands}
            for place in (ground.plain, ground.mount)
        ]
        return report.show("LTP", sides[1], sides[0], ground.plain_kind(), KNOWN)


if __name__ == "__main__":
    sys.exit(run(main))
