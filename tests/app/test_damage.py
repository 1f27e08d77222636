"""Damage to the local inode table that is met while it is used stops writing, and says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from objfs.app.engine import Engine, Order, opened_engine
from objfs.app.options import MountOptions
from objfs.errors import Corrupt, ReadOnly
from objfs.model import ROOT, NewInode
from tests.app.test_readonly import SECRET, volume

OPTIONS = MountOptions(settings={"cache_reserve": 0})
FILES = 3000


async def end(engine: Engine) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.finish()
        nursery.cancel_scope.cancel()


def list_all(engine: Engine) -> None:
    for entry in engine.table.readdir(ROOT, 0, FILES):
        engine.table.lookup(ROOT, entry.name)


async def test_a_malformed_page_that_is_met_in_use_makes_the_mount_read_only(tmp_path: Path) -> None:
    home = await volume(tmp_path)
    async with opened_engine(Order(home, SECRET, OPTIONS), lambda _text: None) as engine:
        with engine.table.transaction():
            for number in range(FILES):
                engine.table.create(ROOT, b"some name %d" % number, NewInode(0o100644, 0, 0, 1))
        await end(engine)
    async with opened_engine(Order(home, SECRET, OPTIONS), lambda _text: None) as engine:
        manifest = engine.volume.moment.manifest.sequence
        data = home.database_path.read_bytes()
        with home.database_path.open("r+b") as stream:
            stream.seek(len(data) // 2)
            stream.write(bytes([0xA5]) * (len(data) // 3))
        with pytest.raises(Corrupt, match="run objfs fsck --repair"):
            list_all(engine)
        assert "the inode table is damaged" in engine.reason
        with pytest.raises(ReadOnly, match="fsck --repair"):
            engine.gate.check()
        assert engine.volume.moment.manifest.sequence == manifest
        await end(engine)
    assert not home.clean_path.exists()
