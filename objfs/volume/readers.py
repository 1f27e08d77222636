"""The pins of read-only mounts: which moments somebody still reads.

Owns the objects ``readers/<id>``: the record, the mount that renews its own, and the writer that looks at all
of them.  Promises that a pin whose counter grows is seen by every writer that asks a majority of the voters,
and that one whose counter stands still stops counting after a bounded time on the observer's monotonic clock;
no clock of another machine is ever read.  A reader that may not write goes on without a pin.  Decides nothing
about what is deleted.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace

import trio

from objfs.backends.base import Bucket
from objfs.codec.envelope import Kind
from objfs.codec.keys import KeyRing
from objfs.codec.seal import open_object, seal_object
from objfs.errors import CodecError, NoQuorum, NoSuchObject, Refused
from objfs.model import Slot
from objfs.ports import Clock
from objfs.store import layout
from objfs.volume.fields import Fields, canonical
from objfs.volume.quorum import Answers, BucketSet

log = logging.getLogger(__name__)

READER_SIZE = 16
RENEW_S = 60.0
"""Time between renewals: an idle read-only mount makes one request per bucket in it."""
EXPIRY_INTERVALS = 10
"""How many of its own intervals a pin's counter must stand still before it counts as left behind."""
GAP_INTERVALS = 4
"""How many of them one pause between two looks counts at most.  After an outage that both sides shared the
reader so has time to renew before it is judged."""
REMOVE_S = 10.0
PINS_MAX = 1024
"""Pins read per bucket; whoever can list more has put them there to be in the way."""


# --- the record ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pin:
    """The content of ``readers/<reader>``; ``host`` and ``pid`` are for people."""

    reader: bytes
    sequence: int
    host: str
    pid: int
    interval_s: float
    counter: int = 0


def new_pin(sequence: int) -> Pin:
    """A pin of this process under a new random id, not written yet."""
    host = socket.gethostname()[:256]
    return Pin(secrets.token_bytes(READER_SIZE), sequence, host, os.getpid(), RENEW_S)


def encode(pin: Pin, ring: KeyRing) -> bytes:
    """The object's bytes."""
    body = canonical(
        {
            "reader": pin.reader.hex(),
            "sequence": pin.sequence,
            "host": pin.host,
            "pid": pin.pid,
            "interval_s": pin.interval_s,
            "counter": pin.counter,
        }
    )
    return seal_object(ring.oldest, Kind.READER, layout.reader_name(pin.reader), body)


def decode(data: bytes, reader: bytes, ring: KeyRing) -> Pin:
    """Raises Corrupt, NewerFormat, UnknownKey."""
    name = layout.reader_name(reader)
    fields = Fields.parse(open_object(ring, Kind.READER, name, data), name)
    if fields.hexbytes("reader", len(reader)) != reader:
        raise fields.wrong("reader", reader.hex())
    return Pin(
        reader,
        fields.integer("sequence", 1),
        fields.text("host", 256),
        fields.integer("pid"),
        fields.number("interval_s", 1, 3600),
        fields.integer("counter"),
    )


# --- the reader's side ---------------------------------------------------------------------


class PinHolder:
    """The pin of one read-only mount.  ``run`` in a nursery; ``remove`` when that has ended."""

    def __init__(self, buckets: BucketSet, ring: KeyRing, pin: Pin) -> None:
        self.pin = pin
        self._buckets = buckets
        self._ring = ring
        self._refused: set[Slot] = set()
        self._held: set[Slot] = set()

    async def run(self) -> None:
        """Renews every interval, until cancelled or until every voter has refused the first pin."""
        while self.allowed:
            await self.renew()
            await trio.sleep(self.pin.interval_s)

    @property
    def allowed(self) -> bool:
        """Whether any bucket may take the pin."""
        return len(self._refused) < len(self._buckets.voters)

    async def renew(self) -> None:
        """One put per voter; a failure is logged and tried again next time."""
        asked = [slot for slot in self._buckets.voters if slot not in self._refused]
        self.pin = replace(self.pin, counter=self.pin.counter + 1)
        name, data = layout.reader_name(self.pin.reader), encode(self.pin, self._ring)

        async def put(_slot: Slot, bucket: Bucket) -> None:
            await bucket.put(name, data)

        answers = await self._buckets.each(put, slots=asked, limit_s=self.pin.interval_s)
        self._note(answers)

    async def move(self, sequence: int) -> None:
        """From now on that moment is read; the voters are told at once."""
        self.pin = replace(self.pin, sequence=sequence)
        if self.allowed:
            await self.renew()

    def _note(self, answers: Answers[None]) -> None:
        for slot, error in answers.errors.items():
            # A bucket that took a pin before may refuse for a while; one that never did is not asked again.
            if isinstance(error, Refused) and slot not in self._held:
                self._refused.add(slot)
            log.warning("reader not pinned bucket=%s: %s", self._buckets.name(slot), error)
        if answers.values and not self._held:
            log.info("reader pinned sequence=%d buckets=%d", self.pin.sequence, len(answers.values))
        self._held |= answers.values.keys()
        if not self.allowed:
            log.warning("no bucket takes a pin: what this mount shows is kept for the volume's grace only")

    async def remove(self) -> None:
        """Gives the pin up, in ``REMOVE_S`` at most, also when cancelled; what stays behind expires."""
        name = layout.reader_name(self.pin.reader)

        async def delete(_slot: Slot, bucket: Bucket) -> None:
            await bucket.delete(name)

        asked = [slot for slot in self._buckets.voters if slot not in self._refused]
        with trio.CancelScope(shield=True):
            answers = await self._buckets.each(delete, slots=asked, limit_s=REMOVE_S)
        for slot, error in answers.errors.items():
            log.warning("reader's pin left behind bucket=%s: %s", self._buckets.name(slot), error)


