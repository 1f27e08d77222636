"""gc: beside a running mount, or alone over a volume that nobody uses here.

Owns the order of a collection: condemn, compact, publish, delete, look, price; and the choice between the
control socket of a mount and opening the volume.  A dry run alone opens it only for reading and takes no
lease; one that changes something is a mount without a kernel, with lease, checkpoints and an orderly end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import trio

from objfs.app.client import ControlClient
from objfs.app.compaction import away, terms_of
from objfs.app.cost import gc_cost
from objfs.app.engine import Engine, Order, opened_engine
from objfs.app.fsck import locked_run
from objfs.app.offline import working
from objfs.app.options import MountOptions
from objfs.app.wire import Message
from objfs.errors import NotMounted, ReadOnly
from objfs.volume.compact import Compactor, Stage
from objfs.volume.debts import read_debts
from objfs.volume.gc import Known, Note, Survey
from objfs.volume.gc import Order as SurveyOrder
from objfs.volume.gc_report import Done, GcReport
from objfs.volume.header import Secret
from objfs.volume.lease import Lease
from objfs.volume.local import VolumeHome
from objfs.volume.published import read_all
from objfs.volume.reaper import Reaper, Retention


@dataclass(frozen=True, slots=True)
class Wish:
    """``run``: condemn, compact and delete what may go; ``old_keys``: rewrite also what is sealed under an
    older key; ``delete``: what nothing names, too."""

    run: bool = False
    old_keys: bool = False
    delete: bool = False

    @property
    def changes(self) -> bool:
        return self.run or self.delete


@dataclass(frozen=True, slots=True)
class _Writer:
    """The parts of a mount that writes."""

    engine: Engine
    reaper: Reaper
    compactor: Compactor
    lease: Lease


def gc(home: VolumeHome, wish: Wish, secret: Callable[[], Secret], note: Note) -> Message:
    """The report as JSON.  ``secret`` is asked for only where no mount runs.

    Raises HeldElsewhere, ReadOnly, NoQuorum, and what opening a volume raises.
    """
    home.require()
    try:
        with ControlClient(home.control_path) as mount:
            return mount.ask(
                "gc",
                lambda said: note(str(said.get("note", ""))),
                None,
                run=wish.run,
                old_keys=wish.old_keys,
                delete=wish.delete,
            )
    except NotMounted:
        return _alone(home, secret(), wish, note)


def _alone(home: VolumeHome, secret: Secret, wish: Wish, note: Note) -> Message:
    async def body() -> Message:
        order = Order(home, secret, MountOptions(read_only=not wish.changes))
        opening = working if wish.changes else opened_engine
        async with opening(order, note) as engine:
            report = await collect(engine, wish, note)
        return report

    return locked_run(home, body)


async def collect(engine: Engine, wish: Wish, note: Note) -> Message:
    """Does what is wished, and says what is there afterwards.  Raises ReadOnly, NoQuorum, LeaseLost."""
    done = Done()
    if not wish.changes:
        report = await _survey(engine, note).look(trio.lowlevel.checkpoint)
        return _priced(engine, report)
    writer = _writer(engine)
    if wish.run:
        await _run(writer, wish, note, done)
    survey = _survey(engine, note)
    async with writer.compactor.alone():
        report = await survey.look(engine.flush if wish.delete else trio.lowlevel.checkpoint)
        if wish.delete:
            done.unknown_objects = await survey.delete_unknown(writer.lease)
    report.done = done
    return _priced(engine, report)


def _priced(engine: Engine, report: GcReport) -> Message:
    document = report.to_json()
    return document | {"cost": gc_cost(engine, document)}


def _writer(engine: Engine) -> _Writer:
    engine.gate.check()
    if engine.reaper is None or engine.compactor is None or engine.volume.lease is None:
        raise ReadOnly("the volume is mounted read-only: nothing can be deleted")
    return _Writer(engine, engine.reaper, engine.compactor, engine.volume.lease)


async def _run(writer: _Writer, wish: Wish, note: Note, done: Done) -> None:
    """Empty and sparse segments are condemned, a checkpoint says so, and what may go now goes."""
    terms = replace(
        terms_of(writer.engine.volume, writer.engine.settings), bytes_per_s=0.0, old_keys=wish.old_keys
    )
    done.condemned = await _condemn(writer.reaper)

    def told(stage: Stage) -> None:
        note(f"compacting: {100 * stage.begun // stage.units} % of {stage.units} new segments")

    compacted = await writer.compactor.round(terms, told)
    done.emptied, done.written, done.unreadable = compacted.emptied, compacted.written, compacted.failed
    note("publishing a checkpoint")
    await writer.engine.flush()
    note("deleting what may go")
    reaped = await writer.reaper.round()
    done.checkpoints, done.deleted = reaped.manifests, reaped.segments


async def _condemn(reaper: Reaper) -> int:
    count = 0
    while found := reaper.search():
        count += found
        await trio.lowlevel.checkpoint()
    return count


# --- looking -------------------------------------------------------------------------------


def _survey(engine: Engine, note: Note) -> Survey:
    settings, volume = engine.settings, engine.volume
    retention = Retention(settings.recovery_window, settings.recovery_keep, settings.delete_grace)

    async def known() -> Known:
        return await (_known_here(engine.reaper) if engine.reaper is not None else _known_there(engine))

    owed = engine.reaper.debts.owed if engine.reaper is not None else read_debts(volume.home)
    order = SurveyOrder(volume, retention, terms_of(volume, settings), engine.clock, known, owed, note)
    survey = Survey(order)
    survey.report.unfit = away(volume)
    return survey


async def _known_here(reaper: Reaper) -> Known:
    """What the mount remembers."""
    await reaper.learn()
    return Known(reaper.kept, reaper.pinned, frozenset(reaper.unread), reaper.waiting)


async def _known_there(engine: Engine) -> Known:
    """What the buckets say."""
    volume = engine.volume
    found, unread = await read_all(volume.buckets, volume.ring)
    condemned = {item.uuid: item for item in volume.moment.manifest.condemned}
    kept = [manifest for _, manifest in sorted(found.items())]
    return Known(kept, frozenset(), frozenset(unread), condemned)
