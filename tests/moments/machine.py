"""Random histories of a volume with snapshots: they never change, differences and restores are exact, and
every crash and every lost machine leaves a moment that was.

The rules of ``tests/fs/test_model.py`` change the tree; those here take, read, compare, restore, delete and
prune snapshots, collect garbage, and end the machine: by unmounting, by a kill between two requests or in the
midst of a command, by its loss.  A rule for something new needs ``published`` around what may end in a
checkpoint, and ``adopt`` after what exchanges the tree.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from objfs.errors import InvalidArgument, NotFound, StaleHandle
from objfs.meta.diff import Difference
from objfs.model import ROOT
from objfs.volume.retention import Policy
from tests.fs.test_model import COMPARE_EVERY, PLACES, Open, Tree, lengths, offsets, wait
from tests.moments.differing import differences, told
from tests.moments.picture import TOP, Picture, image_of, model_of
from tests.moments.returning import restored
from tests.moments.world import MomentsWorld
from tests.volume.rigs import CHUNK

OFFSETS, LENGTHS = offsets(CHUNK), lengths(CHUNK)
MOST_SNAPSHOTS = 8
ANY = st.integers(0, 30)
"""Which snapshot or path, counted around."""
PUTS = st.integers(0, 8)


class State(NamedTuple):
    """All of a volume at one moment."""

    tree: Picture
    snapshots: dict[bytes, Picture]


class Moments(Tree):
    """The model, its snapshots and its recoverable moments, beside a whole volume."""

    def __init__(self) -> None:
        super().__init__()
        self.snapshots: dict[bytes, Picture] = {}
        """Oldest first, as the volume lists them."""
        self.held: set[bytes] = set()
        self.taken = 0
        self.recoverable = [self.state()]
        """What the newest moment in the buckets may be; more than one after a kill in a checkpoint."""
        self.moments: dict[int, State | None] = {self.volume.sequence: self.recoverable[0]}
        """By sequence; None where it is one of two."""

    def make_world(self) -> MomentsWorld:  # type: ignore[override]
        return MomentsWorld()

    @property
    def volume(self) -> MomentsWorld:
        return cast("MomentsWorld", self.world)

    # --- the model's side --------------------------------------------------------------

    def picture(self) -> Picture:
        """The tree as it is, which is what the model says."""
        found = self.volume.picture()
        assert image_of(found) == self.model.image()
        return found

    def state(self) -> State:
        return State(self.picture(), dict(self.snapshots))

    def snapshot_at(self, which: int) -> bytes:
        return list(self.snapshots)[which % len(self.snapshots)]

    def published(self, work: Callable[[], Awaitable[object]]) -> None:
        """Some work that ends with everything as it is now in the buckets."""
        self.volume.run(work)
        self.note_published(self.state())

    def note_published(self, state: State) -> None:
        self.recoverable = [state]
        self.note_moments()

    def note_moments(self) -> None:
        """All that were published since are the newest one; so is that which fences off an earlier writer."""
        state = self.recoverable[0] if len(self.recoverable) == 1 else None
        first = max(self.moments) + 1
        self.moments |= dict.fromkeys(range(first, self.volume.sequence + 1), state)

    def adopt(self, tree: Picture) -> None:
        """The tree is another one now.  Handles of files that are as they were go on; others may be stale,
        and those of files that are not what they were must be."""
        before, (self.model, self.inos) = self.inos, model_of(tree)
        nodes = {ino: node for node, ino in self.inos.items()}
        kept = []
        for file in self.opened:
            ino = before[file.node]
            now = nodes.get(ino)
            same = file.node.nlink == 0 if now is None else now.content == file.node.content
            if self._goes_on(file, same=same):
                file.node = file.node if now is None else now
                self.inos.setdefault(file.node, ino)
                kept.append(file)
        self.opened = kept

    def _goes_on(self, file: Open, *, same: bool) -> bool:
        try:
            found = wait(self.fs.read(file.fh, 0, file.node.size + 1))
        except StaleHandle:
            self.fs.release(file.fh)
            return False
        assert same
        assert found == file.node.content
        return True

    @initialize(length=LENGTHS)
    def begin(self, length: int) -> None:
        """A directory in a directory, a file that has a name there too, and a snapshot of it."""
        super().begin(length)
        self.mkdir(0, b"b", 0o755)
        self.mkdir(1, b"c", 0o755)
        self.link(0, b"a", 2, b"b")
        self.take(wait=True)

    # --- rules: bytes, around the larger chunks of a real volume -----------------------

    @precondition(lambda self: self.opened)
    @rule(which=PLACES, offset=OFFSETS, length=LENGTHS)
    def write(self, which: int, offset: int, length: int) -> None:
        super().write(which, offset, length)

    @precondition(lambda self: self.opened)
    @rule(which=PLACES, offset=OFFSETS, length=LENGTHS)
    def read(self, which: int, offset: int, length: int) -> None:
        super().read(which, offset, length)

    @precondition(lambda self: self.opened)
    @rule(which=PLACES, size=OFFSETS)
    def truncate(self, which: int, size: int) -> None:
        super().truncate(which, size)

    @rule()
    def flush(self) -> None:
        self.published(self.volume.engine.flush)

    # --- rules: snapshots --------------------------------------------------------------

    @precondition(lambda self: len(self.snapshots) < MOST_SNAPSHOTS)
    @rule(wait=st.booleans())
    def take(self, wait: bool) -> None:
        work = self.taking(wait=wait)
        if wait:
            self.published(work)
        else:
            self.volume.run(work)

    def taking(self, *, wait: bool = True) -> Callable[[], Awaitable[object]]:
        """From here on the model has it."""
        self.taken += 1
        name = b"s%d" % self.taken
        self.snapshots[name] = self.picture()
        return partial(self.volume.engine.snapshots.create, name, wait=wait)

    @precondition(lambda self: self.snapshots)
    @rule(which=ANY)
    def look_at_snapshot(self, which: int) -> None:
        name = self.snapshot_at(which)
        assert self.volume.picture_of(name) == self.snapshots[name]

    @precondition(lambda self: self.snapshots)
    @rule(which=ANY, other=ANY, present=st.booleans(), place=ANY)
    def compare_moments(self, which: int, other: int, present: bool, place: int) -> None:
        names = list(self.snapshots)
        first, second = sorted((which % len(names), other % len(names)))
        before = self.snapshots[names[first]]
        after = self.picture() if present else self.snapshots[names[second]]
        listed = [one.generation for one in self.volume.engine.snapshots.listed()]
        until = None if present else listed[second]
        with Difference(self.volume.engine.table.path, listed[first], until, ROOT) as found:
            for below in {TOP, path_in(before, place)}:
                said = told(found.changes(below), before, after)
                assert said == differences(before, after, below)

    @precondition(lambda self: self.snapshots)
    @rule(which=ANY, place=st.one_of(st.none(), ANY), undo=st.booleans())
    def restore(self, which: int, place: int | None, undo: bool) -> None:
        name = self.snapshot_at(which)
        then, now = self.snapshots[name], self.picture()
        path = TOP if place is None else path_in(then, place)
        work = partial(self.volume.engine.restorer.restore, name, path, undo=undo)
        try:
            wanted = restored(now, then, path)
        except (NotFound, InvalidArgument) as error:
            with pytest.raises(type(error)):
                self.volume.run(work)
            return
        done = self.volume.run(work)
        found = self.volume.picture()
        assert settled(found, then, path) == settled(wanted, then, path)
        self.adopt(found)
        if done.undo is not None:
            self.snapshots[done.undo.name] = now

    @precondition(lambda self: self.snapshots)
    @rule(which=ANY, place=st.one_of(st.none(), ANY))
    def restore_and_undo(self, which: int, place: int | None) -> None:
        before, known = self.picture(), len(self.snapshots)
        self.restore(which, place, True)
        if len(self.snapshots) > known:
            self.restore(known, None, False)
            assert self.picture() == before

    @precondition(lambda self: self.snapshots)
    @rule(which=ANY, held=st.booleans())
    def hold(self, which: int, held: bool) -> None:
        name = self.snapshot_at(which)
        self.held = self.held | {name} if held else self.held - {name}
        self.published(partial(self.volume.engine.snapshots.hold, name, held=held))

    @precondition(lambda self: self.snapshots)
    @rule(which=ANY)
    def delete(self, which: int) -> None:
        self.published(self.deleting(which))

    def deleting(self, which: int) -> Callable[[], Awaitable[object]]:
        name = self.snapshot_at(which)
        del self.snapshots[name]
        return partial(self.volume.engine.snapshots.delete, name, force=True)

    @precondition(lambda self: self.snapshots)
    @rule(last=st.integers(1, 4))
    def prune(self, last: int) -> None:
        self.published(self.pruning(last))
        assert self.volume.names() == list(self.snapshots)

    def pruning(self, last: int) -> Callable[[], Awaitable[object]]:
        newest = list(self.snapshots)[-last:]
        held = {one.name for one in self.volume.engine.snapshots.listed() if one.held}
        self.snapshots = {name: one for name, one in self.snapshots.items() if name in newest or name in held}
        engine = self.volume.engine

        async def work() -> None:
            await engine.snapshots.prune(Policy(last=last))
            await engine.flush()  # where nothing was to be deleted, nothing was published

        return work

    @rule(rows=st.integers(1, 20))
    def clear_some(self, rows: int) -> None:
        """Of what no snapshot shows any more, as the background does between requests."""
        self.volume.engine.table.clear_forgotten(rows)

    @rule()
    def clear_all(self) -> None:
        self.volume.run(self.volume.engine.snapshots.clear)

    @rule()
    def collect(self) -> None:
        self.published(self.volume.collect)

    # --- rules: ends -------------------------------------------------------------------

    @rule(cold=st.booleans())
    def remount(self, cold: bool = False) -> None:
        state = self.state()

        def again() -> None:
            self.volume.finish()
            self.note_published(state)
            self.volume.reopen(cold=cold)

        self.begin_again(again)
        self.note_moments()
        self.expect(state)

    @rule()
    def crash(self) -> None:
        state = self.state()
        self.begin_again(self.volume.crash)
        self.note_moments()
        self.expect(state)

    @rule(what=st.sampled_from(["flush", "take", "delete", "prune", "collect"]), which=ANY, puts=PUTS)
    def crash_in(self, what: str, which: int, puts: int) -> None:
        """Killed in the midst of it, the volume is as before or as after; so are its buckets."""
        before = self.state()
        work = self.working(what, which)
        after = self.state()
        returned = False

        def die() -> None:
            nonlocal returned
            returned = self.volume.die_in(work, puts)

        self.begin_again(die)
        found = self.volume.names()
        state = after if found == list(after.snapshots) else before
        self.snapshots = dict(state.snapshots)
        self.recoverable = [after] if returned else [*self.recoverable, state]
        assert not returned or state is after
        self.note_moments()
        self.expect(state)

    def working(self, what: str, which: int) -> Callable[[], Awaitable[object]]:
        if what == "take" and len(self.snapshots) < MOST_SNAPSHOTS:
            return self.taking()
        if what == "delete" and self.snapshots:
            return self.deleting(which)
        if what == "prune" and self.snapshots:
            return self.pruning(1 + which % 3)
        return self.volume.collect if what == "collect" else self.volume.engine.flush

    def expect(self, state: State) -> None:
        assert self.picture() == state.tree
        assert self.volume.names() == list(state.snapshots)

    @rule()
    def lose_machine(self) -> None:
        self.opened.clear()
        self.volume.lose()
        found, names = self.volume.picture(), self.volume.names()
        moments = [one for one in self.recoverable if one.tree == found and list(one.snapshots) == names]
        assert moments, "the moment that was recovered never was, or was not the newest"
        self.recoverable = moments[:1]
        self.snapshots = dict(moments[0].snapshots)
        self.adopt(found)
        self.note_published(moments[0])

    # --- comparing ---------------------------------------------------------------------

    @invariant()
    def equal(self) -> None:
        self.volume.clock.passed_s += 1.0
        self.steps += 1
        if self.steps % COMPARE_EVERY == 0:
            self.compare()

    def compare(self) -> None:
        self.picture()
        for file in self.opened:
            attr = self.fs.getattr(self.inos[file.node])
            assert (attr.size, attr.nlink) == (file.node.size, file.node.nlink)

    def teardown(self) -> None:
        try:
            self.compare()
            self.collect()
            self.compare()
            assert {name: self.volume.picture_of(name) for name in self.volume.names()} == self.snapshots
            self.compare_kept()
        finally:
            self.volume.close()

    def compare_kept(self) -> None:
        """The oldest moment that may still be recovered is what it was, and so is each snapshot in it."""
        for sequence in self.volume.kept():
            state = self.moments.get(sequence)
            if state is not None:
                assert self.volume.at_moment(sequence) == state
                return


def path_in(picture: Picture, place: int) -> bytes:
    return sorted(picture)[place % len(picture)]


def settled(picture: Picture, then: Picture, path: bytes) -> Picture:
    """Without the times that a restore of one path changes: those of directories that got or lost names, and
    change times."""
    if path == TOP:
        return picture
    back = {thing.ino for where, thing in then.items() if where == path or where.startswith(path + b"/")}
    return {
        where: thing._replace(
            ctime_ns=0, mtime_ns=0 if thing.is_dir and thing.ino not in back else thing.mtime_ns
        )
        for where, thing in picture.items()
    }
