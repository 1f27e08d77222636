"""Going to the background: the parent hears exactly one outcome, with its exit code.

Each case forks, so each runs in a process of its own: pytest's has threads and a loop's leftovers.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, sys
from pathlib import Path
from objfs.app.daemon import Readiness, in_background
from objfs.errors import HeldElsewhere, ObjfsError

def ready(readiness):
    readiness.note("waiting for another")
    assert os.getsid(0) == os.getpid() and os.getcwd() == "/"
    print("to the log", flush=True)
    readiness.ready()
    return 0

def held(readiness):
    raise HeldElsewhere("host far, process 7")

def crashed(readiness):
    raise ValueError("boom")

def vanished(readiness):
    os._exit(3)

try:
    pid = in_background(globals()[sys.argv[1]], Path(sys.argv[2]), lambda line: print("note:", line))
    print("ready", pid != os.getpid())
except ObjfsError as error:
    print("error:", error)
    sys.exit(error.exit_code)
"""


def outcome(case: str, log: Path) -> tuple[int, str]:
    command = [sys.executable, "-bb", "-c", SCRIPT, case, str(log)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout


def test_ready_with_notes_and_log(tmp_path: Path) -> None:
    code, said = outcome("ready", tmp_path / "log")
    assert (code, said) == (0, "note: waiting for another\nready True\n")
    assert (tmp_path / "log").read_text() == "to the log\n"


def test_an_error_keeps_its_exit_code(tmp_path: Path) -> None:
    assert outcome("held", tmp_path / "log") == (12, "error: host far, process 7\n")


def test_an_unexpected_error_is_one_line_here_and_a_traceback_in_the_log(tmp_path: Path) -> None:
    code, said = outcome("crashed", tmp_path / "log")
    assert code == 21
    assert said == "error: the mount could not start: ValueError: boom\n"
    assert "Traceback" in (tmp_path / "log").read_text()


def test_a_death_without_a_word_is_reported(tmp_path: Path) -> None:
    code, said = outcome("vanished", tmp_path / "log")
    assert code == 21
    assert "ended before it was ready" in said
