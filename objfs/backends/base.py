"""What a bucket is: the contract between everything that stores objects and everything that asks.

Owns the protocol, its records and the few rules that all backends share (keys, ranges).  Knows no
cloud.  ``tests/backends/contract.py`` is this contract as a suite; every backend and every
composition of wrappers passes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from objfs.errors import RangeError, UsageError

KEY_MAX = 200
"""Bytes of the longest key."""

_KEY = re.compile(r"[a-z0-9_-][a-z0-9._-]*(?:/[a-z0-9_-][a-z0-9._-]*)*")
_PREFIX = re.compile(r"[a-z0-9._/-]*")

Operation = Literal["get", "put", "put_if_absent", "delete", "stat", "list"]
OPERATIONS: tuple[Operation, ...] = ("get", "put", "put_if_absent", "delete", "stat", "list")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object: its key, size in bytes, and the bucket's own time of its last change.

    ``mtime_ns`` is for display only: buckets differ in clock and in resolution (S3: one second).
    """

    key: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a bucket; ``size`` is the number of bytes sent with it."""

    operation: Operation
    key: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What can be said about a kind of bucket before the first request."""

    durable: bool
    """What was put outlives this process."""
    local: bool
    """On this machine: loses its objects with it."""
    atomic_create: Literal["always", "depends on the server"]
    """Whether put-if-absent is known to have one winner, or must be probed."""


class Bucket(Protocol):
    """A place for objects: key to bytes.

    **Keys** are what ``check_key`` passes: lower-case ASCII, at most 200 bytes, parts between
    slashes, no part starting with a dot.  No key is also the directory of another one.

    **Visible and durable.**  When ``put`` or ``put_if_absent`` returns, every later ``get``,
    ``stat`` and ``list``, from any process or machine, sees the object, whole, and it survives a
    power cut.  A reader sees an old or a new object and never a mixture.  ``delete`` is visible on
    return; after a power cut the object may be there again.

    **One winner.**  Of any number of ``put_if_absent`` of one key exactly one returns, the others
    raise ObjectExists, and the object is the winner's.  A caller who retries after a lost answer
    recognises its own object by its bytes, so these must be unique to the writer (a random id).
    ``probe`` finds out whether a server keeps this promise.

    **Failures.**  Only BucketError and its kind.  After a Temporary error it is unknown whether
    the request took effect, and it may still do so later.  NoSuchBucket says that the place
    itself is gone; it is never made again by a request.

    **Cancellation** is answered at once by every method, also while a thread hangs in the
    operating system; the thread is abandoned.

    Methods may be called from many tasks at once.  Keys out of the grammar raise UsageError.
    """

    @property
    def url(self) -> str:
        """What to call the bucket in messages; holds no secret."""
        ...

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes ``start`` to ``end`` (exclusive, None: to the end) of an object.

        An end beyond the object is cut.  From 0 an empty object reads as nothing.  RangeError
        where the range is empty or starts at or beyond the end; NoSuchObject.
        """
        ...

    async def put(self, key: str, data: bytes) -> None:
        """Makes or replaces an object.  Refused, BucketFull."""
        ...

    async def put_if_absent(self, key: str, data: bytes) -> None:
        """Makes an object; ObjectExists where there is one, which stays as it is."""
        ...

    async def delete(self, key: str) -> None:
        """Removes an object; one that is not there is fine."""
        ...

    async def stat(self, key: str) -> ObjectInfo:
        """Size and time of an object.  NoSuchObject."""
        ...

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """All objects whose key starts with ``prefix``, sorted by key, however many pages it
        takes.  Names that are no keys are left out.  The answer is held in memory whole: ask for
        one fan-out directory at a time where there may be millions."""
        ...

    async def aclose(self) -> None:
        """Gives connections back; may be called twice."""
        ...


@runtime_checkable
class Remarkable(Protocol):
    """A bucket that can tell what it does behind our back."""

    async def remarks(self) -> list[str]:
        """Sentences about versioning, object lock, expiry rules and archive tiers; never raises
        because the account may not ask."""
        ...


def check_key(key: str) -> None:
    """Raises UsageError for anything that is not a key."""
    if not is_key(key):
        raise UsageError(f"{key!r} is not an object key: lower-case ASCII parts, {KEY_MAX} bytes at most")


def is_key(text: str) -> bool:
    """Whether ``text`` is a key that any backend takes."""
    return len(text) <= KEY_MAX and _KEY.fullmatch(text) is not None


def check_prefix(prefix: str) -> None:
    """Raises UsageError for a prefix that no key can start with."""
    if len(prefix) > KEY_MAX or _PREFIX.fullmatch(prefix) is None:
        raise UsageError(f"{prefix!r} is not the start of an object key")


def check_range(key: str, start: int, end: int | None) -> None:
    """Raises RangeError for a range that is empty or negative whatever the object's size."""
    if start < 0 or (end is not None and end <= start):
        raise RangeError(f"{key}: bytes {start} to {end} are no range; ask for at least one byte from 0 on")


def cut_range(key: str, size: int, start: int, end: int | None) -> slice:
    """The part of an object of ``size`` bytes that a (checked) range means; RangeError."""
    if start >= size and start > 0:
        raise RangeError(f"{key}: byte {start} is outside the object, which has {size} bytes")
    return slice(start, size if end is None else min(end, size))


Extend = Callable[[], None]
_extend: ContextVar[Extend | None] = ContextVar("objfs_bucket_progress", default=None)


def on_progress(extend: Extend) -> None:
    """Sets, for the running task, what ``progress`` calls; a time limit resets its clock there."""
    _extend.set(extend)


def progress() -> None:
    """Called by a backend between the pages of one listing: the request is long, but it moves."""
    extend = _extend.get()
    if extend is not None:
        extend()
