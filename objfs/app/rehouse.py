"""The commands that change a volume's buckets: through the control socket of a running mount, or alone.

Owns the way from a request to ``volume.rehouse``: opening the URL, ``volume.toml``, the estimate, progress.
Promises that one change runs at a time, that ``volume.toml`` names a new bucket before the volume does, and
that without a mount the volume is opened, changed and left as a mount would leave it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, cast

from objfs.app.buckets import OpenBucket, open_place
from objfs.app.client import ControlClient
from objfs.app.control import telling
from objfs.app.engine import Engine, Order
from objfs.app.offline import reporting, working
from objfs.app.options import MountOptions
from objfs.app.places import run
from objfs.app.wire import Message
from objfs.errors import NotMounted, ObjfsError, ReadOnly, UsageError
from objfs.volume.config import BucketPlace
from objfs.volume.fields import Fields
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.membership import Newcomer
from objfs.volume.mover import Progress
from objfs.volume.rehouse import Rehousing, refuse_weaker
from objfs.volume.table import BucketEntry, check_domain

Action = Literal["add", "replace", "remove", "rebalance", "label"]
ACTIONS = ("add", "replace", "remove", "rebalance", "label")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for; ``bucket`` is a slot, uuid or URL of the table, ``url`` a new place.
    ``domain`` None: that of the bucket which is replaced, or none."""

    action: Action
    bucket: str = ""
    url: str = ""
    domain: str | None = None
    witness: bool = False
    dry_run: bool = False
    force: bool = False

    def to_json(self) -> Message:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, fields: Fields) -> Wish:
        """Raises Corrupt, UsageError."""
        action = fields.text("action")
        if action not in ACTIONS:
            raise UsageError(f"this mount cannot {action} a bucket: it may be of another objfs")
        return cls(
            cast("Action", action),
            fields.text("bucket", 8192),
            fields.text("url", 8192),
            check_domain(fields.text("domain")) if fields.has("domain") else None,
            fields.flag("witness"),
            fields.flag("dry_run"),
            fields.flag("force"),
        )


class Rehouser:
    """The changes of one engine, one at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._work: Rehousing | None = None

    def progress(self) -> Message:
        """Of the change that runs."""
        return progress_json(self._work.mover.progress) if self._work is not None else {}

    async def change(self, wish: Wish) -> Message:
        """Does it, or with ``dry_run`` says what it would take.  Raises UsageError, ReadOnly, and what
        ``Rehousing`` raises."""
        if self._work is not None:
            raise UsageError("another change of the volume's buckets is under way here; wait for its end")
        self._work = self._begin()
        try:
            if wish.dry_run:
                await self._estimate(self._work, wish)
            else:
                await self._perform(self._work, wish)
                await self._engine.standing.look()
            return self.progress() | {"buckets": len(self._work.members.entries)}
        finally:
            self._work = None

    def _begin(self) -> Rehousing:
        engine = self._engine
        if engine.checkpointer is None or not engine.gate.open:
            why = engine.reason or "this mount only reads"
            raise ReadOnly(f"the buckets of a volume are changed by who writes: {why}")
        return Rehousing(engine.volume, engine.checkpointer, engine.clock)

    async def _estimate(self, work: Rehousing, wish: Wish) -> None:
        if wish.action == "add":
            await work.estimate_spread(0 if wish.witness else 1)
        elif wish.action == "replace":
            await work.estimate_replace(work.members.find(wish.bucket))
        elif wish.action == "remove":
            old = work.members.find(wish.bucket)
            if not wish.force:
                refuse_weaker(self._engine.header, old)
            await work.estimate_remove(old)
        elif wish.action == "rebalance":
            await work.estimate_spread()

    async def _perform(self, work: Rehousing, wish: Wish) -> None:
        await self._estimate(work, wish)
        if wish.action == "add":
            await work.add(await self._welcome(work, wish, wish.domain or "", shards=not wish.witness))
        elif wish.action == "rebalance":
            await work.rebalance()
        elif wish.action == "label":
            await work.label(work.members.find(wish.bucket), wish.domain or "")
        elif wish.action == "remove":
            await work.remove(work.members.find(wish.bucket), force=wish.force)
        else:
            await self._replace(work, wish, work.members.find(wish.bucket))
        self._write_places()

    async def _replace(self, work: Rehousing, wish: Wish, old: BucketEntry) -> None:
        domain = old.domain if wish.domain is None else wish.domain
        newcomer = await self._welcome(work, wish, domain, shards=old.shards or old.leaving)
        await work.replace(old, newcomer, force=wish.force)

    # --- places of this machine --------------------------------------------------------

    async def _welcome(self, work: Rehousing, wish: Wish, domain: str, *, shards: bool) -> Newcomer:
        """Opened for as long as the mount lives; in ``volume.toml`` before the volume names it."""
        engine = self._engine
        known = {item.url: item for item in engine.opened_buckets.values()}
        item = open_place(b"", wish.url, {}, engine.settings)
        item = known.get(item.url, item)
        try:
            newcomer = await work.members.welcome(item.bucket, domain=domain, shards=shards)
        except BaseException:
            if item.url not in known:
                await item.bucket.aclose()
            raise
        uuid = newcomer.entry.uuid
        engine.opened_buckets[uuid] = OpenBucket(uuid, item.url, item.bucket, item.metrics)
        home = engine.volume.home
        config = home.read_config()
        if all(place.uuid != uuid for place in config.buckets):
            home.write_config(replace(config, buckets=(*config.buckets, BucketPlace(uuid, item.url))))
        return newcomer

    def _write_places(self) -> None:
        """Without those that left the volume."""
        home = self._engine.volume.home
        config, there = home.read_config(), {entry.uuid for entry in self._engine.header.buckets}
        kept = tuple(place for place in config.buckets if place.uuid in there)
        if kept != config.buckets:
            home.write_config(replace(config, buckets=kept))


def progress_json(progress: Progress) -> Message:
    return {
        "shards": progress.shards,
        "bytes": progress.size,
        "moved": progress.moved,
        "moved_bytes": progress.moved_size,
        "rebuilt": progress.rebuilt,
        "traffic": [
            {"slot": slot, "requests": one.requests, "read": one.read, "written": one.written}
            for slot, one in sorted(progress.traffic.items())
        ],
    }


# --- for the command line ------------------------------------------------------------------


def rehouse(
    home: VolumeHome, secret: Callable[[], Secret], wish: Wish, on_progress: Callable[[Message], None]
) -> Message:
    """Through the mount where one runs, else alone; ``secret`` is asked for only then."""
    home.require()
    try:
        with ControlClient(home.control_path) as mount:
            return mount.ask("bucket", on_progress, None, **wish.to_json())
    except NotMounted:
        return run(lambda: _alone(home, secret(), wish, on_progress))


async def _alone(
    home: VolumeHome, secret: Secret, wish: Wish, on_progress: Callable[[Message], None]
) -> Message:
    lock = home.lock()
    try:
        async with working(Order(home, secret, MountOptions()), lambda _note: None) as engine:
            rehouser = Rehouser(engine)
            async with telling(reporting(on_progress), rehouser.progress):
                try:
                    done = await rehouser.change(wish)
                except ObjfsError:
                    await engine.flush_if_possible()  # what was done before it failed is published
                    raise
        return done
    finally:
        lock.release()
