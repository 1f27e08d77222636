"""Finds out, with a few dozen small objects, whether a bucket keeps its promises; or with one, whether it
still does.

Owns the objects ``probe/...``, which it removes again.  Needs the permission to write, list and
delete: Refused otherwise.  Says nothing about durability, which no probe can see.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from objfs.backends.base import Bucket, Remarkable
from objfs.errors import BucketError, ContractBroken, NoSuchObject, ObjectExists, RangeError

ROUNDS = 8
RACERS = 6
CLEANUP_S = 10.0

_PROMISES = {
    "read_after_write": "an object just written must be read as written",
    "ranged_read": "a part of an object must be readable",
    "put_if_absent": "writing only if absent must leave an existing object alone",
    "put_if_absent_race": "of several who write one object if absent exactly one must win",
    "listing": "a listing must show all that was written",
    "delete": "a deleted object must be gone",
}
_OF_VOTERS = frozenset({"put_if_absent", "put_if_absent_race"})


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """Which promises were kept; ``notes`` are sentences for the person who chose the bucket."""

    url: str
    read_after_write: bool
    put_if_absent: bool
    put_if_absent_race: bool
    listing: bool
    ranged_read: bool
    delete: bool
    notes: tuple[str, ...] = ()

    @property
    def voter(self) -> bool:
        """Fit to decide who holds the lease and what is published."""
        return self.put_if_absent and self.put_if_absent_race

    @property
    def broken(self) -> tuple[str, ...]:
        """The names of the promises that were not kept."""
        return tuple(name for name in _PROMISES if not getattr(self, name))

    def complaints(self, *, voter: bool = True) -> tuple[str, ...]:
        """A sentence for each broken promise; a bucket that does not vote need not decide races."""
        names = [name for name in self.broken if voter or name not in _OF_VOTERS]
        return tuple(f"{_PROMISES[name]} ({name}): it does not keep that" for name in names)

    def require(self, *, voter: bool = True) -> None:
        """Raises ContractBroken for the first broken promise; a bucket that only holds shards
        (``voter=False``) need not be able to decide races."""
        for name in self.broken:
            if voter or name not in _OF_VOTERS:
                raise ContractBroken(
                    f"{self.url}: {_PROMISES[name]} ({name}); objfs cannot use this bucket so"
                )


async def probe(bucket: Bucket) -> ProbeReport:
    """Tries each promise.  Raises Refused, NoSuchBucket, Temporary and other BucketErrors that say
    that the bucket cannot be tried at all."""
    trial = _Trial(bucket)
    try:
        return await trial.run()
    finally:
        with trio.move_on_after(CLEANUP_S, shield=True):
            await trial.clean_up()


async def brief_probe(bucket: Bucket) -> ProbeReport:
    """The same with one object in eight requests, and without races, which count as decided well.  Raises
    what ``probe`` raises."""
    trial = _Trial(bucket)
    try:
        return await trial.brief()
    finally:
        with trio.move_on_after(CLEANUP_S, shield=True):
            await trial.clean_up()


class _Trial:
    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._made: list[str] = []

    async def run(self) -> ProbeReport:
        notes = await self._bucket.remarks() if isinstance(self._bucket, Remarkable) else []
        return ProbeReport(
            url=self._bucket.url,
            read_after_write=await self._read_after_write(),
            ranged_read=await self._ranged_read(),
            put_if_absent=await self._put_if_absent(),
            put_if_absent_race=await self._races(),
            listing=await self._listing(),
            delete=await self._delete(),
            notes=tuple(notes),
        )

    async def brief(self) -> ProbeReport:
        """The life of one object."""
        key, first, second = self._key(), secrets.token_bytes(3000), secrets.token_bytes(2000)
        await self._bucket.put_if_absent(key, first)
        part = await self._part(key, 1000, 2000)
        absent = not await self._racer(key, second)()
        await self._bucket.put(key, second)
        fresh = await self._answer(key) == second
        found = {info.key: info.size for info in await self._bucket.list(key)}
        await self._bucket.delete(key)
        gone = await self._answer(key) is None
        if gone:
            self._made.remove(key)
        return ProbeReport(
            url=self._bucket.url,
            read_after_write=fresh,
            ranged_read=part == first[1000:2000],
            put_if_absent=absent,
            put_if_absent_race=True,
            listing=found == {key: len(second)},
            delete=gone,
        )

    async def clean_up(self) -> None:
        for key in self._made:
            try:
                await self._bucket.delete(key)
            except BucketError:
                return  # what stays behind is small, and the failure that matters is on its way

    def _key(self) -> str:
        key = f"probe/{secrets.token_hex(16)}"
        self._made.append(key)
        return key

    async def _read_after_write(self) -> bool:
        key = self._key()
        for data in (secrets.token_bytes(100), secrets.token_bytes(3000), b""):
            await self._bucket.put(key, data)
            if await self._answer(key) != data or (await self._bucket.stat(key)).size != len(data):
                return False
        return True

    async def _ranged_read(self) -> bool:
        key, data = self._key(), secrets.token_bytes(5000)
        await self._bucket.put(key, data)
        parts = [await self._part(key, start, end) for start, end in ((0, 1), (1000, 3000), (4000, 9000))]
        return parts == [data[:1], data[1000:3000], data[4000:]]

    async def _put_if_absent(self) -> bool:
        key, data = self._key(), secrets.token_bytes(64)
        await self._bucket.put_if_absent(key, data)
        try:
            await self._bucket.put_if_absent(key, secrets.token_bytes(64))
        except ObjectExists:
            return await self._answer(key) == data
        return False

    async def _races(self) -> bool:
        for _ in range(ROUNDS):
            if not await self._race():
                return False
        return True

    async def _race(self) -> bool:
        key, offers = self._key(), [secrets.token_bytes(64) for _ in range(RACERS)]
        won = await _together([self._racer(key, offer) for offer in offers])
        winners = [offer for offer, first in zip(offers, won, strict=True) if first]
        return len(winners) == 1 and await self._answer(key) == winners[0]

    def _racer(self, key: str, offer: bytes) -> Callable[[], Awaitable[bool]]:
        async def run() -> bool:
            try:
                await self._bucket.put_if_absent(key, offer)
            except ObjectExists:
                return False
            return True

        return run

    async def _listing(self) -> bool:
        data = secrets.token_bytes(10)
        written = sorted(self._key() for _ in range(3))
        for key in written:
            await self._bucket.put(key, data)
        found = {info.key: info.size for info in await self._bucket.list("probe/")}
        return all(found.get(key) == len(data) for key in written)

    async def _delete(self) -> bool:
        key = self._key()
        await self._bucket.put(key, b"to be deleted")
        await self._bucket.delete(key)
        await self._bucket.delete(key)
        return await self._answer(key) is None and not await self._bucket.list(key)

    async def _part(self, key: str, start: int, end: int) -> bytes | None:
        try:
            return await self._bucket.get(key, start, end)
        except (NoSuchObject, RangeError):
            return None

    async def _answer(self, key: str) -> bytes | None:
        try:
            return await self._bucket.get(key)
        except NoSuchObject:
            return None


async def _together(racers: Sequence[Callable[[], Awaitable[bool]]]) -> list[bool]:
    """Starts all at the same moment; the first failure is raised as itself."""
    outcomes: list[bool] = [False] * len(racers)
    failures: list[BucketError] = []

    async def run(number: int) -> None:
        try:
            outcomes[number] = await racers[number]()
        except BucketError as failure:
            failures.append(failure)

    async with trio.open_nursery() as nursery:
        for number in range(len(racers)):
            nursery.start_soon(run, number)
    if failures:
        raise failures[0]
    return outcomes
