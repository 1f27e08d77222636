"""What metadata costs on its way to the buckets: small changes of a large volume, and any history."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from bench import million
from objfs.app.engine import Engine
from objfs.meta import PAGE_SIZE, PageSet
from objfs.model import ROOT, AttrChange, RenameFlag, WalMark
from objfs.volume.manifest import Manifest
from objfs.volume.published import read_newest
from objfs.volume.shipping import base_page_count

INODES = 20_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> million.Site:
    """A volume of 20,000 inodes, made once; the measurements of making it are in ``figures``."""
    return million.Site(tmp_path_factory.mktemp("many"))


@pytest.fixture(scope="module")
def figures(site: million.Site) -> million.Figures:
    return trio.run(million.populate, site, INODES)


async def test_a_touch_in_a_large_volume_ships_little(figures: million.Figures) -> None:
    """Over all three buckets, with the manifest and everything else that a checkpoint puts there."""
    assert figures["table_bytes"] > 2_000_000
    assert 0 < figures["touch_bytes"] < 256 * 1024


async def test_changes_in_every_directory_ship_a_page_or_two_each(
    site: million.Site, figures: million.Figures
) -> None:
    async with million.running(site) as engine:
        for number in range(0, INODES, million.PER_DIRECTORY):
            await million.touch(engine, number)
        assert await million.shipped(engine) < 256 * 1024


async def test_small_files_cost_little_beyond_their_bytes(
    site: million.Site, figures: million.Figures
) -> None:
    found = await million.add_small_files(site, INODES)
    assert found["small_files"] == 10_000
    assert found["small_overhead_per_file"] < 1024


class Counted:
    """Counts what the checkpointer takes from the log: the pages that changed between two cuts."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pages = 0
        self._take = engine.table.log.take
        monkeypatch.setattr(engine.table.log, "take", self.take)

    def take(self, mark: WalMark) -> PageSet:
        taken = self._take(mark)
        self.pages += len(taken)
        return taken


class Uploads:
    """Pages in base and deltas that a manifest names and the one before did not."""

    def __init__(self, first: Manifest) -> None:
        self.pages = 0
        self._known = self._of(first)

    def note(self, manifest: Manifest) -> None:
        found = self._of(manifest)
        self.pages += sum(count for uuid, count in found.items() if uuid not in self._known)
        self._known |= found

    def _of(self, manifest: Manifest) -> dict[bytes, int]:
        found = {delta.blobs[0].segment.uuid: delta.pages for delta in manifest.deltas}
        return found | {manifest.base[0].segment.uuid: base_page_count(manifest)}


@pytest.mark.parametrize("seed", range(3))
async def test_pages_uploaded_stay_under_five_times_those_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Any history; and so do the bytes of page segments in one bucket's share of the code."""
    site, generator = million.Site(tmp_path), random.Random(seed)
    await million.make(site)
    async with million.running(site) as engine:
        await million.fill(engine, 5_000)
        await engine.flush()
        counted, uploads = Counted(engine, monkeypatch), Uploads(await newest(engine))
        put = million.bytes_put(engine)
        for step in range(120):
            await change(engine, generator, step)
            await engine.flush()
            uploads.note(await newest(engine))
        put = million.bytes_put(engine) - put
    assert counted.pages > 500
    assert uploads.pages < 5 * counted.pages
    # Everything sent, to three buckets, with manifests: pages shrink more than coding and naming add.
    assert put < 5 * counted.pages * PAGE_SIZE


async def newest(engine: Engine) -> Manifest:
    found = await read_newest(engine.volume.buckets, engine.volume.ring)
    assert found is not None
    return found.manifest


async def change(engine: Engine, generator: random.Random, step: int) -> None:
    """A few or many changes of one kind, as between two checkpoints."""
    count = generator.choice([1, 1, 3, 30, 300])
    kind = generator.choice(["touch", "touch", "new", "rename", "delete"])
    for turn in range(count):
        name = b"%s-%d-%d" % (kind.encode(), step, turn)
        if kind == "new":
            engine.fs.mkdir(ROOT, name, 0o755, million.ME)
            continue
        directory = engine.fs.lookup(ROOT, million.directory_name(generator.randrange(5))).ino
        entries = engine.fs.readdir(directory, generator.randrange(1, 2**40), 8) or engine.fs.readdir(
            directory, 0, 8
        )
        chosen = generator.choice([entry for entry in entries if entry.name not in (b".", b"..")])
        if kind == "touch":
            await engine.fs.setattr(chosen.attr.ino, AttrChange(mtime_ns=step * 10**9), None, million.ME)
        elif kind == "rename":
            engine.fs.rename(directory, chosen.name, ROOT, name, RenameFlag.REPLACE)
        else:
            engine.fs.unlink(directory, chosen.name)
