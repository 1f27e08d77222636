"""Another code for a volume: through the control socket of a running mount, or alone.

Owns the way from a request to ``volume.recode``: the estimate and its price, the progress, the outcome.
Without a mount the volume is opened, encoded anew as fast as the buckets allow, and left as a mount would
leave it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import cast

from objfs.app.client import ControlClient
from objfs.app.compaction import terms_of
from objfs.app.control import telling
from objfs.app.engine import Engine, Order, opened_engine
from objfs.app.fsck import locked_run
from objfs.app.offline import reporting, working
from objfs.app.options import MountOptions
from objfs.app.prices import read_prices
from objfs.app.wire import Message
from objfs.errors import NotMounted, ReadOnly
from objfs.model import Code
from objfs.store.placement import describe, describe_domains
from objfs.volume.compact import Compacted
from objfs.volume.fields import JSON, Fields
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.recode import estimate_recode, require_room
from objfs.volume.recode_plan import Demand, Estimate
from objfs.volume.table import data_slots, domains_of

Told = Callable[[Message], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for; ``fewer``: also where shards of a segment share buckets."""

    code: Code
    fewer: bool = False
    dry_run: bool = False

    def to_json(self) -> Message:
        return {"k": self.code.k, "m": self.code.m, "fewer": self.fewer, "dry_run": self.dry_run}

    @classmethod
    def from_json(cls, request: Message) -> Wish:
        """Raises Corrupt."""
        fields = Fields(cast("JSON", request), "recode")
        code = Code(fields.integer("k", 0, 255), fields.integer("m", 0, 255))
        return cls(code, fields.flag("fewer"), fields.flag("dry_run"))


# --- in the process of the mount -----------------------------------------------------------


async def recode_running(engine: Engine, wish: Wish) -> Message:
    """Does it, or with ``dry_run`` says what it would take.  Raises UsageError, CodecError, ReadOnly,
    LeaseLost, NoQuorum."""
    if wish.dry_run:
        return await _estimate(engine, wish)
    return await _perform(engine, wish, engine.recoder.total if engine.recoder is not None else Compacted())


async def _perform(engine: Engine, wish: Wish, before: Compacted) -> Message:
    """What was done after ``before``, and what is left to do."""
    if engine.recoder is None or not engine.gate.open:
        why = engine.reason or "this mount only reads"
        raise ReadOnly(f"the code of a volume is changed by who writes: {why}")
    await engine.recoder.change(wish.code, fewer=wish.fewer)
    total = engine.recoder.total
    done: Message = {
        "old_bytes": total.bytes_before - before.bytes_before,
        "new_bytes": total.bytes_after - before.bytes_after,
        "new_segments": total.written - before.written,
    }
    return done | recode_progress(engine) | _bears(engine, wish.code)


def recode_progress(engine: Engine) -> Message:
    """Of the work in the background."""
    if engine.recoder is None:
        return {}
    progress = engine.recoder.progress
    figures = cast("dict[str, JSON]", asdict(progress))
    return figures | {"left": progress.left, "left_size": progress.left_size}


def recode_status(engine: Engine) -> dict[str, JSON]:
    """What has still another code than the volume's; empty where nothing has."""
    progress = recode_progress(engine)
    return dict(progress) if progress.get("left") else {}


async def _estimate(engine: Engine, wish: Wish) -> Message:
    require_room(engine.header, wish.code, fewer=wish.fewer)
    moment = engine.checkpointer.moment if engine.checkpointer is not None else engine.volume.moment
    terms = terms_of(engine.volume, engine.settings)
    found = await estimate_recode(engine.volume, moment or engine.volume.moment, terms, wish.code)
    traffic = [cast("dict[str, JSON]", {"slot": slot} | asdict(one)) for slot, one in found.demand.items()]
    document: Message = {
        "segments": found.segments,
        "bytes": found.size,
        "new_segments": found.new_segments,
        "traffic": [*traffic],
        "cost": _cost(engine, found),
    }
    return document | _bears(engine, wish.code)


def _bears(engine: Engine, code: Code) -> Message:
    """The volume's code now and what ``code`` bears over its buckets."""
    slots, domains = data_slots(engine.header.buckets), domains_of(engine.header.buckets)
    return {
        "code": str(engine.header.code),
        "bears": describe(code, len(slots)),
        "domains": describe_domains(code, slots, domains),
    }


def _cost(engine: Engine, found: Estimate) -> Message:
    """Once, and what the month's storage becomes dearer (or cheaper, below 0) by."""
    prices = read_prices(engine.volume.home.path.parent)
    priced = [
        (prices.of(item.url, item.uuid.hex()), found.demand.get(entry.slot, Demand()))
        for entry in engine.volume.buckets.entries
        if (item := engine.opened_buckets.get(entry.uuid)) is not None
    ]
    return {
        "currency": prices.currency,
        "example": any(price.example for price, _ in priced),
        "once": sum(price.requests(one.puts, one.gets, one.read) for price, one in priced),
        "month": sum(price.storage_month(one.written - one.freed) for price, one in priced),
    }


# --- for the command line ------------------------------------------------------------------


def recode(
    home: VolumeHome, secret: Callable[[], Secret], wish: Wish, told: Told, on_progress: Told
) -> Message:
    """Through the mount where one runs, else alone; ``secret`` is asked for only then.  ``told`` hears of the
    estimate before anything is changed.  Raises as ``recode_running``."""
    home.require()
    dry = Wish(wish.code, wish.fewer, dry_run=True)
    try:
        with ControlClient(home.control_path) as mount:
            told(mount.ask("recode", lambda _message: None, None, **dry.to_json()))
            return {} if wish.dry_run else mount.ask("recode", on_progress, None, **wish.to_json())
    except NotMounted:
        return _alone(home, secret(), wish, told, on_progress)


def _alone(home: VolumeHome, secret: Secret, wish: Wish, told: Told, on_progress: Told) -> Message:
    options = MountOptions(read_only=wish.dry_run, settings={"compact_rate": 0})

    async def body() -> Message:
        opening = opened_engine if wish.dry_run else working
        async with opening(Order(home, secret, options), lambda _note: None) as engine:
            told(await _estimate(engine, wish))
            if wish.dry_run:
                return {}
            async with telling(reporting(on_progress), lambda: recode_progress(engine)):
                # What the task began with by itself is part of what was asked for.
                done = await _perform(engine, wish, Compacted())
        return done

    return locked_run(home, body)
