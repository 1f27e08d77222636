"""salvage: a copy out of a state that was set aside, with the buckets where they can be had."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from objfs.app.buckets import opened
from objfs.app.clock import SystemClock
from objfs.app.fsck import unlogged
from objfs.app.wire import ungrouped
from objfs.cache import boot_id
from objfs.errors import BucketError, NoSuchVolume
from objfs.model import NS
from objfs.ports import WriteGate
from objfs.store.store import SegmentStore
from objfs.volume.attach import identified, read_volume
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.salvage import Salvage, Salvaged, choose_source, finish_setting_aside

Note = Callable[[str], None]


def salvage(home: VolumeHome, secret: Secret | None, directory: Path, wanted: str, note: Note) -> Salvaged:
    """Copies into ``directory``; without a secret no bucket is asked.

    Raises UsageError, HeldElsewhere, WrongPassphrase, and errors of the destination's disk.
    """
    finish_setting_aside(home, f"{SystemClock().now_ns() // NS}")
    source = choose_source(home, wanted)

    async def body() -> Salvaged:
        async with _store(home, secret, note) as store:
            return await Salvage(source, directory, store, boot_id(), note).run()

    with unlogged(), ungrouped():
        return trio.run(body)


@asynccontextmanager
async def _store(home: VolumeHome, secret: Secret | None, note: Note) -> AsyncIterator[SegmentStore | None]:
    """To read from; None where no bucket answers: what is only there is missing in the copy then."""
    config = home.read_config()
    if secret is None:
        yield None
        return
    async with opened(config.buckets, config.settings) as found:
        raw = {uuid: item.bucket for uuid, item in found.items()}
        try:
            header, ring = await read_volume({bucket.url: bucket for bucket in raw.values()}, secret)
            buckets, _left_out = await identified(header, ring, raw)
        except (BucketError, NoSuchVolume) as error:
            note(f"no bucket can be asked: {error}")
            yield None
            return
        gate = WriteGate()
        gate.close("salvage only reads")
        yield SegmentStore(buckets.buckets, ring, header.code, clock=SystemClock(), gate=gate)
