"""Buckets that nobody named: looked for where the volume's header says that they were.

Owns the step from one bucket that is known to all that can be reached.  Promises that a place counts only
when its label proves which bucket it is, that one which does not answer costs bounded time, and that
nothing is written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import trio

from objfs.app.places import offered
from objfs.codec.keys import KeyRing
from objfs.errors import ForeignBucket, ObjfsError
from objfs.volume.attach import Offered, identify_places
from objfs.volume.header import VolumeHeader
from objfs.volume.table import BucketEntry

REACH_S = 20.0


@dataclass(frozen=True, slots=True)
class Reached:
    """``found`` proved who they are; ``silent`` says of the other URLs why they are not used."""

    found: list[Offered] = field(default_factory=list)
    silent: dict[str, str] = field(default_factory=dict)

    def said(self) -> list[str]:
        """For people, a line for each that was not found."""
        return [f"{url}, where a bucket was, is not used: {why}" for url, why in self.silent.items()]


@asynccontextmanager
async def reached(
    header: VolumeHeader, ring: KeyRing, missing: Sequence[BucketEntry]
) -> AsyncIterator[Reached]:
    """Those of the ``missing`` that are where the header remembers them; closed at the end."""
    seen = Reached()
    async with AsyncExitStack() as stack:

        async def reach(entry: BucketEntry) -> None:
            try:
                with trio.fail_after(REACH_S):
                    (item,) = await stack.enter_async_context(offered([entry.url]))
                    (place,) = await identify_places([item], header, ring)
                if place.uuid != entry.uuid:
                    raise ForeignBucket("another bucket of the volume is there")
            except (ObjfsError, trio.TooSlowError) as error:
                seen.silent[entry.url] = str(error) or f"no answer in {REACH_S:.0f} s"
            else:
                seen.found.append(item)

        async with trio.open_nursery() as nursery:
            for entry in missing:
                if entry.url:
                    nursery.start_soon(reach, entry)
        yield seen
