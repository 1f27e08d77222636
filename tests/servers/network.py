"""A network between a client and an S3 server that fails in all the ways that networks and servers fail.

Owns a proxy for each bucket: a port of its own, and a weather that says which faults strike how often.  It
reads HTTP as far as it must to answer in the server's place, to cut an answer short or to change a byte in
one; requests go to the server as they were signed, on a connection each.  Faults are values:

    with network("http://127.0.0.1:9000", count=3) as proxies:
        proxies[0].weather = (Chance(0.1, SlowDown()), Chance(0.02, LostAnswer()))
        proxies[1].go()         # nobody listens
        proxies[1].come_back()

Knows nothing of objfs.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias
from urllib.parse import urlsplit

HEAD_END = b"\r\n\r\n"
LIMIT = 1024 * 1024
NOT_FORWARDED = (b"expect", b"connection")
"""Headers between two ends of one connection; no signature covers them."""
START_S = 10.0

Answer: TypeAlias = tuple[bytes, bytes]
"""Head and body."""


@dataclass
class Exchange:
    """One request and what becomes of it."""

    method: bytes
    ask: Callable[[], Awaitable[Answer]]
    """Lets the server have the request, and returns what it says."""
    writer: asyncio.StreamWriter
    goes_on: bool = True
    """Whether the connection can carry another request."""

    async def send(self, head: bytes, body: bytes) -> None:
        self.writer.write(head + body)
        await self.writer.drain()

    def reset(self) -> None:
        """The client's system is told that the connection is gone."""
        self.goes_on = False
        _reset(self.writer)


# --- faults --------------------------------------------------------------------------------


class Fault(Protocol):
    """What happens to a request."""

    async def happen(self, exchange: Exchange) -> None: ...


@dataclass(frozen=True, slots=True)
class Fine:
    """Nothing happens to it."""

    async def happen(self, exchange: Exchange) -> None:
        await exchange.send(*await exchange.ask())


