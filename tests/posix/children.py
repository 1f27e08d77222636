"""Other processes and other people.

A function runs in a forked child, with the ids that are asked for; what comes back is 0 or the errno of the
OSError that it raised.  A child that fails otherwise fails the test.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import NamedTuple

FAILED = 255


class Person(NamedTuple):
    """Somebody without privileges."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


ANN, BOB = Person(4001, 4001), Person(4002, 4002)
TEAM = 4100


class Child:
    """A running child; ``result`` waits for it."""

    def __init__(
        self, function: Callable[..., object], *arguments: object, who: Person | None = None
    ) -> None:
        self.pid = os.fork()
        if not self.pid:
            os._exit(_outcome(function, arguments, who))

    def result(self) -> int:
        """0, an errno, or minus the number of the signal that ended it."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert code != FAILED, "the child failed: its traceback is on standard error"
        return code


def run_as(who: Person | None, function: Callable[..., object], *arguments: object) -> int:
    """Runs it to its end."""
    return Child(function, *arguments, who=who).result()


def _outcome(function: Callable[..., object], arguments: tuple[object, ...], who: Person | None) -> int:
    try:
        if who is not None:
            os.setgroups(who.groups)
            os.setresgid(who.gid, who.gid, who.gid)
            os.setresuid(who.uid, who.uid, who.uid)
        function(*arguments)
    except OSError as error:
        return error.errno or FAILED
    except BaseException:
        traceback.print_exc()
        return FAILED
    return 0
