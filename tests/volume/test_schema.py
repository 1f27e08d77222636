"""A volume whose inode table has an older schema goes on, here and on a new machine."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from objfs.meta import schema
from tests.volume.rigs import Cloud, running
from tests.volume.test_snapshots import keeper, tree_at

SCHEMAS = Path(__file__).parents[1] / "meta"


@pytest.mark.parametrize("number", range(1, schema.VERSION))
async def test_a_volume_of_a_former_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def former(connection: sqlite3.Connection) -> None:
        connection.executescript((SCHEMAS / f"schema_{number}.sql").read_text())

    cloud = Cloud(tmp_path)
    home = cloud.home()
    with monkeypatch.context() as patched:
        patched.setattr(schema, "create", former)
        await cloud.make(home)
    with sqlite3.connect(home.database_path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (number,)
    connection.close()
    async with running(await cloud.open(home)) as rig:
        assert rig.checkpointer.changed, "the new schema has to reach the buckets"
        rig.create(b"a")
        rig.write(b"a", 0, b"old")
        taken = await keeper(rig).create(b"s")
        rig.unlink(b"a")
        await rig.leave()
    async with running(await cloud.open(home)) as rig:
        assert cloud.notes == [], "nothing was taken for damage"
        await rig.leave()
    async with running(await cloud.open(await cloud.attach())) as rig:
        assert rig.table.snapshots() == [taken]
        assert await tree_at(rig, taken.generation) == {b"a": b"old"}
        await rig.leave()
