"""The end of a mount as the one who asked for it sees it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from objfs.app import mountpoint
from objfs.app.life import Life
from objfs.app.systemd import Notifier
from objfs.app.watch import LoopWatch


async def test_the_end_waits_until_the_kernel_has_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel forgot 10,000 inodes for longer than answers were waited for, and ``umount`` got none."""
    forgotten, told = threading.Event(), trio.Event()

    def unmount(_directory: Path, *, lazy: bool) -> None:
        assert not lazy
        forgotten.wait()

    async def end() -> None:
        await life.wait_unmounted()
        told.set()

    monkeypatch.setattr(mountpoint, "unmount", unmount)
    life = Life("vol", tmp_path, LoopWatch(), Notifier({}))
    life.mounted()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life.unmount)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(end)
        await trio.testing.wait_all_tasks_blocked()
        assert not told.is_set()
        forgotten.set()
        await told.wait()
