"""Check, mend, check again: the whole of ``fsck --repair``.

Owns the sequence, and the honesty of its end: mended is what a second look over everything does not find any
more, and what had to be given up is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

from objfs.backends.base import Bucket
from objfs.ports import Clock
from objfs.volume.fsck import FsckOptions, Look, looked_at
from objfs.volume.fsck_mend import Mending
from objfs.volume.fsck_prepare import Preparation
from objfs.volume.fsck_report import Finding, Grade, Report, compared
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.open import OpenOptions, open_volume


async def check_volume(
    home: VolumeHome,
    secret: Secret,
    raw: Mapping[bytes, Bucket],
    *,
    clock: Clock,
    options: FsckOptions,
    note: Callable[[str], None] = lambda _text: None,
) -> Report:
    """Looks, and changes nothing.  The caller holds ``home.lock()``; raises as ``fsck.looked_at``."""
    async with looked_at(home, secret, raw, clock=clock, options=options, note=note) as look:
        return look.report


async def repair_volume(
    home: VolumeHome,
    secret: Secret,
    raw: Mapping[bytes, Bucket],
    *,
    clock: Clock,
    options: FsckOptions,
    note: Callable[[str], None] = lambda _text: None,
) -> Report:
    """Mends what can be mended.  A volume without damage is left as it is.

    Raises besides what the check raises HeldElsewhere, LeaseLost, NoQuorum, Unclean and errors of buckets:
    what was mended by then stays so.
    """

    def looking() -> AbstractAsyncContextManager[Look]:
        return looked_at(home, secret, raw, clock=clock, options=options, note=note)

    async with looking() as look:
        first = look.report
        if not first.of(Grade.REDUCED, Grade.DAMAGE, Grade.LOSS):
            return first
        preparation = Preparation(home, look, clock, options)
        await preparation.run()
    if preparation.done:
        async with looking() as look:
            pass  # rows and places may be others now
    wanted = OpenOptions(
        take_over=options.take_over,
        force=options.force,
        lease_interval_s=options.lease_interval_s,
        host=options.host,
        boot=options.boot,
    )
    volume = await open_volume(home, secret, raw, clock=clock, options=wanted, note=note)
    mending = Mending(volume, look, clock, options)
    await mending.run()
    async with looking() as again:
        lost = [Finding("given-up", Grade.LOSS, "the local state", text) for text in preparation.lost]
        lost += [Finding(said.rule, Grade.LOSS, "the inode table", said.text) for said in mending.lost]
        return compared(first, again.report, [*preparation.done, *mending.done], lost)
