"""A volume that is only read, for one command: by its name here, or by the buckets that were named."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio

from objfs.app.buckets import opened
from objfs.app.clock import SystemClock
from objfs.app.fsck import unlogged
from objfs.app.places import offered
from objfs.app.reach import reached
from objfs.app.wire import ungrouped
from objfs.backends.base import Bucket
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.visit import Visit, visited

T = TypeVar("T")
Note = Callable[[str], None]
Raw = AbstractAsyncContextManager[dict[bytes, Bucket]]


class Visitor:
    """How volume ``name`` is visited.  Where ``urls`` are given it is the volume of these buckets, the name
    is for people, and the inode table lies in the directory for temporary files.  ``warn`` is told which
    buckets are not used.  Raises UsageError, NoSuchVolume."""

    def __init__(self, home: Path, name: str, urls: Sequence[str], warn: Note) -> None:
        self._warn = warn
        self._home = VolumeHome(home, name)
        self._urls = urls
        if not urls:
            self._home.require()

    def run(self, secret: Secret, note: Note, job: Callable[[Visit], Awaitable[T]]) -> T:
        """Runs ``job`` over the newest moment; ``note`` hears what it is at.  Raises as ``visited``, and
        MalformedURL, ForeignBucket."""

        async def body() -> T:
            async with (
                self._raw(secret) as raw,
                visited(raw, secret, self._place, SystemClock(), note) as seen,
            ):
                for slot, why in seen.left_out.items():
                    self._warn(f"bucket {seen.buckets.name(slot)} is not used: {why}")
                return await job(seen)

        with unlogged(), ungrouped():
            return trio.run(body)

    @property
    def _place(self) -> Path:
        return Path(tempfile.gettempdir()) if self._urls else self._home.path

    def _raw(self, secret: Secret) -> Raw:
        return _named(self._urls, secret, self._warn) if self._urls else _known(self._home)


@asynccontextmanager
async def _known(home: VolumeHome) -> AsyncIterator[dict[bytes, Bucket]]:
    config = home.read_config()
    async with opened(config.buckets, config.settings) as found:
        yield {uuid: item.bucket for uuid, item in found.items()}


@asynccontextmanager
async def _named(urls: Sequence[str], secret: Secret, warn: Note) -> AsyncIterator[dict[bytes, Bucket]]:
    """Those that were named, and those that the volume knows of besides."""
    async with offered(urls) as named, reached(named, secret) as seen:
        for line in seen.silent:
            warn(line)
        pairs = zip(seen.learned.places, seen.offered, strict=True)
        yield {place.uuid: item.bucket for place, item in pairs}
