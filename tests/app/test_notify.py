"""sd_notify: what arrives at the service manager's socket, and that its absence harms nothing."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import trio
from trio.testing import MockClock

from objfs.app.systemd import Notifier


def receiver(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(path))
    return made


def test_states_arrive(tmp_path: Path) -> None:
    with receiver(tmp_path / "n") as inbox:
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "n")})
        notifier.ready("mounted")
        notifier.stopping("draining")
        assert inbox.recv(1024).decode() == f"READY=1\nSTATUS=mounted\nMAINPID={os.getpid()}"
        assert inbox.recv(1024) == b"STOPPING=1\nSTATUS=draining"
    assert notifier.watchdog_s is None


def test_nobody_listens() -> None:
    Notifier({}).ready("x")
    Notifier({"NOTIFY_SOCKET": "/nonexistent/socket"}).ready("x")


async def test_the_watchdog_is_fed_twice_in_its_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    with receiver(tmp_path / "n") as inbox:
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "4000000"})
        with trio.move_on_after(3.9):
            await notifier.run()
        assert [inbox.recv(64) for _ in range(2)] == [b"WATCHDOG=1", b"WATCHDOG=1"]


def test_another_process_watchdog_is_not_ours() -> None:
    assert Notifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog_s is None
