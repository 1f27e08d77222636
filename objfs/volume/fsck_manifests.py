"""The manifests in the buckets: copies, their chain, and which blobs they name.

Owns what counts as damage of a manifest.  Every sequence is read from every bucket.  A copy that is missing
or does not open is put again from one that does, as long as a majority shows that it was published: a
missing one is a matter of redundancy (that bucket was away), one that does not open is damage.  A moment of
which no copy opens is lost, and that matters for the newest alone.  Promises that a manifest which is not
the one that its successor names is told apart from one that lost a race.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from objfs.backends.base import Bucket
from objfs.errors import CodecError, NewerFormat, NoSuchObject
from objfs.model import Chunk, ChunkId, ChunkState, Ino, Slot
from objfs.store import layout
from objfs.volume import manifest as manifests
from objfs.volume.checkpoint import Moment
from objfs.volume.debts import owes_manifest
from objfs.volume.fsck_buckets import Blob
from objfs.volume.fsck_report import Grade, Report
from objfs.volume.fsck_subject import Subject
from objfs.volume.manifest import NO_HASH, Manifest
from objfs.volume.progress import Mark
from objfs.volume.published import Published, choose, counts
from objfs.volume.shipping import Stack

SETTLE_S = 2.0
"""How long a running mount is given to finish a manifest before a missing copy is believed."""


@dataclass(slots=True)
class Moments:
    """What was found.  ``newest`` is the newest manifest that opens, ``copies`` the bytes to put again by
    sequence and slot, ``unreadable`` the slots that hold something of a higher sequence that opens nowhere;
    ``silent``: a bucket did not answer.
    """

    newest: Published | None = None
    blobs: dict[bytes, Blob] = field(default_factory=dict)
    copies: dict[int, dict[Slot, bytes]] = field(default_factory=dict)
    unreadable: dict[int, list[Slot]] = field(default_factory=dict)
    silent: bool = False
    marks: dict[int, Mark] = field(default_factory=dict)
    """Digest of the table -> the manifest that has it."""


@dataclass(slots=True)
class _Copies:
    """One sequence on all buckets that answer."""

    sequence: int
    found: list[Published]
    damaged: dict[Slot, str]
    absent: list[Slot]


async def look_at_manifests(subject: Subject, report: Report) -> Moments:
    """One LIST per bucket and one GET per copy."""
    listed, silent = await _list(subject)
    moments = Moments(silent=silent)
    successor: Manifest | None = None
    for sequence in sorted({item for items in listed.values() for item in items}, reverse=True):
        copies = await _read(subject, sequence, listed)
        if owes_manifest(subject.owed, sequence):
            continue
        report.seen["manifests"] += 1
        chosen = _choose(subject, copies, successor)
        if chosen is None:
            _say_lost(subject, report, moments, copies)
            continue
        _say_chain(report, chosen, successor)
        await _say_copies(subject, report, moments, copies, chosen)
        if moments.newest is None:
            moments.newest = chosen
        _note_blobs(moments, chosen.manifest)
        moments.marks.setdefault(chosen.manifest.digest, Moment.of(chosen, Stack()).mark)
        successor = chosen.manifest
    return moments


def say_moments(subject: Subject, report: Report, moments: Moments) -> None:
    """What it means that newest manifests do not open: with a table here another one can be made."""
    for sequence, slots in moments.unreadable.items():
        grade = Grade.DAMAGE if subject.table is not None else Grade.LOSS
        todo = "" if grade is Grade.DAMAGE else "objfs mount --force goes back to the moment before it"
        name, where = layout.manifest_name(sequence), ", ".join(subject.name(slot) for slot in slots)
        what = "is the newest moment, and no copy opens"
        report.add("moment", grade, name, what, bucket=where, todo=todo)
    if moments.newest is None:
        report.add("moment", Grade.LOSS, "the volume", "no manifest opens", todo="objfs recover --scan")


async def _list(subject: Subject) -> tuple[dict[Slot, list[int]], bool]:
    async def look(_slot: Slot, bucket: Bucket) -> list[int]:
        found = [layout.parse_manifest(info.key) for info in await bucket.list(layout.MANIFEST_PREFIX)]
        return [sequence for sequence in found if sequence is not None]

    answers = await subject.buckets.each(look)
    return answers.values, bool(answers.errors)


async def _read(subject: Subject, sequence: int, listed: dict[Slot, list[int]]) -> _Copies:
    name = layout.manifest_name(sequence)

    async def get(_slot: Slot, bucket: Bucket) -> bytes | None:
        try:
            return await bucket.get(name)
        except NoSuchObject:
            return None

    holders = [slot for slot, items in listed.items() if sequence in items]
    answers = await subject.buckets.each(get, slots=holders)
    copies = _Copies(sequence, [], {}, [slot for slot in listed if slot not in holders])
    by_bytes: dict[bytes, list[Slot]] = {}
    for slot, data in answers.values.items():
        if data is None:
            copies.absent.append(slot)
        else:
            by_bytes.setdefault(data, []).append(slot)
    for data, slots in by_bytes.items():
        try:
            manifest = manifests.decode(data, sequence, subject.ring)
            copies.found.append(Published(manifest, data, tuple(sorted(slots))))
        except NewerFormat:
            raise
        except CodecError as error:
            copies.damaged |= dict.fromkeys(slots, str(error))
    return copies


def _choose(subject: Subject, copies: _Copies, successor: Manifest | None) -> Published | None:
    """The one that its successor names; else as a mount chooses."""
    if successor is not None and successor.sequence == copies.sequence + 1:
        named = [one for one in copies.found if one.hash == successor.previous]
        if named:
            return named[0]
    return choose(subject.buckets, copies.found)


def _say_lost(subject: Subject, report: Report, moments: Moments, copies: _Copies) -> None:
    """No copy of a sequence opens."""
    if not copies.damaged:
        return  # it was deleted meanwhile
    name = layout.manifest_name(copies.sequence)
    where = ", ".join(subject.name(slot) for slot in copies.damaged)
    if moments.newest is not None:
        report.add("old-moment", Grade.REMARK, name, "no copy opens; only that moment is lost", bucket=where)
        return
    moments.unreadable[copies.sequence] = list(copies.damaged)


def _say_chain(report: Report, chosen: Published, successor: Manifest | None) -> None:
    number = chosen.manifest.sequence
    if successor is None or successor.sequence != number + 1:
        return
    if successor.previous in (chosen.hash, NO_HASH):
        return  # without a predecessor: made from a scan, when none opened
    what = f"is not what manifest {successor.sequence} names before it: one of both was put back"
    report.add("chain", Grade.LOSS, layout.manifest_name(number), what, todo="see which bucket did that")


async def _say_copies(
    subject: Subject, report: Report, moments: Moments, copies: _Copies, chosen: Published
) -> None:
    name, buckets = layout.manifest_name(copies.sequence), subject.buckets
    wrong = dict(copies.damaged)
    if counts(buckets, chosen):
        held = f"{len(chosen.held_by)} of {len(buckets.slots)} buckets have it"
        wrong |= dict.fromkeys(copies.absent, f"is not there; {held}, which counts")
    elif not subject.live:
        report.add(
            "unsettled", Grade.REMARK, name, "is on fewer buckets than count: the next mount settles it"
        )
    for slot, why in sorted(wrong.items()):
        if slot in copies.absent and subject.live and not await _still_absent(subject, name, slot, chosen):
            continue
        moments.copies.setdefault(copies.sequence, {})[slot] = chosen.data
        grade = Grade.REDUCED if slot in copies.absent else Grade.DAMAGE
        report.add("manifest-copy", grade, name, why, bucket=subject.name(slot))
    for other in copies.found:
        if other is not chosen:
            where = ", ".join(subject.name(slot) for slot in other.held_by)
            what = f"of epoch {other.manifest.epoch} lost the race for this number"
            report.add("rival", Grade.REMARK, name, what, bucket=where)


async def _still_absent(subject: Subject, name: str, slot: Slot, chosen: Published) -> bool:
    """Whether one bucket lacks what another still has: it was neither put nor deleted meanwhile."""

    async def has(_slot: Slot, bucket: Bucket) -> bool:
        try:
            return bool(await bucket.get(name))
        except NoSuchObject:
            return False

    await trio.sleep(SETTLE_S)
    answers = await subject.buckets.each(has, slots=(slot, chosen.held_by[0]))
    return answers.values.get(slot) is False and answers.values.get(chosen.held_by[0]) is True


def _note_blobs(moments: Moments, manifest: Manifest) -> None:
    newest = moments.newest is not None and moments.newest.manifest is manifest
    for blob in manifest.blobs:
        known = moments.blobs.get(blob.segment.uuid)
        if known is None or (newest and not known.newest):
            chunk = Chunk(ChunkId(0), Ino(0), 0, ChunkState.STORED, blob.location)
            moments.blobs[blob.segment.uuid] = Blob(blob.segment, chunk, newest)
