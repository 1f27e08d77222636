"""Deletes that are owed to buckets: what must go from each, until it has gone.

Owns the file ``deletes.json`` of the state directory.  Promises that an object whose deletion was decided is
named there, durably, before its row is dropped or its first copy is deleted, and stays named until its
bucket has said that it is gone: a bucket that was down, and a process that was killed, forget nothing.  A
bucket that fails is left alone for a growing while.  Decides nothing about what is deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import trio

from objfs.backends.base import Bucket, is_key
from objfs.errors import Corrupt, ObjfsError
from objfs.model import Segment, Slot
from objfs.ports import Clock
from objfs.store import layout
from objfs.volume.fields import JSON, Fields
from objfs.volume.lease import Lease
from objfs.volume.local import VolumeHome, read_json, write_json
from objfs.volume.quorum import BucketSet

log = logging.getLogger(__name__)

OWED_MAX = 100_000
"""Names owed to one bucket; what is decided beyond that is left to ``objfs gc``, as objects that nothing
names."""
BATCH = 64
"""Objects deleted between two looks at the lease."""
FIRST_PAUSE_S = 60.0
LONGEST_PAUSE_S = 3600.0


@dataclass(slots=True)
class _Pause:
    """How long a bucket that failed is left alone."""

    pause_s: float = 0.0
    until: float = 0.0

    def longer(self, now: float) -> _Pause:
        pause = min(max(2 * self.pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        return _Pause(pause, now + pause)


def shards_of(segment: Segment) -> list[tuple[Slot, str]]:
    """Bucket and name of every object of a segment, those thought missing too."""
    return [(slot, layout.shard_name(segment.uuid, shard)) for shard, slot in enumerate(segment.placement)]


class Debts:
    """One per writing mount.  On the loop's thread; only writing the file waits."""

    def __init__(self, home: VolumeHome, clock: Clock) -> None:
        self._home = home
        self._clock = clock
        self._owed = read_debts(home)
        self._pauses: dict[Slot, _Pause] = {}
        self._changed = False
        self._file = trio.Lock()

    # --- owing -------------------------------------------------------------------------

    async def owe(self, objects: Iterable[tuple[Slot, str]]) -> None:
        """Durable on return.  Raises ObjfsError where the local disk is full or fails: nothing more is owed
        then, and nothing may be deleted."""
        objects = list(objects)
        async with self._file:
            added = self._not_owed_yet(objects)
            if added or self._changed:
                await self._write(added)
            for slot, names in added.items():
                self._owed.setdefault(slot, {}).update(names)

    def _not_owed_yet(self, objects: Iterable[tuple[Slot, str]]) -> dict[Slot, dict[str, None]]:
        added: dict[Slot, dict[str, None]] = {}
        for slot, name in objects:
            owed, names = self._owed.get(slot, {}), added.setdefault(slot, {})
            if name in owed:
                continue
            if len(owed) + len(names) < OWED_MAX:
                names[name] = None
            else:
                log.warning("object left to gc slot=%d object=%s: too much is owed", slot, name)
        return {slot: names for slot, names in added.items() if names}

    @property
    def owed(self) -> Mapping[Slot, Collection[str]]:
        """The names by bucket, always as they stand."""
        return self._owed

    @property
    def due(self) -> list[Slot]:
        """Buckets that are owed something and are not left alone at present."""
        now = self._clock.monotonic()
        return [slot for slot in self._owed if self._pauses.get(slot, _Pause()).until <= now]

    def keep_manifests(self, kept: Collection[int]) -> None:
        """Manifests that count are not deleted, nor what comes under a number after the newest: such numbers
        were given anew, after a history had to be given up."""
        newest = max(kept, default=0)
        for slot, names in list(self._owed.items()):
            for name in list(names):
                sequence = layout.parse_manifest(name)
                if sequence is not None and (sequence in kept or sequence > newest):
                    self._forget(slot, name)

    # --- paying ------------------------------------------------------------------------

    async def pay(self, buckets: BucketSet, lease: Lease) -> int:
        """Deletes what is due; returns how many objects went.  Raises LeaseLost, NoQuorum, ReadOnly."""
        for slot in self._owed.keys() - set(buckets.slots):
            del self._owed[slot]
            self._changed = True
        paid = 0

        async def one(slot: Slot, bucket: Bucket) -> None:
            nonlocal paid
            for name in list(self._owed.get(slot, ())):
                await lease.confirm()
                await bucket.delete(name)
                self._forget(slot, name)
                paid += 1
                if paid % BATCH == 0:
                    await lease.check()

        if self.due:
            await lease.check()
            due = self.due  # another round may have paid meanwhile
            before = {slot: len(self._owed[slot]) for slot in due}
            answers = await buckets.each(one, slots=due)
            self._note(before, answers.errors, buckets)
            await self._save()
            lease.check_open()
        return paid

    def _note(
        self, before: Mapping[Slot, int], errors: Mapping[Slot, ObjfsError], buckets: BucketSet
    ) -> None:
        """A bucket that deleted nothing is left alone for a while."""
        now = self._clock.monotonic()
        for slot, error in errors.items():
            left = len(self._owed.get(slot, ()))
            log.info("objects still owed bucket=%s count=%d: %s", buckets.name(slot), left, error)
            if left == before[slot]:
                self._pauses[slot] = self._pauses.get(slot, _Pause()).longer(now)
        for slot in before.keys() - errors.keys():
            if slot not in self._owed:
                self._pauses.pop(slot, None)

    def _forget(self, slot: Slot, name: str) -> None:
        names = self._owed.get(slot, {})
        names.pop(name, None)
        self._changed = True
        if not names:
            self._owed.pop(slot, None)

    async def _save(self) -> None:
        async with self._file:
            if self._changed:
                await self._write({})

    async def _write(self, added: Mapping[Slot, Iterable[str]]) -> None:
        """What is owed, and what is to be."""
        slots = self._owed.keys() | added.keys()
        owed = {slot: [*self._owed.get(slot, ()), *added.get(slot, ())] for slot in slots}
        self._changed = False
        try:
            await trio.to_thread.run_sync(write_debts, self._home, owed)
        except OSError as error:
            self._changed = True
            raise ObjfsError(
                f"the list of owed deletes cannot be written ({error}); see to the disk"
            ) from error
        except BaseException:
            self._changed = True
            raise


