"""A history's operations on snapshots, on a volume without a mount, and all snapshots read back.

Owns how the snapshots of a machine are named in a history: the one that undoes a restore has the time in its
name, and there is at most one of those.
"""

from __future__ import annotations

from objfs.app.browse import Showing
from objfs.app.engine import Engine
from objfs.model import ROOT, Snapshot
from objfs.volume.retention import Policy
from tests.crashes.hands import Hands
from tests.system.history import Operation, Thing, Tree
from tests.system.past import PAST, UNDO, apart


class Curator:
    """Whoever takes, drops, prunes and restores snapshots."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def perform(self, op: Operation) -> None:
        """One operation; a snapshot that is taken or dropped is in the buckets when the next flush is."""
        engine = self._engine
        match op.verb:
            case "snapshot":
                await engine.snapshots.create(op.name, wait=False)
            case "drop":
                await engine.snapshots.delete(self._real(op.name), wait=False)
            case "prune":
                await engine.snapshots.prune(Policy(last=op.length))
            case "restore":
                await engine.restorer.restore(self._real(op.name), b"/", undo=bool(op.other))

    def _real(self, name: bytes) -> bytes:
        return next(one.name for one in self._engine.table.snapshots() if _named(one) == name)

    async def tree(self) -> Tree:
        """All snapshots, oldest first, and what they show."""
        found: dict[bytes, Thing] = {}
        for one in self._engine.table.snapshots():
            top, moment = PAST + _named(one), one.generation
            assert top not in found, top
            found[top] = Thing(apart(0, moment), "s", 0)
            for path, thing in (await self._shown(one)).items():
                found[top + b"/" + path] = thing._replace(number=apart(thing.number, moment))
        return found

    async def _shown(self, one: Snapshot) -> Tree:
        engine = self._engine
        showing = Showing(engine.table, engine.cache, engine.gate, engine.clock, engine.room.capacity)
        return await Hands(showing.past(engine.table.at(one), ROOT)).tree()


def _named(one: Snapshot) -> bytes:
    return UNDO if one.name.startswith(UNDO + b"-") else one.name


async def everything(engine: Engine) -> Tree:
    """The present, and all that has passed."""
    return {**await Hands(engine.fs).tree(), **await Curator(engine).tree()}
