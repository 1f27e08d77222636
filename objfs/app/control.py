"""The control socket of a running mount: who asks must be able to open the state directory.

Owns the socket file, the connections and the dispatch to the commands it is given.  Promises that a
request that fails, or a client that goes away, never harms the mount.  Commands are plain async
functions from a message to a result, with a way to report progress.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import trio

from objfs.app.wire import LINE_MAX, Message, decode, encode, failure, text, ungrouped
from objfs.errors import MountError, ObjfsError, UsageError
from objfs.volume.fields import JSON

log = logging.getLogger(__name__)

Report: TypeAlias = Callable[[Message], Awaitable[None]]
Command: TypeAlias = Callable[[Message, Report], Awaitable[Message]]

TELL_S = 0.2
"""Between two pieces of news of one command."""


async def send(report: Report, key: str, items: Iterable[JSON], batch: int) -> None:
    """A long listing, as progress: so many in one line."""
    left = iter(items)
    while part := list(islice(left, batch)):
        await report({key: part})


@contextlib.asynccontextmanager
async def telling(report: Report, progress: Callable[[], Message]) -> AsyncIterator[None]:
    """Reports the progress again and again while the body runs."""

    async def tell() -> None:
        while True:
            await report(progress())
            await trio.sleep(TELL_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        yield
        nursery.cancel_scope.cancel()


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name of ``path`` that fits the 108 bytes of a socket address, however deep the directory is."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def listen(path: Path) -> trio.SocketListener:
    """Binds the socket, mode 0600, in place of one that a dead mount left.  Needs the state lock held."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with short_path(path) as name:
        before = os.umask(0o177)
        try:
            listener.bind(name)
        finally:
            os.umask(before)
    listener.listen(16)
    return trio.SocketListener(trio.socket.from_stdlib_socket(listener))


class ControlServer:
    """Serves ``commands`` on a listener."""

    def __init__(self, commands: Mapping[str, Command]) -> None:
        self._commands = commands
        self._answering = 0
        self._idle = trio.Event()

    async def serve(self, listener: trio.SocketListener) -> None:
        """Runs until cancelled."""
        async with listener:
            await trio.serve_listeners(self._client, [listener])

    async def _client(self, stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with stream:
                lines = _Lines(stream)
                while (line := await lines.next()) is not None:
                    self._answering += 1
                    try:
                        await self._answer(stream, line)
                    finally:
                        self._answering -= 1
                        self._idle.set()
                        self._idle = trio.Event()

    async def wait_idle(self, limit_s: float) -> None:
        """Returns when every request was answered, or after ``limit_s`` seconds."""
        with trio.move_on_after(limit_s):
            while self._answering:
                await self._idle.wait()

    async def _answer(self, stream: trio.SocketStream, line: bytes) -> None:
        async def report(progress: Message) -> None:
            await stream.send_all(encode({"progress": progress}))

        try:
            request = decode(line)
            result = await _unwrapped(self._command(text(request, "command")), request, report)
            await stream.send_all(encode({"result": result}))
        except ObjfsError as error:
            await stream.send_all(encode(failure(error)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception as error:
            log.exception("control request failed")
            await stream.send_all(
                encode(failure(MountError(f"{type(error).__name__}: {error}; see the log")))
            )

    def _command(self, name: str) -> Command:
        command = self._commands.get(name)
        if command is None:
            raise UsageError(f"this mount does not know the command {name!r}: it may be of another objfs")
        return command


async def _unwrapped(command: Command, request: Message, report: Report) -> Message:
    """A command may use a nursery; its caller sees the error and not the group."""
    with ungrouped():
        return await command(request, report)


class _Lines:
    """Lines of a stream, one at a time; None at its end, or where a line is too long."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def next(self) -> bytes | None:
        while (end := self._buffer.find(b"\n")) < 0:
            data = await self._stream.receive_some()
            if not data or len(self._buffer) > LINE_MAX:
                return None
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line