# --- the writer's side ---------------------------------------------------------------------


@dataclass(slots=True)
class _Known:
    """A pin, and for how long its counter was seen to stand still."""

    pin: Pin
    stood_s: float = 0.0

    @property
    def expired(self) -> bool:
        return self.stood_s >= EXPIRY_INTERVALS * self.pin.interval_s


@dataclass(frozen=True, slots=True)
class Pinned:
    """The sequences that are read by somebody, and the ids of pins that were left behind."""

    sequences: frozenset[int] = frozenset()
    expired: tuple[bytes, ...] = ()


class PinBook:
    """What an observer knows of pins.  Pure: time is given to it."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}
        self._looked: float | None = None

    def note(self, found: Iterable[Pin], now: float, *, complete: bool) -> None:
        """One look.  Only a counter higher than any before is a sign of life; a pin that is not found
        is gone only when the look was ``complete``."""
        gap = 0.0 if self._looked is None else now - self._looked
        self._looked = now
        latest = {pin.reader: pin for pin in sorted(found, key=lambda pin: pin.counter)}
        for reader, known in list(self._known.items()):
            pin = latest.pop(reader, None)
            if pin is not None and pin.counter > known.pin.counter:
                self._known[reader] = _Known(pin)
            elif pin is None and complete:
                del self._known[reader]
            else:
                known.stood_s += min(gap, GAP_INTERVALS * known.pin.interval_s)
        for reader, pin in latest.items():
            log.info("reader seen host=%s pid=%d sequence=%d", pin.host, pin.pid, pin.sequence)
            self._known[reader] = _Known(pin)

    @property
    def pinned(self) -> Pinned:
        living = frozenset(known.pin.sequence for known in self._known.values() if not known.expired)
        return Pinned(living, tuple(sorted(reader for reader, known in self._known.items() if known.expired)))


class PinObserver:
    """Looks at the pins in the buckets for one writer."""

    def __init__(self, buckets: BucketSet, ring: KeyRing, clock: Clock) -> None:
        self._buckets = buckets
        self._ring = ring
        self._clock = clock
        self._book = PinBook()

    async def look(self) -> Pinned:
        """What is pinned.  Requests: one LIST per voter and one GET per pin.  Raises NoQuorum when
        fewer than a majority of the voters answer: then a pin may be where nobody looked."""
        voters = self._buckets.voters

        async def read(slot: Slot, bucket: Bucket) -> list[Pin]:
            return await self._read(bucket, self._buckets.name(slot))

        def enough(answers: Answers[list[Pin]]) -> bool:
            return len(answers.values) >= self._buckets.quorum

        answers = await self._buckets.each(read, slots=voters, enough=enough)
        if not enough(answers):
            raise NoQuorum(
                f"{len(answers.values)} of {len(voters)} voting buckets say what is read by other "
                f"machines, {self._buckets.quorum} are needed to delete anything"
            )
        found = [pin for pins in answers.values.values() for pin in pins]
        self._book.note(found, self._clock.monotonic(), complete=len(answers.values) == len(voters))
        return self._book.pinned

    async def _read(self, bucket: Bucket, where: str) -> list[Pin]:
        names = [layout.parse_reader(info.key) for info in await bucket.list(layout.READER_PREFIX)]
        readers = [reader for reader in names if reader is not None]
        if len(readers) > PINS_MAX:
            log.warning("pins skipped bucket=%s count=%d", where, len(readers) - PINS_MAX)
        pins = []
        for reader in readers[:PINS_MAX]:
            try:
                pins.append(decode(await bucket.get(layout.reader_name(reader)), reader, self._ring))
            except NoSuchObject:
                continue
            except CodecError as error:
                log.warning("pin skipped bucket=%s reader=%s: %s", where, reader.hex(), error)
        return pins
