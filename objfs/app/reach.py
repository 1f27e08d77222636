"""Buckets that nobody named: looked for where the volume's header says that they were.

Owns the step from one bucket that is known to all that can be reached.  Promises that the header which
counts is the newest of all of them, that a place counts only when its label proves which bucket it is, that
one which does not answer costs bounded time, and that nothing is written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import trio

from objfs.app.places import offered
from objfs.errors import ForeignBucket, ObjfsError
from objfs.volume.attach import Learned, Offered, find_headers, identify_places, learn
from objfs.volume.config import BucketPlace
from objfs.volume.header import Secret, newest
from objfs.volume.table import BucketEntry

REACH_S = 20.0


@dataclass(frozen=True, slots=True)
class Reached:
    """The volume and its buckets that are at hand, in the order of the places that were learned.  ``silent``
    says for people, a line each, why others are not used."""

    learned: Learned
    offered: tuple[Offered, ...]
    silent: tuple[str, ...]


@asynccontextmanager
async def reached(
    named: Sequence[Offered], secret: Secret, known: Collection[bytes] = ()
) -> AsyncIterator[Reached]:
    """The volume of the ``named`` buckets with those of its others that are where it remembers them, but for
    the ``known`` (uuids).  Closes what it found at the end.  Raises as ``learn``."""
    async with AsyncExitStack() as stack:
        search = _Search(stack, named, secret, known)
        yield await search.run()


class _Search:
    """One, from the named buckets outwards."""

    def __init__(
        self, stack: AsyncExitStack, named: Sequence[Offered], secret: Secret, known: Collection[bytes]
    ) -> None:
        self._stack = stack
        self._named = named
        self._secret = secret
        self._known = known
        self._tried: set[tuple[bytes, str]] = set()
        self._found: dict[bytes, tuple[BucketPlace, Offered]] = {}
        self._silent: dict[bytes, str] = {}

    async def run(self) -> Reached:
        """Until no table names a place that was not tried: one that is found may hold a newer table."""
        learned = await learn(self._named, self._secret)
        while missing := self._untried(learned):
            self._tried |= {(entry.uuid, entry.url) for entry in missing}
            before = len(self._found)
            async with trio.open_nursery() as nursery:
                for entry in missing:
                    nursery.start_soon(self._reach, learned, entry)
            if len(self._found) > before:
                learned = await self._newest(learned)
        table = [entry.uuid for entry in learned.header.buckets]
        others = [self._found[uuid] for uuid in table if uuid in self._found]
        places = (*learned.places, *(place for place, _ in others))
        return Reached(
            Learned(learned.header, learned.ring, places),
            (*self._named, *(item for _, item in others)),
            tuple(self._silent[uuid] for uuid in table if uuid in self._silent and uuid not in self._found),
        )

    def _untried(self, learned: Learned) -> list[BucketEntry]:
        given = {place.uuid for place in learned.places} | self._found.keys() | set(self._known)
        return [
            entry
            for entry in learned.header.buckets
            if entry.url and entry.uuid not in given and (entry.uuid, entry.url) not in self._tried
        ]

    async def _reach(self, learned: Learned, entry: BucketEntry) -> None:
        try:
            with trio.fail_after(REACH_S):
                (item,) = await self._stack.enter_async_context(offered([entry.url]))
                (place,) = await identify_places([item], learned.header, learned.ring)
            if place.uuid != entry.uuid:
                raise ForeignBucket("another bucket of the volume is there")
        except (ObjfsError, trio.TooSlowError) as error:
            why = str(error) or f"no answer in {REACH_S:.0f} s"
            self._silent[entry.uuid] = f"bucket {entry.slot} was at {entry.url}, which is not used: {why}"
        else:
            self._found[entry.uuid] = place, item

    async def _newest(self, learned: Learned) -> Learned:
        """By the headers of all that are at hand; as slow as a passphrase where they are not all the same."""
        everybody = [*self._named, *(item for _, item in self._found.values())]
        headers = await find_headers({item.url: item.bucket for item in everybody})
        if len(set(headers.values())) == 1:
            return learned
        header, ring = await trio.to_thread.run_sync(newest, headers, self._secret)
        return Learned(header, ring, tuple(await identify_places(self._named, header, ring)))
