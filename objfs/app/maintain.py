"""Scrub and repair: through the control socket of a running mount, or alone over a volume that nobody uses
here.

Owns the choice between the two, and what each does to the local cache.  A running mount changes what it
holds itself; without one the state directory is locked, and a repair takes the lease.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import cast

import trio

from objfs.app.buckets import opened
from objfs.app.client import ControlClient
from objfs.app.clock import SystemClock
from objfs.app.engine import Engine
from objfs.app.fsck import MOST, locked_run, subject_of
from objfs.app.wire import Message
from objfs.cache.disk import version_path
from objfs.errors import NotMounted
from objfs.meta.view import TableView
from objfs.volume.fields import JSON, Fields
from objfs.volume.fsck import FsckOptions
from objfs.volume.fsck_local import CacheFaults, look_at_copies
from objfs.volume.fsck_report import Finding, Grade, Report
from objfs.volume.fsck_subject import Subject, ask
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.maintain import Alone, Ground, Work, beside_mount
from objfs.volume.repair import Plan, carry_out, make_plan, say
from objfs.volume.scrub import Scrub, ScrubOrder
from objfs.volume.scrub_book import NAME, Book

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RepairOrder:
    """``dry``: only the plan."""

    dry: bool = False
    bytes_per_s: float = 0.0


@dataclass(slots=True)
class Outcome:
    """``plan`` is that of a repair; ``left_out`` counts findings that a mount did not send."""

    report: Report
    plan: dict[str, JSON] = field(default_factory=dict)
    left_out: int = 0


# --- asked by a person ---------------------------------------------------------------------


def scrub(
    home: VolumeHome, secret: Callable[[], Secret], order: ScrubOrder, options: FsckOptions, note: Note
) -> Outcome:
    """``secret`` is asked for only where no mount runs.  Raises HeldElsewhere (a repair), and what opening a
    volume raises."""
    home.require()
    try:
        return _ask_mount(home, "scrub", note, **asdict(order))
    except NotMounted:
        clock = SystemClock()

        async def work(ground: Ground) -> None:
            book = await ask(Book.open, home.path / NAME, order.kind, clock.now_ns())
            run = Scrub(ground.subject, ground.report, ground.survey, order, book, ground.mender)
            await run.run()
            await ask(_scrub_copies, home, ground)

        report = _alone(home, secret(), options, note, work, order.bytes_per_s, change=order.repair)
        return Outcome(report)


def repair(
    home: VolumeHome,
    secret: Callable[[], Secret],
    order: RepairOrder,
    options: FsckOptions,
    note: Note,
    told: Callable[[dict[str, JSON]], None],
) -> Outcome:
    """``told`` hears of the plan before anything is moved.  Raises as ``scrub``."""
    home.require()
    try:
        dry = _ask_mount(home, "repair", note, dry=True, bytes_per_s=0.0)
        if order.dry:
            return dry
        told(dry.plan)
        return _ask_mount(home, "repair", note, **asdict(order))
    except NotMounted:
        plan: dict[str, JSON] = {}

        async def work(ground: Ground) -> None:
            plan.update((await _repair(ground, lambda made: told(made.to_json()))).to_json())

        report = _alone(home, secret(), options, note, work, order.bytes_per_s, change=not order.dry)
        return Outcome(report, plan)


def _ask_mount(home: VolumeHome, command: str, note: Note, **arguments: JSON) -> Outcome:
    with ControlClient(home.control_path) as mount:
        answer = mount.ask(command, lambda said: note(str(said.get("note", ""))), None, **arguments)
    fields = Fields(answer, command)
    plan = fields.raw("plan") if fields.has("plan") else {}
    return Outcome(Report.from_json(fields), plan, fields.integer("left_out"))


def _alone(
    home: VolumeHome,
    secret: Secret,
    options: FsckOptions,
    note: Note,
    work: Work,
    bytes_per_s: float,
    *,
    change: bool,
) -> Report:
    config = home.read_config()

    async def body() -> Report:
        async with opened(config.buckets, config.settings) as found:
            raw = {uuid: item.bucket for uuid, item in found.items()}
            alone = Alone(home, secret, raw, SystemClock(), options, note)
            return await alone.run(work, change=change, bytes_per_s=bytes_per_s)

    return locked_run(home, body)


async def _repair(ground: Ground, told: Callable[[Plan], object]) -> Plan:
    """The plan; carried out where anything may be changed."""
    plan = await make_plan(ground.subject, ground.survey)
    told(plan)
    if ground.mender is None:
        say(ground.subject, ground.report, plan, {})
    else:
        await carry_out(ground.subject, ground.survey, ground.report, plan, ground.mender)
    return plan


def _scrub_copies(home: VolumeHome, ground: Ground) -> None:
    """The copies in the cache of a volume that is not mounted; wrong ones go, as the buckets have the
    bytes."""
    found = CacheFaults()
    look_at_copies(ground.subject, ground.report, found)
    if ground.mender is None:
        return
    for chunk in set(found.rotten):
        version_path(home.cache_path, chunk).unlink(missing_ok=True)
    ground.report.findings = [_mended(one) for one in ground.report.findings]


def _mended(one: Finding) -> Finding:
    if one.rule != "cache-copy":
        return one
    return Finding(one.rule, one.grade, one.thing, one.what, one.bucket, one.todo, True)


# --- beside a running mount ----------------------------------------------------------------


async def scrub_running(engine: Engine, order: ScrubOrder, note: Note) -> Message:
    """The scrub of a mount that runs, as the answer to its command."""
    table = await trio.to_thread.run_sync(TableView, engine.table.path)
    try:
        ground = await _ground(engine, table, note, change=order.repair, bytes_per_s=0.0)
        book = await ask(Book.open, engine.volume.home.path / NAME, order.kind, engine.clock.now_ns())
        run = Scrub(ground.subject, ground.report, ground.survey, order, book, ground.mender)
        await run.run()
        await _scrub_cache(engine, run, ground.report)
        return ground.report.to_json(MOST)
    finally:
        table.close()


async def repair_running(engine: Engine, order: RepairOrder, note: Note) -> Message:
    """The repair, or its plan, of a mount that runs."""
    table = await trio.to_thread.run_sync(TableView, engine.table.path)
    try:
        ground = await _ground(engine, table, note, change=not order.dry, bytes_per_s=order.bytes_per_s)
        plan = await _repair(ground, lambda _plan: None)
        return ground.report.to_json(MOST) | {"plan": plan.to_json()}
    finally:
        table.close()


async def _ground(
    engine: Engine, table: TableView, note: Note, *, change: bool, bytes_per_s: float
) -> Ground:
    subject: Subject = subject_of(engine, table, note)
    return await beside_mount(subject, engine.volume, change=change, bytes_per_s=bytes_per_s)


async def _scrub_cache(engine: Engine, run: Scrub, report: Report) -> None:
    """A wrong copy is dropped, and read from the buckets by whoever needs it: found and mended in one."""
    copies = await engine.cache.verify_copies(run.rate.spend)
    report.seen["cached bytes"] += copies.nbytes
    for chunk, offset, length in copies.dropped:
        what = f"bytes {offset} to {offset + length - 1} of the copy are not what was stored"
        report.findings.append(Finding("cache-copy", Grade.DAMAGE, f"chunk {chunk}", what, mended=True))


def scrub_order(request: Message) -> ScrubOrder:
    """From a message.  Raises UsageError."""
    fields = Fields(cast("JSON", request), "scrub")
    return ScrubOrder(
        fields.text("kind"),
        fields.number("percent", 0, 100),
        fields.integer("since_ns"),
        fields.flag("repair"),
        fields.number("bytes_per_s", 0, 1e18),
    )


def repair_order(request: Message) -> RepairOrder:
    """From a message."""
    fields = Fields(cast("JSON", request), "repair")
    return RepairOrder(fields.flag("dry"), fields.number("bytes_per_s", 0, 1e18))


def options_here(*, take_over: bool, force: bool) -> FsckOptions:
    """How a repair opens a volume on this machine."""
    return FsckOptions(take_over=take_over, force=force, host=socket.gethostname())
