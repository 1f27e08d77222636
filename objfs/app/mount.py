"""The composition root of a mounted volume: parse is done, here it is built, run and stopped.

Owns the order. Start: lock, engine (buckets, keys, lease, recovery, table, cache, file system), control
socket, services, mount, ready. Stop: unmount, drain, last checkpoint, lease, table, lock. Promises that
nothing is left behind by a start that fails half-way.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path

import trio

from objfs.app.client import ControlClient
from objfs.app.commands import Commands
from objfs.app.control import ControlServer, listen
from objfs.app.daemon import Readiness, in_background
from objfs.app.engine import Engine, Order, opened_engine
from objfs.app.follow import Following
from objfs.app.life import Life
from objfs.app.memory import shrink_when_freed
from objfs.app.options import MountOptions
from objfs.app.snapshot_home import removed_afterwards
from objfs.app.systemd import Notifier
from objfs.app.watch import LoopWatch
from objfs.app.wire import ungrouped
from objfs.errors import ExitCode, HeldElsewhere, ObjfsError
from objfs.fuse.session import Session, fuse_options
from objfs.volume.header import Secret
from objfs.volume.local import Lock, VolumeHome

log = logging.getLogger(__name__)

LOG_BYTES = 8 * 1024 * 1024
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOCK_POLL_S = 0.1
LOCK_PATIENCE_S = 5.0
"""How long a process that holds the lock may be silent before it counts as being in the way."""
ANSWERS_S = 5.0
"""How long the end waits for commands that are still being answered."""


@dataclass(frozen=True, slots=True)
class MountPlan:
    """All that a mount needs to know, fixed before anything starts."""

    volume: VolumeHome
    directory: Path
    options: MountOptions
    secret: Secret
    environment: Mapping[str, str]


def start(plan: MountPlan, *, foreground: bool, say: Callable[[str], None]) -> int:
    """Mounts; returns when mounted, or in the foreground when it is over.  The exit code."""
    if foreground:
        _log_to(logging.StreamHandler(sys.stderr))
        return _run(plan, Readiness(None, say))
    log_file = plan.volume.path / "mount.log"

    def body(readiness: Readiness) -> int:
        _log_to(RotatingFileHandler(log_file, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8"))
        return _run(plan, readiness)

    in_background(body, log_file, say)
    return ExitCode.OK


def _log_to(handler: logging.Handler) -> None:
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("objfs").setLevel(logging.INFO)
    logging.captureWarnings(True)


def _run(plan: MountPlan, readiness: Readiness) -> int:
    shrink_when_freed()
    watch = LoopWatch()
    with ungrouped():
        outcome = trio.run(_mounted, plan, readiness, watch)
    if outcome:
        log.error("the mount ended with work left: %s", outcome)
        return ExitCode.FAILURE
    return ExitCode.OK


async def _mounted(plan: MountPlan, readiness: Readiness, watch: LoopWatch) -> str:
    """The whole life; returns why the end was not clean, or an empty text."""
    life = Life(plan.volume.name, plan.directory, watch, Notifier(plan.environment))
    order = Order(plan.volume, plan.secret, plan.options)
    async with (
        _locked(plan.volume, readiness.note),
        removed_afterwards(plan.volume, plan.directory),
        opened_engine(order, readiness.note) as engine,
    ):
        await _serve(plan, life, engine, readiness)
    return life.outcome


# --- the lock ------------------------------------------------------------------------------


@asynccontextmanager
async def _locked(volume: VolumeHome, note: Callable[[str], None]) -> AsyncIterator[None]:
    lock = await take_lock(volume, note)
    try:
        yield
    finally:
        volume.control_path.unlink(missing_ok=True)
        lock.release()


async def take_lock(volume: VolumeHome, note: Callable[[str], None]) -> Lock:
    """The state directory for ourselves.  Waits for a mount that was taken away and still drains.

    Raises HeldElsewhere when another mount here uses the volume.
    """
    noted, deadline = False, trio.current_time() + LOCK_PATIENCE_S
    while True:
        try:
            return volume.lock()
        except HeldElsewhere as error:
            holder = await trio.to_thread.run_sync(_ask_holder, volume)
            if holder is None and trio.current_time() > deadline:
                raise
            if holder is not None:
                _refuse_living(volume, holder, error)
                deadline = trio.current_time() + LOCK_PATIENCE_S
                if not noted:
                    note(f"volume {volume.name} still drains from {holder['directory']}; waiting for it")
                    noted = True
        await trio.sleep(LOCK_POLL_S)


def _ask_holder(volume: VolumeHome) -> Mapping[str, str] | None:
    """What the process that holds the lock says of itself; None when it says nothing."""
    try:
        with ControlClient(volume.control_path) as mount:
            answer = mount.ask("ping", timeout_s=LOCK_PATIENCE_S)
    except ObjfsError:
        return None
    return {key: str(value) for key, value in answer.items()}


def _refuse_living(volume: VolumeHome, holder: Mapping[str, str], error: HeldElsewhere) -> None:
    if holder.get("state") in ("starting", "mounted"):
        where = f"{holder.get('state')} at {holder.get('directory')}"
        raise HeldElsewhere(f"volume {volume.name} is {where} by process {holder.get('pid')}") from error


# --- serving -------------------------------------------------------------------------------


async def _serve(plan: MountPlan, life: Life, engine: Engine, readiness: Readiness) -> None:
    """Services around the mount, until it is gone and drained."""
    server = ControlServer(Commands(life, engine).table())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, listen(plan.volume.control_path))
        nursery.start_soon(life.obey_signals, nursery.cancel_scope)
        nursery.start_soon(life.feed_watchdog)
        nursery.start_soon(life.watch_loop)
        await nursery.start(engine.run)
        await _answer_the_kernel(plan, life, engine, readiness)
        life.unmounted(engine.left_bytes)
        await engine.finish()
        life.end(engine.outcome)
        await life.wait_unmounted()
        await server.wait_idle(ANSWERS_S)
        nursery.cancel_scope.cancel()


async def _answer_the_kernel(plan: MountPlan, life: Life, engine: Engine, readiness: Readiness) -> None:
    """From mount(2) to the end of the mount."""
    flags = {*plan.options.kernel, "ro"} - {"rw"} if engine.read_only else plan.options.kernel
    options = fuse_options(plan.volume.name, flags, allow_other=plan.options.allow_other)
    session = Session(engine.operations, plan.directory, options)
    session.mount()
    engine.exchange.kernel = session
    clean = False
    try:
        life.mounted()
        readiness.ready()
        if engine.following is None:
            await session.serve()
        else:
            await _serve_and_follow(session, engine.following)
        clean = True
    finally:
        # A mount that fails must answer with errors: only an orderly end may free the directory.
        session.close(unmount=clean or life.killed)


async def _serve_and_follow(session: Session, following: Following) -> None:
    """Requests are answered until the worker that tells the kernel something has returned: it may wait for an
    answer, where no signal reaches it."""
    serving = trio.CancelScope(shield=True)

    async def follow() -> None:
        try:
            await following.run(session)
        finally:
            serving.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        with serving:
            await session.serve()
        nursery.cancel_scope.cancel()