# --- the file ------------------------------------------------------------------------------


def read_debts(home: VolumeHome) -> dict[Slot, dict[str, None]]:
    """Names by bucket, in the order of deciding.  A file that cannot be read is as good as none: ``objfs gc``
    finds what it named."""
    try:
        fields = read_json(home.debts_path)
        return {} if fields is None else _parse(fields)
    except Corrupt as error:
        log.warning("list of owed deletes unreadable, objfs gc finds them: %s", error)
        return {}


def owes_manifest(owed: Mapping[Slot, Collection[str]], sequence: int) -> bool:
    """Whether a manifest is to go from some bucket."""
    name = layout.manifest_name(sequence)
    return any(name in names for names in owed.values())


def _parse(fields: Fields) -> dict[Slot, dict[str, None]]:
    owed = {}
    for one in fields.objects("owed", 256):
        names = one.texts("names", OWED_MAX)
        if not all(map(is_key, names)):
            raise one.wrong("names", "a list of object names")
        owed[Slot(one.integer("slot", 0, 255))] = dict.fromkeys(names)
    return owed


def write_debts(home: VolumeHome, owed: Mapping[Slot, Iterable[str]]) -> None:
    """Durable on return.  Blocking."""
    listed: list[JSON] = [{"slot": slot, "names": [*names]} for slot, names in sorted(owed.items())]
    write_json(home.debts_path, {"owed": listed})
