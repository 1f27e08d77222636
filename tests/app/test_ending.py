"""The end of a mount: what it leaves on the disk is what the buckets have."""

from __future__ import annotations

from objfs.volume.reconcile import Verdict
from tests.moments.world import MomentsWorld


def test_what_background_work_changes_while_it_is_stopped_is_shipped_too() -> None:
    """Else the next mount takes pages of the table that nobody published for damage of the disk."""
    world = MomentsWorld()
    snapshots = world.engine.snapshots
    world.run(lambda: snapshots.create(b"s"))
    world.run(lambda: snapshots.delete(b"s"))
    world.finish()
    # A piece of clearing away that was due already when the tasks were cancelled.
    assert world.engine.table.clear_forgotten(100)
    world.reopen()
    assert world.engine.volume.verdict is Verdict.SAME
    assert not world.engine.changed
    world.close()
