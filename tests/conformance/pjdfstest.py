"""``make pjdfstest``: upstream's POSIX assertions, all files, none left out.

    python -m tests.conformance.pjdfstest CHECKOUT [--only WORD] [--jobs N]

The suite runs assertions about a rename's ctime only where it is told of a file system that keeps it, by
the name of the file system in its ``conf``; the runner's copy says EXT4 there, on both sides.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conformance import report
from tests.conformance.report import Outcome
from tests.conformance.scratch import require_checkout, require_programs, run, scratch

HOW = "clone https://github.com/pjd/pjdfstest, then autoreconf -ifs && ./configure && make pjdfstest"
CONF = 'fs="EXT4"  # a rename changes the ctime of what it moves\n'
FILE_S = 900.0
_LINE = re.compile(r"(not )?ok (\d+)(.*)")


def outcome(said: str) -> Outcome:
    """From the lines of one file; what was planned and never ran has failed."""
    planned = re.search(r"^1\.\.(\d+)$", said, re.MULTILINE)
    lines = [match for line in said.splitlines() if (match := _LINE.fullmatch(line.rstrip()))]
    failures = [match[0] for match in lines if match[1] and "# TODO" not in match[3]]
    total = int(planned[1]) if planned else 0
    if not planned or len(lines) != total:
        failures.append(f"{len(lines)} assertions ran, {total} were planned")
    passed = sum(match[1] is None for match in lines)
    # A file that does not apply says so by a plan of one assertion, which passes.
    return Outcome(passed, tuple(failures), "the suite's own word" if total == 1 else None)


def run_file(script: Path, directory: Path) -> Outcome:
    directory.mkdir()
    done = subprocess.run(
        ["/bin/sh", str(script)],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=FILE_S,
    )
    shutil.rmtree(directory, ignore_errors=True)
    return outcome(done.stdout)


def run_all(suite: Path, only: str, directory: Path, jobs: int) -> report.Results:
    """Every file in a directory of its own: the files share no names."""
    tests = {path.relative_to(suite / "tests").as_posix(): path for path in suite.rglob("*.t")}
    wanted = {name: path for name, path in sorted(tests.items()) if only in name}
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = pool.map(lambda name: run_file(wanted[name], directory / name.replace("/", "-")), wanted)
        return dict(zip(wanted, outcomes, strict=True))


def copy_suite(checkout: Path, destination: Path) -> Path:
    """The program and its scripts, told what the file system keeps."""
    shutil.copytree(checkout / "tests", destination / "tests")
    shutil.copy2(checkout / "pjdfstest", destination / "pjdfstest")
    with (destination / "tests" / "conf").open("a") as conf:
        conf.write(CONF)
    return destination


def main() -> bool:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", nargs="?")
    parser.add_argument("--only", default="", help="files whose name has this in it")
    parser.add_argument("--jobs", type=int, default=4)
    options = parser.parse_args()
    checkout = require_checkout("PJDFSTEST", options.checkout, "pjdfstest", HOW)
    require_programs("openssl", "awk")
    with scratch("pjdfstest") as ground:
        suite = copy_suite(checkout, ground.plain.parent / "suite")
        plain = run_all(suite, options.only, ground.plain, options.jobs)
        mount = run_all(suite, options.only, ground.mount, options.jobs)
        return report.show("pjdfstest", mount, plain, ground.plain_kind())


if __name__ == "__main__":
    sys.exit(run(main))
