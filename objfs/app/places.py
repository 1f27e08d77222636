"""Buckets that a person named on the command line, for the commands that work without a mount.

Owns the loop that such a command runs in: buckets opened and wrapped, one asynchronous job, buckets closed.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from logging.handlers import MemoryHandler
from typing import TypeVar

import trio

from objfs.app.buckets import OpenBucket, open_place, opened
from objfs.app.wire import ungrouped
from objfs.backends.registry import parse_url
from objfs.codec.keys import KeyRing
from objfs.errors import BadSetting, MalformedURL, UsageError
from objfs.volume.attach import Offered, identified, read_volume
from objfs.volume.header import Secret, VolumeHeader
from objfs.volume.local import VolumeHome
from objfs.volume.quorum import BucketSet
from objfs.volume.settings import VolumeSettings

T = TypeVar("T")

WARNINGS_MOST = 1000
"""Warnings that are kept until it is clear how a command ends; more are shown at once."""


@dataclass(frozen=True, slots=True)
class OpenVolume:
    """A volume's header opened by a secret, and its buckets, without a mount."""

    header: VolumeHeader
    ring: KeyRing
    buckets: BucketSet


def run(job: Callable[[], Awaitable[T]]) -> T:
    """Runs one job in a loop of its own; an error of a nursery comes out as the error itself."""
    with _warnings_held(), ungrouped():
        return trio.run(job)


@contextmanager
def _warnings_held() -> Iterator[None]:
    """A command that fails says one line, its error; one that succeeds says also what was amiss."""
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter("objfs: %(message)s"))
    held = MemoryHandler(WARNINGS_MOST, flushLevel=logging.CRITICAL + 1, target=shown, flushOnClose=False)
    held.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(held)
    try:
        yield
        held.flush()
    finally:
        root.removeHandler(held)
        held.close()


def with_urls(urls: Sequence[str], job: Callable[[list[Offered]], Awaitable[T]]) -> T:
    """Runs ``job`` over buckets by URL.  Raises MalformedURL, UsageError (one twice)."""

    async def body() -> T:
        async with offered(urls) as found:
            return await job(found)

    return run(body)


@asynccontextmanager
async def offered(urls: Sequence[str]) -> AsyncIterator[list[Offered]]:
    """Buckets by URL, closed at the end.  Raises MalformedURL, UsageError (one twice)."""
    for url in urls:
        parse_url(url)
    if len(set(urls)) != len(urls):
        raise UsageError("the same bucket URL was given twice")
    async with AsyncExitStack() as stack:
        found: list[OpenBucket] = []
        for url in urls:
            item = _open_url(url)
            stack.push_async_callback(item.bucket.aclose)
            found.append(item)
        yield [Offered(item.url, {}, item.bucket) for item in found]


def _open_url(url: str) -> OpenBucket:
    """Raises MalformedURL also for a parameter's value: all that was given is the URL."""
    try:
        return open_place(b"", url, {}, VolumeSettings())
    except BadSetting as error:
        raise MalformedURL(f"{url}: {error}") from None


def with_volume(home: VolumeHome, secret: Secret, job: Callable[[OpenVolume], Awaitable[T]]) -> T:
    """Runs ``job`` over a volume known here.  Raises NoSuchVolume, WrongPassphrase, BucketError."""

    async def body() -> T:
        config = home.read_config()
        async with opened(config.buckets, config.settings) as found:
            header, ring = await read_volume({item.url: item.bucket for item in found.values()}, secret)
            by_uuid = {uuid: item.bucket for uuid, item in found.items()}
            buckets, _left_out = await identified(header, ring, by_uuid)
            return await job(OpenVolume(header, ring, buckets))

    return run(body)
