"""The whole matrix of two writers, as often as wanted.

python -m tests.rivals [--rounds N] [--first SEED]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from itertools import product
from pathlib import Path

from tests.console import say
from tests.rivals import matrix


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    arguments = parser.parse_args()
    failures = 0
    for seed in range(arguments.first, arguments.first + arguments.rounds):
        for end, succession in product(matrix.ENDS, matrix.SUCCESSIONS):
            failures += not _well(end, succession, seed)
    say(f"{failures} of {arguments.rounds * len(matrix.ENDS) * len(matrix.SUCCESSIONS)} failed")
    return 1 if failures else 0


def _well(end: matrix.End, succession: matrix.Succession, seed: int) -> bool:
    """In a directory of its own, which stays where anything is wrong."""
    root = Path(tempfile.mkdtemp(prefix="objfs-rivals-"))
    began = time.monotonic()
    try:
        matrix.run(root, end, succession, seed)
    except Exception:
        say(f"seed {seed} {end}, {succession}: kept in {root}\n{traceback.format_exc()}")
        return False
    shutil.rmtree(root)
    say(f"seed {seed} {end}, {succession}: ok {time.monotonic() - began:.1f} s")
    return True


if __name__ == "__main__":
    sys.exit(main())
