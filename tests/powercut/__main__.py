"""Power cuts under SQLite and git, as many as wanted.

python -m tests.powercut [--cuts N] [--seed SEED]
"""

from __future__ import annotations

import argparse
import logging
import pickle
import shutil
import sys
import tempfile
from itertools import islice
from pathlib import Path

from tests.console import say
from tests.powercut.cutting import complaints, cuts, record

EVERY = 50
"""Cuts after which something is said."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cuts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    logging.getLogger("objfs").addHandler(logging.NullHandler())
    root = Path(tempfile.mkdtemp(prefix="objfs-powercut-"))
    records = record(root)
    say(f"{len(records)} records")
    failures = 0
    for number, cut in enumerate(islice(cuts(records, arguments.seed), arguments.cuts)):
        wrong = complaints(root / f"cut{number}", records, cut, f"{arguments.seed}-{number}")
        failures += bool(wrong)
        if wrong:
            say(f"cut {number} after {cut.at} records: {'; '.join(wrong)}")
        if number % EVERY == EVERY - 1:
            say(f"{number + 1} cuts, {failures} of them bad")
    say(f"{failures} of {arguments.cuts} cuts left something that is not whole")
    if failures:
        (root / "records").write_bytes(pickle.dumps(records))
        say(f"kept: {root}/records")
        return 1
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
