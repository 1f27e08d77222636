"""Doing things as somebody else: what needs root, and children without privileges."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest

NOBODY = 65534
is_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def as_user(uid: int, groups: Sequence[int], function: Callable[..., object], *arguments: object) -> int:
    """Runs a function in a child with these ids (the first group is its own); its exit status is 0, an
    errno, or 255."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        os.setgroups(groups[1:])
        os.setresgid(groups[0], groups[0], groups[0])
        os.setresuid(uid, uid, uid)
        function(*arguments)
        os._exit(0)
    except OSError as error:
        os._exit(error.errno or 255)
    except BaseException:
        os._exit(255)


def as_nobody(function: Callable[..., object], *arguments: object) -> int:
    return as_user(NOBODY, [NOBODY], function, *arguments)