@dataclass(frozen=True, slots=True)
class Latency:
    """It takes so much longer."""

    seconds: float

    async def happen(self, exchange: Exchange) -> None:
        await asyncio.sleep(self.seconds)
        await exchange.send(*await exchange.ask())


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset, and the server never saw the request."""

    async def happen(self, exchange: Exchange) -> None:
        exchange.reset()


@dataclass(frozen=True, slots=True)
class LostAnswer:
    """The request took effect; then the connection is reset."""

    async def happen(self, exchange: Exchange) -> None:
        await exchange.ask()
        exchange.reset()


@dataclass(frozen=True, slots=True)
class HalfOpen:
    """The other end is gone and nobody says so: no byte for so long."""

    seconds: float

    async def happen(self, exchange: Exchange) -> None:
        await asyncio.sleep(self.seconds)
        exchange.reset()


@dataclass(frozen=True, slots=True)
class Error:
    """The server answers with an error of S3 and does nothing."""

    status: int
    code: str

    async def happen(self, exchange: Exchange) -> None:
        text = f'<?xml version="1.0"?><Error><Code>{self.code}</Code><Message>injected</Message></Error>'
        head = f"HTTP/1.1 {self.status} {self.code}\r\nContent-Type: application/xml\r\n"
        head += f"Content-Length: {len(text)}\r\n\r\n"
        await exchange.send(head.encode(), b"" if exchange.method == b"HEAD" else text.encode())


SLOW_DOWN = Error(503, "SlowDown")
FORBIDDEN = Error(403, "AccessDenied")
BROKEN = Error(500, "InternalError")


@dataclass(frozen=True, slots=True)
class Truncated:
    """The connection closes after half of the answer's body."""

    async def happen(self, exchange: Exchange) -> None:
        head, body = await exchange.ask()
        exchange.goes_on = False
        await exchange.send(head, body[: len(body) // 2])


@dataclass(frozen=True, slots=True)
class Flipped:
    """A byte in the middle of what is read is wrong; other answers are not touched."""

    async def happen(self, exchange: Exchange) -> None:
        head, body = await exchange.ask()
        if exchange.method == b"GET" and body and b"<?xml" not in body[:64]:
            at = len(body) // 2
            body = body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :]
        await exchange.send(head, body)


@dataclass(frozen=True, slots=True)
class Chance:
    """The share of requests that a fault strikes."""

    share: float
    fault: Fault


# --- one bucket's proxy --------------------------------------------------------------------


@dataclass
class Proxy:
    """Listens on a port of loopback; ``weather`` may be changed at any time, from any thread."""

    target: tuple[str, int]
    seed: int
    loop: asyncio.AbstractEventLoop
    weather: Sequence[Chance] = ()
    requests: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    """How often each fault did."""
    port: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        """Connections of clients, with who serves each: asyncio itself forgets tasks that wait."""
        self._call(self._listen())

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def go(self) -> None:
        """Nobody listens any more, and open connections are reset."""
        self.close()
        self.struck["gone"] += 1

    def come_back(self) -> None:
        if self._server is None:
            self._call(self._listen())

    def close(self) -> None:
        self._call(self._shut())

    def _call(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        asyncio.run_coroutine_threadsafe(run(), self.loop).result(START_S)

    # --- in the loop's thread ---

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, however many requests it carries; none that was accepted just before
        the bucket was gone."""
        if self._server is None:
            _reset(writer)
        self._open[writer] = asyncio.current_task()
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self._open.pop(writer, None)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(HEAD_END)
        headers = _headers(head)
        if headers.get(b"expect", b"").lower() == b"100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get(b"content-length", b"0")))
        exchange = Exchange(head.split(b" ", 1)[0], lambda: self._ask(head, body), writer)
        self.requests += 1
        await self._due().happen(exchange)
        return exchange.goes_on

    def _due(self) -> Fault:
        dice = self._random.random()
        for chance in self.weather:
            dice -= chance.share
            if dice < 0:
                self.struck[_name(chance.fault)] += 1
                return chance.fault
        return Fine()

    async def _ask(self, head: bytes, body: bytes) -> Answer:
        reader, writer = await asyncio.open_connection(*self.target, limit=LIMIT)
        try:
            writer.write(_without(head, NOT_FORWARDED, b"Connection: close") + body)
            said = await reader.read()
        finally:
            writer.close()
        answered, _, content = said.partition(HEAD_END)
        if not answered:
            raise ConnectionResetError("the server said nothing")
        more = b"" if _is_delimited(answered) else b"Content-Length: %d" % len(content)
        return _without(answered + HEAD_END, NOT_FORWARDED, more), content


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _headers(head: bytes) -> dict[bytes, bytes]:
    lines = head.split(b"\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}


def _is_delimited(head: bytes) -> bool:
    """Whether the client can tell where the body ends."""
    return bool({b"content-length", b"transfer-encoding"} & _headers(head).keys())


def _without(head: bytes, names: Sequence[bytes], more: bytes) -> bytes:
    """A head without these headers, and with one more where it is not empty."""
    lines = head.removesuffix(HEAD_END).split(b"\r\n")
    kept = [line for line in lines if line.partition(b":")[0].lower() not in names]
    return b"\r\n".join([*kept, *filter(None, [more])]) + HEAD_END


def _name(fault: Fault) -> str:
    return str(fault.status) if isinstance(fault, Error) else type(fault).__name__


# --- all of them ---------------------------------------------------------------------------


@contextlib.contextmanager
def network(endpoint: str, count: int, *, seed: int = 0) -> Iterator[list[Proxy]]:
    """So many ways to one server, all fine at first; one thread serves them."""
    address = urlsplit(endpoint)
    assert address.hostname is not None
    assert address.port is not None
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    proxies: list[Proxy] = []
    try:
        for number in range(count):
            proxies.append(Proxy((address.hostname, address.port), seed + number, loop))
        yield proxies
    finally:
        for proxy in proxies:
            proxy.close()
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(START_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_S)
        loop.close()


async def _cancel_all() -> None:
    await asyncio.sleep(0)  # what was accepted just now begins, or it would never close its connection
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
