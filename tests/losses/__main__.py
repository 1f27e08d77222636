"""Every code over every number of buckets, with every loss that is borne, and one more.

python -m tests.losses [--only K+M] [--buckets N] [--sets N] [--state FILE]

What is done is noted in FILE, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import traceback
from pathlib import Path

import trio

from objfs.model import Code
from objfs.store.placement import tolerance
from tests.console import say
from tests.losses.matrix import BUCKETS, CODES, MOST_SETS, Loss, sets_of

STATE = Path(tempfile.gettempdir()) / "objfs-losses.state"


class Done:
    """Lines of what was gone through."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = set(path.read_text().splitlines()) if path.exists() else set()

    def __contains__(self, line: str) -> bool:
        return line in self._lines

    def add(self, line: str) -> None:
        self._lines.add(line)
        with self._path.open("a") as stream:
            stream.write(line + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", metavar="K+M", help="one code")
    parser.add_argument("--buckets", type=int, metavar="N", help="one number of buckets")
    parser.add_argument(
        "--sets", type=int, default=MOST_SETS, metavar="N", help="at most so many losses each"
    )
    parser.add_argument("--state", type=Path, default=STATE, metavar="FILE")
    arguments = parser.parse_args()
    logging.getLogger().addHandler(logging.NullHandler())  # what is lost is not worth a line each
    done, failures = Done(arguments.state), 0
    for code in CODES:
        for buckets in BUCKETS:
            if arguments.only in (None, str(code)) and arguments.buckets in (None, buckets):
                failures += not _well(code, buckets, arguments.sets, done)
    say(f"{failures} failed; {arguments.state} notes what is done")
    return 1 if failures else 0


def _well(code: Code, buckets: int, most: int, done: Done) -> bool:
    case = f"{code} over {buckets}"
    if f"{case} whole {most}" in done:
        return True
    began, chosen = time.monotonic(), sets_of(code, buckets, most)
    with tempfile.TemporaryDirectory(prefix="objfs-losses-") as root:
        try:
            trio.run(_run, Path(root), code, buckets, chosen, done)
        except Exception:
            say(f"{case}: FAILED\n{traceback.format_exc()}")
            return False
    done.add(f"{case} whole {most}")
    borne = tolerance(code, buckets)
    say(f"{case}: bears {borne}, {len(chosen)} losses and one more: ok {time.monotonic() - began:.1f} s")
    return True


async def _run(root: Path, code: Code, buckets: int, chosen: list[tuple[int, ...]], done: Done) -> None:
    loss = Loss(root, code, buckets)
    await loss.make()
    for number, lost in enumerate(chosen):
        line = f"{code} over {buckets} without {lost}"
        if line not in done:
            await loss.lose(number, lost)
            done.add(line)
    await loss.lose_too_many()


if __name__ == "__main__":
    sys.exit(main())
