"""Commands on snapshots, interrupted at their named places: before or after, never between.  ``make crashes``
takes every place there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crashes.commands import NUMBER, ORDERS, commanded, complaint_about
from tests.crashes.lives import Kind
from tests.crashes.points import COMMANDS, STAGES
from tests.system.history import History, Operation, applied, renumbered, same
from tests.system.oracle import Witness, after_power_cut
from tests.system.past import without

KINDS: tuple[Kind, ...] = ("kill", "cut")


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.verb)
async def test_i1_a_command_on_snapshots_is_done_or_not_begun(tmp_path: Path, order: Operation) -> None:
    life = await commanded(tmp_path / "first", 1, order)
    places = life.places()
    assert list(places) == [f"{COMMANDS[order.verb]}: {stage}" for stage in STAGES]
    deaths = [life.death(kind, at, name) for name, (at, *_) in places.items() for kind in KINDS]
    deaths += [life.death("loss", places[name][0], name) for name in list(places)[-2:]]
    deaths += [life.death(kind, life.end) for kind in (*KINDS, "loss")]
    found = [
        f"{death.kind} at {death.point!r}: {complaint}"
        for number, death in enumerate(deaths)
        if (complaint := await complaint_about(tmp_path / f"after{number}", death))
    ]
    assert found == []


def snapshots_of_a_file() -> History:
    """Three operations, of which the last is a snapshot."""
    history = History("a file")
    history.do(Operation("create", b"f", fill=1))
    history.do(Operation("write", b"f", length=10, fill=2))
    history.do(Operation("snapshot", b"s", fill=NUMBER))
    return history


def test_a_snapshot_that_was_promised_and_is_gone_is_noticed() -> None:
    """One that was not may go with a power cut."""
    history = snapshots_of_a_file()
    found = without(history.trees[-1], b"s")
    assert after_power_cut(history, Witness(ended=3, begun=3), found).well
    assert not after_power_cut(history, Witness(ended=3, begun=3, local=3, old=3), found).well


def test_a_snapshot_that_changed_is_noticed() -> None:
    """Though the file itself may be without its last bytes."""
    history = snapshots_of_a_file()
    kept, witness = history.trees[-1], Witness(ended=3, begun=3)
    here, then = ({path: kept[path]._replace(content=b"")} for path in (b"f", b".snapshots/s/f"))
    assert after_power_cut(history, witness, {**kept, **here}).well
    verdict = after_power_cut(history, witness, {**kept, **then})
    assert verdict.complaint == "names as after 3 operations, but b'.snapshots/s/f' is not what it was then"


def test_a_renumbered_tree_is_restored_as_it_was() -> None:
    """A file in the present is no link of the one in a snapshot that it came from."""
    kept = snapshots_of_a_file().trees[-1]
    restore = Operation("restore", b"s")
    assert same(applied(renumbered(kept, 100), restore), applied(kept, restore))
