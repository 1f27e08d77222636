"""The state machine of a version."""

from __future__ import annotations

import pytest

from objfs.cache.entry import BLOCK, Entry, State, Step, advance
from objfs.errors import ObjfsError
from objfs.model import Chunk, ChunkId, ChunkState, Ino

ALLOWED = {
    (State.DIRTY, Step.WRITE): State.DIRTY,
    (State.DIRTY, Step.FREEZE): State.FROZEN,
    (State.FROZEN, Step.FREEZE): State.FROZEN,
    (State.FROZEN, Step.PLACE): State.CLEAN,
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", Step)
def test_only_the_drawn_steps_exist(state: State, step: Step) -> None:
    if (state, step) in ALLOWED:
        assert advance(state, step) is ALLOWED[state, step]
    else:
        with pytest.raises(ObjfsError, match=state.value):
            advance(state, step)


def dirty() -> Entry:
    return Entry(ChunkId(1), Ino(2), Chunk(ChunkId(1), Ino(2), 0, ChunkState.DIRTY), 0.0)


def test_counts_each_disk_block_once() -> None:
    entry = dirty()
    assert entry.wrote(10, 20, 1.0) == BLOCK
    assert entry.wrote(15, BLOCK, 1.0) == 0
    assert entry.wrote(BLOCK - 1, 3 * BLOCK + 1, 1.0) == 3 * BLOCK
    assert entry.allocated == 4 * BLOCK


def test_clip_forgets_bytes_and_not_blocks() -> None:
    entry = dirty()
    entry.wrote(0, 3 * BLOCK, 1.0)
    entry.clip(100)
    assert list(entry.present) == [(0, 100)]
    assert list(entry.unsynced) == [(0, 100)]
    assert entry.allocated == 3 * BLOCK


def test_a_placed_version_has_nothing_unsynced() -> None:
    entry = dirty()
    entry.wrote(0, 10, 1.0)
    entry.freeze()
    entry.place()
    assert entry.state is State.CLEAN
    assert not entry.unsynced
    assert entry.row is None
