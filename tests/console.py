"""What the long runners print while they are at it."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """A line, seen at once also where the output goes to a file."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
