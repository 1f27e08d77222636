"""Telling the service manager how the mount is: sd_notify(3), without a library.

Owns the datagrams.  Promises that nothing here ever fails a mount: without ``NOTIFY_SOCKET``, or with one
that does not answer, a message is dropped.  Knows nothing of what the states mean.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

import trio


class Notifier:
    """Sends states to ``NOTIFY_SOCKET``.  ``watchdog_s`` is how often to call ``alive``, or None."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        limit = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(limit) / 2_000_000 if limit.isdigit() and int(limit) and mine else None

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto(message.encode("utf-8", "replace"), self._address)

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}\nMAINPID={os.getpid()}")

    def stopping(self, status: str) -> None:
        self._send(f"STOPPING=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    async def run(self) -> None:
        """Keeps the watchdog fed from the event loop, so that a blocked loop is noticed; returns at once
        where no watchdog was asked for."""
        while self.watchdog_s is not None:
            self.alive()
            await trio.sleep(self.watchdog_s)
