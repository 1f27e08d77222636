"""fsck: through the control socket of a running mount, or alone over a volume that nobody uses here.

Owns the choice between the two.  A running mount answers for itself, and only looks; without one the state
directory is locked for as long as it takes.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

from objfs.app.buckets import opened
from objfs.app.client import ControlClient
from objfs.app.clock import SystemClock
from objfs.app.engine import Engine
from objfs.app.wire import Message, ungrouped
from objfs.cache import CacheDirectory, boot_id
from objfs.errors import NotMounted, UsageError
from objfs.meta.view import TableView
from objfs.volume.fields import Fields
from objfs.volume.fsck import FsckOptions, check_running
from objfs.volume.fsck_repair import check_volume, repair_volume
from objfs.volume.fsck_report import Report
from objfs.volume.fsck_subject import Subject
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome

T = TypeVar("T")

MOST = 5000
"""Findings that go over the control socket."""
Note = Callable[[str], None]


def fsck(
    home: VolumeHome,
    secret: Callable[[], Secret],
    *,
    repair: bool,
    data: bool,
    take_over: bool,
    force: bool,
    note: Note,
) -> tuple[Report, int]:
    """The report, and how many findings a mount had to leave out.  ``secret`` is asked for only where no
    mount runs.

    Raises UsageError (a repair of a mounted volume), HeldElsewhere, and what opening a volume raises.
    """
    home.require()
    try:
        with ControlClient(home.control_path) as mount:
            if repair:
                raise UsageError(f"volume {home.name} is mounted here: unmount it before it is repaired")
            answer = mount.ask("fsck", lambda said: note(str(said.get("note", ""))), None, data=data)
            fields = Fields(answer, "fsck")
            return Report.from_json(fields), fields.integer("left_out")
    except NotMounted:
        options = FsckOptions(data, take_over, force, host=socket.gethostname())
        return _alone(home, secret(), options, note, repair), 0


def _alone(home: VolumeHome, secret: Secret, options: FsckOptions, note: Note, repair: bool) -> Report:
    config = home.read_config()
    work = repair_volume if repair else check_volume

    async def body() -> Report:
        async with opened(config.buckets, config.settings) as found:
            raw = {uuid: item.bucket for uuid, item in found.items()}
            return await work(home, secret, raw, clock=SystemClock(), options=options, note=note)

    return locked_run(home, body)


def locked_run(home: VolumeHome, job: Callable[[], Awaitable[T]]) -> T:
    """Runs a job over a state directory that nobody else uses meanwhile; what it logs is in its result."""
    lock = home.lock()
    try:
        with ungrouped(), unlogged():
            return trio.run(job)
    finally:
        lock.release()


@contextmanager
def unlogged() -> Iterator[None]:
    """The report says all that a log would say, and says it once."""
    handler = logging.NullHandler()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


async def fsck_running(engine: Engine, *, data: bool, note: Note) -> Message:
    """The check beside a running mount, as the answer to its command."""
    table = await trio.to_thread.run_sync(TableView, engine.table.path)
    try:
        subject = subject_of(engine, table, note, data=data)
        return (await check_running(subject)).to_json(MOST)
    finally:
        table.close()


def subject_of(engine: Engine, table: TableView, note: Note, *, data: bool = False) -> Subject:
    """The volume of a running mount, to be looked at."""
    volume = engine.volume
    return Subject(
        header=volume.header,
        ring=volume.ring,
        raw={uuid: item.bucket for uuid, item in engine.opened_buckets.items()},
        buckets=volume.buckets,
        left_out=volume.left_out,
        store=volume.store,
        table=table,
        cache=CacheDirectory(volume.home.cache_path, boot_id()),
        live=True,
        data=data,
        note=note,
        owed=engine.reaper.debts.owed if engine.reaper is not None else {},
    )
