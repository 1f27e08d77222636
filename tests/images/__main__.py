"""Snapshots while rsync, SQLite and git write, as many as wanted.

python -m tests.images [--snapshots N] [--seed SEED]
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.console import say
from tests.images.taking import run


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--snapshots", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="objfs-images-"))
    say(f"seed {arguments.seed}")
    found = run(root, arguments.seed, arguments.snapshots, say)
    for text in found:
        say(text)
    say(f"{arguments.snapshots} snapshots, seed {arguments.seed}: {len(found)} complaints")
    if found:
        say(f"kept: {root}")
        return 1
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
