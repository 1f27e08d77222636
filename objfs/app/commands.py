"""What the control socket of a mount understands.

Owns the translation between messages and the running mount.  Holds no state of its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from objfs.app.clones import CloneCommands
from objfs.app.control import Command, Report, telling
from objfs.app.cost import cost_of
from objfs.app.differences import DifferenceCommands
from objfs.app.engine import Engine
from objfs.app.fsck import fsck_running
from objfs.app.gc import Wish, collect
from objfs.app.inspect import inspect_file
from objfs.app.life import Life
from objfs.app.maintain import repair_order, repair_running, scrub_order, scrub_running
from objfs.app.recode import Wish as Recode
from objfs.app.recode import recode_progress, recode_running
from objfs.app.rehouse import Rehouser
from objfs.app.rehouse import Wish as Move
from objfs.app.snapshots import SnapshotCommands
from objfs.app.trash import TrashCommands
from objfs.app.wire import Message, text
from objfs.errors import MountError, UsageError
from objfs.volume.fields import Fields

log = logging.getLogger(__name__)


class Commands:
    """The commands of one mount."""

    def __init__(self, life: Life, engine: Engine) -> None:
        self._life = life
        self._engine = engine
        self._rehouser = Rehouser(engine)

    def table(self) -> Mapping[str, Command]:
        return {
            "ping": self.ping,
            "status": self.status,
            "flush": self.flush,
            "umount": self.umount,
            "remount": self.remount,
            "info": self.info,
            "fsck": self.fsck,
            "gc": self.gc,
            "cost": self.cost,
            "bucket": self.bucket,
            "recode": self.recode,
            "scrub": self.scrub,
            "repair": self.repair,
            "log-level": self.log_level,
            **CloneCommands(self._engine).table(),
            **DifferenceCommands(self._engine).table(),
            **SnapshotCommands(self._engine).table(),
            **TrashCommands(self._engine).table(),
        }

    async def ping(self, _request: Message, _report: Report) -> Message:
        return {"directory": str(self._life.directory), "state": self._life.state, "pid": os.getpid()}

    async def status(self, _request: Message, _report: Report) -> Message:
        return self._life.status(self._engine, await self._engine.losses.status()).to_json()

    async def flush(self, request: Message, report: Report) -> Message:
        async with self._progress(report):
            if request.get("where") == "local":
                await self._engine.fs.sync()
            else:
                await self._engine.flush()
                await self._engine.catch_up()
        return {}

    async def umount(self, request: Message, report: Report) -> Message:
        """Drains while programs still work, so that little is left to do once they cannot."""
        wait, lazy = request.get("wait") is True, request.get("lazy") is True
        if not wait:
            await self._life.unmount(lazy=lazy)
            return {"left_bytes": self._engine.left_bytes}
        async with self._progress(report):
            await self._engine.flush_if_possible()
            await self._life.unmount(lazy=lazy)
            await self._life.finished.wait()
        return {"left_bytes": self._engine.left_bytes, "error": self._life.outcome}

    async def remount(self, request: Message, _report: Report) -> Message:
        """Asked before the kernel lets programs write, told after it lets them no more."""
        was_read_only = self._life.remounted_read_only
        if request.get("writes") is True:
            self._require_writing()
            self._engine.fs.resume()
        else:
            await self._engine.fs.pause()
        self._life.remounted_read_only = request.get("writes") is not True
        return {"was_read_only": was_read_only}

    def _require_writing(self) -> None:
        engine = self._engine
        if engine.read_only or not engine.gate.open:
            why = engine.reason or "it was mounted read-only and holds no lease"
            raise MountError(
                f"{self._life.directory} cannot become writable: {why}; unmount it, and mount it for writing"
            )

    async def info(self, request: Message, _report: Report) -> Message:
        number = request.get("ino")
        if not isinstance(number, int):
            raise UsageError("the request lacks an inode number")
        fs, ino = self._engine.operations.located(number)
        return await inspect_file(fs.tables, ino)

    async def fsck(self, request: Message, report: Report) -> Message:
        async with self._noting(report) as note:
            return await fsck_running(self._engine, data=request.get("data") is True, note=note)

    async def gc(self, request: Message, report: Report) -> Message:
        wish = Wish(*(request.get(name) is True for name in ("run", "old_keys", "delete")))
        async with self._noting(report) as note:
            return await collect(self._engine, wish, note)

    async def cost(self, _request: Message, _report: Report) -> Message:
        return await cost_of(self._engine)

    async def bucket(self, request: Message, report: Report) -> Message:
        wish = Move.from_json(Fields(dict(request), "request"))
        async with telling(report, self._rehouser.progress):
            return await self._rehouser.change(wish)

    async def recode(self, request: Message, report: Report) -> Message:
        wish = Recode.from_json(request)
        async with telling(report, lambda: recode_progress(self._engine)):
            return await recode_running(self._engine, wish)

    async def scrub(self, request: Message, report: Report) -> Message:
        order = scrub_order(request)
        async with self._noting(report) as note:
            return await scrub_running(self._engine, order, note)

    async def repair(self, request: Message, report: Report) -> Message:
        order = repair_order(request)
        async with self._noting(report) as note:
            return await repair_running(self._engine, order, note)

    async def log_level(self, request: Message, _report: Report) -> Message:
        level = logging.getLevelNamesMapping().get(text(request, "level").upper())
        if level is None:
            raise UsageError(f"{request['level']} is not a level: debug, info, warning, error")
        logging.getLogger("objfs").setLevel(level)
        log.info("log level set level=%s", request["level"])
        return {}

    def _progress(self, report: Report) -> AbstractAsyncContextManager[None]:
        """Says how much is left while the body runs."""
        return telling(report, lambda: {"left_bytes": self._engine.left_bytes})

    @asynccontextmanager
    async def _noting(self, report: Report) -> AsyncIterator[Callable[[str], None]]:
        """Passes on what the body is at, the last it said."""
        said: Message = {"note": ""}
        async with telling(report, said.copy):
            yield partial(said.__setitem__, "note")
