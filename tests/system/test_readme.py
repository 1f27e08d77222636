"""The story that README tells of a mistake, told again by its own commands on a real mount."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.system.harness import REPOSITORY, VOLUME, Station, have_fuse

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]


def commands_under(heading: str) -> list[str]:
    """The indented lines of one section of README."""
    section = (REPOSITORY / "README.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line.strip() for line in section.splitlines() if line.startswith("    ")]


def told(station: Station, directory: Path, line: str) -> str:
    """What one line of it prints, with the mount where README has ~/objfs."""
    objfs = shlex.join(station.command())
    words = line.replace("~/objfs", shlex.quote(str(directory)))
    shell = f'objfs() {{ {objfs} "$@"; }}\n{words}'
    done = subprocess.run(
        ["sh", "-eu", "-c", shell],
        capture_output=True,
        text=True,
        env=station.full_environment(),
        timeout=120,
    )
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout


def test_a_mistake_and_back(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory)
    (directory / "letters").mkdir()
    (directory / "letters" / "first").write_text("Dear you\n")
    (directory / "plan").write_text("what I meant\n")
    lines = commands_under("A mistake, and back")
    said = [told(station, directory, line) for line in lines]
    differences, past, present = said[3], said[4], said[6]
    for path in ("letters", "letters/first", "plan"):
        assert path in differences
    assert past == "what I meant\n"
    assert present == "Dear you\nwhat I meant\n"
