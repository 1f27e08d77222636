"""Faults as values: what goes wrong with which requests, said by the test that wants it.

Owns the wrapper that misbehaves on demand; no production composition contains it.

    faulty = FaultyBucket(inner)
    fault = faulty.add(Fault(op="put", key="segment/", action=FailBefore(Unreachable), times=3))
    ...
    await fault.reached.wait()
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import trio

from objfs.backends.base import Bucket, Operation, Request
from objfs.backends.wrappers.wrapper import Call, Wrapper
from objfs.errors import BucketError, NoSuchBucket

T = TypeVar("T")


class Action(Protocol):
    """What happens to a matching request."""

    async def apply(self, request: Request, call: Call[T]) -> T:
        """Performs ``call``, or does not, or lies about it."""
        ...

    def spoil(self, data: bytes) -> bytes:
        """The bytes that travel instead of the right ones: those of an answer, or those put."""
        ...


class _Passing:
    async def apply(self, request: Request, call: Call[T]) -> T:
        return await call()

    def spoil(self, data: bytes) -> bytes:
        return data


@dataclass
class FailBefore(_Passing):
    """The request fails and the bucket never saw it."""

    error: type[BucketError]
    message: str = "injected before the request"

    async def apply(self, request: Request, call: Call[T]) -> T:
        await trio.lowlevel.checkpoint()
        raise self.error(f"{request.operation} {request.key}: {self.message}")


@dataclass
class FailAfter(_Passing):
    """The request takes effect, and its answer is lost."""

    error: type[BucketError]
    message: str = "injected after the request"

    async def apply(self, request: Request, call: Call[T]) -> T:
        await call()
        raise self.error(f"{request.operation} {request.key}: {self.message}")


@dataclass
class ShortBody(_Passing):
    """Only the first ``keep`` bytes arrive (None: half of them): of a get's answer, or in the
    bucket where it is a put."""

    keep: int | None = None

    def spoil(self, data: bytes) -> bytes:
        return data[: len(data) // 2 if self.keep is None else self.keep]


@dataclass
class WrongBytes(_Passing):
    """The byte at ``offset`` of what is answered (of what is stored, where it is a put) has all
    its bits flipped.  Negative offsets count from the end; beyond it they wrap around."""

    offset: int = 0

    def spoil(self, data: bytes) -> bytes:
        if not data:
            return data
        at = self.offset % len(data)
        return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@dataclass
class Hang(_Passing):
    """No answer until the request is cancelled, or ``release`` is set: then it goes on."""

    release: trio.Event = field(default_factory=trio.Event)

    async def apply(self, request: Request, call: Call[T]) -> T:
        await self.release.wait()
        return await call()


@dataclass
class HangAfter(Hang):
    """The request takes effect; its answer comes when ``release`` is set."""

    async def apply(self, request: Request, call: Call[T]) -> T:
        answer = await call()
        await self.release.wait()
        return answer


@dataclass
class Slow(_Passing):
    """Every matching request takes that many seconds longer."""

    seconds: float

    async def apply(self, request: Request, call: Call[T]) -> T:
        await trio.sleep(self.seconds)
        return await call()


@dataclass
class Gone(FailBefore):
    """The bucket itself is not there."""

    error: type[BucketError] = NoSuchBucket
    message: str = "injected: the bucket is gone"


@dataclass(eq=False)
class Fault:
    """An action for the requests that match.

    ``op`` is one operation, several, or None for all; ``key`` is what the key starts with.  The
    first ``skip`` matching requests pass, then ``times`` are hit (None: all from there on).
    """

    action: Action
    op: Operation | Collection[Operation] | None = None
    key: str = ""
    times: int | None = None
    skip: int = 0
    hits: int = field(default=0, init=False)
    reached: trio.Event = field(default_factory=trio.Event, init=False)

    def matches(self, request: Request) -> bool:
        """Whether the request is of the kind that is meant, spent or not."""
        if self.op is not None:
            wanted = (self.op,) if isinstance(self.op, str) else self.op
            if request.operation not in wanted:
                return False
        return request.key.startswith(self.key)

    def strike(self, request: Request) -> bool:
        """Counts the request; True when this one is to be hit."""
        if not self.matches(request) or self.hits == self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        self.reached.set()
        return True


class FaultyBucket(Wrapper):
    """Applies the first added fault that is due to each request, and remembers all requests."""

    def __init__(self, inner: Bucket) -> None:
        super().__init__(inner)
        self.requests: list[Request] = []
        self.reached = trio.Event()
        """Set once any fault has hit."""
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """From now on; returns the fault, whose ``reached`` and ``hits`` can be asked."""
        self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Requests that hang in it go on hanging."""
        self._faults.remove(fault)

    def clear(self) -> None:
        """Everything is well again, for requests to come."""
        self._faults.clear()

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return await self._pass(
            Request("get", key), lambda spoil: self._spoiled(self.inner.get(key, start, end), spoil)
        )

    async def put(self, key: str, data: bytes) -> None:
        await self._pass(Request("put", key, len(data)), lambda spoil: self.inner.put(key, spoil(data)))

    async def put_if_absent(self, key: str, data: bytes) -> None:
        request = Request("put_if_absent", key, len(data))
        await self._pass(request, lambda spoil: self.inner.put_if_absent(key, spoil(data)))

    async def around(self, request: Request, call: Call[T]) -> T:
        return await self._pass(request, lambda _spoil: call())

    async def _pass(self, request: Request, perform: Callable[[Callable[[bytes], bytes]], Awaitable[T]]) -> T:
        self.requests.append(request)
        action = self._due(request)
        return await action.apply(request, lambda: perform(action.spoil))

    async def _spoiled(self, answer: Awaitable[bytes], spoil: Callable[[bytes], bytes]) -> bytes:
        return spoil(await answer)

    def _due(self, request: Request) -> Action:
        for fault in self._faults:
            if fault.strike(request):
                self.reached.set()
                return fault.action
        return _Passing()
