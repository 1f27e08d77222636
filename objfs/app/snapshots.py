"""What a running volume understands of snapshots, as commands of its control socket.

Owns the form of requests and answers: names as text that stands for bytes, long listings in batches that go
as progress.  Holds no state.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import trio

from objfs.app.control import Command, Report, send
from objfs.app.engine import Engine
from objfs.app.inspect import at_path
from objfs.app.wire import Message, text
from objfs.errors import UsageError
from objfs.meta.usage import Usage, UsageView
from objfs.model import ROOT, Ino, Snapshot
from objfs.volume.fields import JSON
from objfs.volume.retention import ALL, NO_SPAN, Policy, Verdict, parse_span

T = TypeVar("T")
BATCH = 500
"""Snapshots in one line of progress."""
RULES = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


class SnapshotCommands:
    """The commands about snapshots and space of one open volume."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> Mapping[str, Command]:
        return {
            "snapshot-create": self.create,
            "snapshot-list": self.list,
            "snapshot-delete": self.delete,
            "snapshot-hold": self.hold,
            "snapshot-prune": self.prune,
            "snapshot-scheduled": self.scheduled,
            "usage": self.usage,
        }

    async def create(self, request: Message, _report: Report) -> Message:
        wait = request.get("wait") is not False
        taken = await self._engine.snapshots.create(_name(request), text(request, "comment"), wait=wait)
        return _described(taken) | {"writeback": self._engine.writeback}

    async def list(self, request: Message, report: Report) -> Message:
        """Those of the trash where they are asked for, else all others."""
        trash = request.get("trash") is True
        found = await trio.to_thread.run_sync(
            _read, self._engine, lambda view: [*view.snapshots(lambda one: one.trash == trash)]
        )
        await send(report, "snapshots", (_described(one) | {"own_bytes": own} for one, own in found), BATCH)
        return {"count": len(found)}

    async def delete(self, request: Message, _report: Report) -> Message:
        force, wait = request.get("force") is True, request.get("wait") is not False
        return _described(await self._engine.snapshots.delete(_name(request), force=force, wait=wait))

    async def hold(self, request: Message, _report: Report) -> Message:
        held = request.get("held") is not False
        return _described(await self._engine.snapshots.hold(_name(request), held=held))

    async def prune(self, request: Message, report: Report) -> Message:
        policy, dry = _policy(request), request.get("dry_run") is not False
        verdicts = await self._engine.snapshots.prune(policy, dry=dry)
        await send(report, "snapshots", map(_decided, verdicts), BATCH)
        return _counted(verdicts)

    async def scheduled(self, _request: Message, _report: Report) -> Message:
        taken, verdicts = await self._engine.schedule.take()
        return _described(taken) | {"deleted": _counted(verdicts)["deleted"]}

    async def usage(self, request: Message, _report: Report) -> Message:
        top = self._top(request)
        found: Usage = await trio.to_thread.run_sync(_read, self._engine, lambda view: view.usage(top))
        return {**found._asdict()}

    def _top(self, request: Message) -> Ino | None:
        """The tree that is meant, by its path from the root of the mount or by its inode; None: all."""
        if "path" in request:
            number: JSON = at_path(self._engine.fs, os.fsencode(text(request, "path"))).ino
        else:
            number = request.get("ino")
        if not isinstance(number, int) or number == ROOT:
            return None
        return self._engine.table.get(Ino(number)).ino


def _read(engine: Engine, job: Callable[[UsageView], T]) -> T:
    with UsageView(engine.table.path) as view:
        return job(view)


def _name(request: Message) -> bytes:
    return os.fsencode(text(request, "name"))


def _described(one: Snapshot) -> Message:
    return {
        "name": os.fsdecode(one.name),
        "generation": one.generation,
        "created_ns": one.created_ns,
        "comment": one.comment,
        "held": one.held,
        "inodes": one.inodes,
        "bytes": one.content_bytes,
    }


def _decided(verdict: Verdict) -> Message:
    return _described(verdict.snapshot) | {"keep": bool(verdict.reasons), "reasons": [*verdict.reasons]}


def _counted(verdicts: Sequence[Verdict]) -> Message:
    kept = sum(bool(verdict.reasons) for verdict in verdicts)
    return {"kept": kept, "deleted": len(verdicts) - kept}


def _policy(request: Message) -> Policy:
    """Raises UsageError for one that keeps nothing."""
    within = request.get("within")
    last, hourly, daily, weekly, monthly, yearly = (_count(request, rule) for rule in RULES)
    span = parse_span(within) if isinstance(within, str) and within else NO_SPAN
    policy = Policy(last, hourly, daily, weekly, monthly, yearly, span)
    if policy.empty:
        raise UsageError("say what to keep: without a rule every snapshot would be deleted")
    return policy


def _count(request: Message, rule: str) -> int:
    count = request.get(rule, 0)
    if not isinstance(count, int) or count < ALL:
        raise UsageError(f"{count!r} is no number of {rule} snapshots to keep")
    return count
