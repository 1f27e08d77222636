"""A volume gets another code while it is in use, and is killed in the middle of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import combinations
from pathlib import Path

import pytest
import trio

from objfs.app.standing import Standing
from objfs.codec.segment import COPY_LIMIT
from objfs.errors import CodecError, ExitCode, NoQuorum, UsageError
from objfs.model import Code, Segment
from objfs.store import layout
from objfs.store.placement import tolerance
from objfs.volume.header import VolumeHeader
from objfs.volume.recode import Recoder, estimate_recode, publish_code, stacked
from objfs.volume.recode_plan import has_other_code
from objfs.volume.recover_publish import Rescue, RescueOptions
from tests.volume.houses import Fuse, House, settle
from tests.volume.patients import Patient
from tests.volume.rigs import Rig
from tests.volume.support import PASSPHRASE, TrioClock
from tests.volume.test_rehouse import killed
from tests.volume.test_snapshots import keeper, tree_at

NARROW, WIDE = Code(2, 1), Code(4, 2)
BUCKETS = 6


async def build(tmp_path: Path, code: Code = NARROW, *, files: int = 8, buckets: int = BUCKETS) -> House:
    return await House.build(tmp_path, buckets, code, files)


class Bearing(Standing):
    """Which losses the segments bear, for those who wait for more."""

    def __init__(
        self,
        path: Callable[[], Path],
        header: Callable[[], VolumeHeader],
        blobs: Callable[[], Sequence[Segment]],
    ) -> None:
        super().__init__(path, header, blobs)
        self._looked = trio.Event()

    async def look(self) -> None:
        await super().look()
        self._looked.set()
        self._looked = trio.Event()

    async def reaches(self, buckets: int) -> None:
        while self.borne.buckets < buckets:
            await self._looked.wait()


@asynccontextmanager
async def recoding(house: House, fuse: Fuse | None = None) -> AsyncIterator[tuple[Rig, Recoder, Bearing]]:
    """A mount with the task that encodes anew."""
    async with house.mounted(fuse) as rig, trio.open_nursery() as nursery:
        standing = standing_of(rig)
        recoder = Recoder(rig.volume, rig.checkpointer, rig.compactor, rig.compactor.terms, standing.look)
        await standing.look()
        nursery.start_soon(recoder.run)
        yield rig, recoder, standing
        nursery.cancel_scope.cancel()


def standing_of(rig: Rig) -> Bearing:
    def blobs() -> list[Segment]:
        assert rig.checkpointer.moment is not None
        return [blob.segment for blob in rig.checkpointer.moment.manifest.blobs]

    return Bearing(lambda: rig.table.path, lambda: rig.volume.header, blobs)


def old_blobs(rig: Rig, code: Code) -> list[Segment]:
    assert rig.checkpointer.moment is not None
    return [blob for blob in stacked(rig.checkpointer.moment) if has_other_code(blob, code)]


async def survives_any(house: House, count: int) -> None:
    for lost in combinations(house.cloud.names, count):
        assert await house.shown(*lost) == house.tree, f"without {lost}"


async def test_a_wider_code_while_programs_write(tmp_path: Path) -> None:
    """Content, a snapshot's and what is written meanwhile: afterwards any two of six buckets may go."""
    house = await build(tmp_path)
    async with recoding(house) as (rig, recoder, standing):
        assert standing.borne.buckets == 1
        taken, before = await keeper(rig).create(b"s"), dict(house.tree)
        rig.write(b"f00", 10, b"changed since the snapshot")
        rig.unlink(b"f01")
        writing = True

        async def write() -> None:
            number = 0
            while writing:
                name = b"w%d" % number
                rig.create(name)
                rig.write(name, 0, bytes([number % 256]) * 70_000)
                number += 1
                await rig.cache.drain()
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            done = await recoder.change(WIDE)
            writing = False
        assert (done.left, done.failed, done.error, done.waits) == (0, 0, "", "")
        assert done.segments >= 8
        await rig.drain()
        house.tree = await rig.tree()
        assert house.tree[b"f00"][10:17] == b"changed"
        assert len([name for name in house.tree if name.startswith(b"w")]) > 0
        assert await tree_at(rig, taken.generation) == before
        assert old_blobs(rig, WIDE) == []
        assert all(not has_other_code(one, WIDE) for one in house.segments())
        await standing.look()
        assert standing.borne.buckets == 2
        await rig.leave()
    await survives_any(house, 2)
    report = await Patient(house.cloud, house.home).check(data=True)
    assert report.exit_code == ExitCode.OK, report.findings


async def test_a_narrower_code_and_what_it_was_is_deleted(tmp_path: Path) -> None:
    house = await build(tmp_path, WIDE)
    async with recoding(house) as (rig, recoder, standing):
        before = {one.uuid for one in house.segments()}
        done = await recoder.change(NARROW)
        assert done.left == 0
        await standing.look()
        assert standing.borne.buckets == 1
        assert rig.volume.header.tolerance == 1
        await settle(rig)
        there = {uuid for name in house.cloud.names for uuid in await house.shards(name)}
        assert not before & there
        await rig.leave()
    await survives_any(house, 1)


async def test_status_tells_the_weaker_of_both_codes_until_the_end(tmp_path: Path) -> None:
    """One segment is kept from being written anew, as its bytes cannot be had."""
    house = await build(tmp_path, files=3)
    async with recoding(house) as (rig, recoder, standing):
        victim = house.segments()[0]
        held = {}
        for name in house.cloud.names:
            bucket = house.cloud.memory.open(name)
            for info in await bucket.list(f"segment/{victim.uuid.hex()[:2]}/{victim.uuid.hex()}"):
                held[name, info.key] = await bucket.get(info.key)
                await bucket.delete(info.key)
        done = await recoder.change(WIDE)
        assert (done.left, done.failed) == (1, 1)
        assert rig.volume.header.tolerance == 2
        assert standing.borne.buckets == 1
        for (name, key), data in held.items():
            await house.cloud.memory.open(name).put(key, data)
        done = await recoder.change(WIDE)
        assert (done.left, done.done) == (0, 1)
        assert standing.borne.buckets == 2
        assert await rig.tree() == house.tree
        await rig.leave()


async def test_nothing_is_written_anew_while_a_bucket_is_away(tmp_path: Path) -> None:
    house = await build(tmp_path, files=3)
    async with recoding(house) as (rig, recoder, _):
        rig.unfit = "b5 must answer first"
        done = await recoder.change(WIDE)
        assert (done.left, done.waits) == (done.segments, "b5 must answer first")
        rig.unfit = ""
        assert (await recoder.change(WIDE)).left == 0
        await rig.leave()


async def test_fewer_buckets_than_shards_only_where_that_is_meant(tmp_path: Path) -> None:
    house = await build(tmp_path, buckets=4, files=3)
    async with recoding(house) as (rig, recoder, standing):
        with pytest.raises(
            UsageError, match=r"4\+2 over 4 buckets bears the loss of any one bucket.*--fewer"
        ):
            await recoder.change(WIDE)
        with pytest.raises(CodecError, match="there is no code 0"):
            await recoder.change(Code(0, 1))
        assert rig.volume.header.code == rig.volume.store.code == NARROW
        assert (await recoder.change(WIDE, fewer=True)).left == 0
        assert rig.volume.header.tolerance == standing.borne.buckets == tolerance(WIDE, 4) == 1
        await rig.leave()
    await survives_any(house, 1)


async def test_copies_become_stripes(tmp_path: Path) -> None:
    """1+1 and 2+1 bear the same; what is large takes less room striped, and what is small stays as it is."""
    house = await build(tmp_path, Code(1, 1), files=3)
    async with recoding(house) as (rig, recoder, _):
        rig.create(b"small")
        rig.write(b"small", 0, b"s")
        await rig.drain()
        small = next(one for one in house.segments() if one.length < COPY_LIMIT)
        done = await recoder.change(NARROW)
        assert (done.segments, done.left) == (3, 0)
        assert small in house.segments()
        await rig.leave()


async def test_the_estimate_is_what_it_takes(tmp_path: Path) -> None:
    house = await build(tmp_path)
    async with house.mounted() as rig:
        assert rig.checkpointer.moment is not None
        made = await estimate_recode(rig.volume, rig.checkpointer.moment, rig.compactor.terms, WIDE)
        assert house.segments() != []  # asking changed nothing
        before = rig.volume.store.statistics()
        async with trio.open_nursery() as nursery:

            async def quiet() -> None:
                await trio.lowlevel.checkpoint()

            recoder = Recoder(rig.volume, rig.checkpointer, rig.compactor, rig.compactor.terms, quiet)
            nursery.start_soon(recoder.run)
            done = await recoder.change(WIDE)
            nursery.cancel_scope.cancel()
        after = rig.volume.store.statistics()
        assert (made.segments, made.size) == (done.segments, done.size)
        assert made.new_segments == recoder.total.written
        total = made.demand.values()
        # The checkpoints that name all this are small, and not counted.
        assert sum(one.written for one in total) == pytest.approx(
            after.bytes_written - before.bytes_written, rel=0.2
        )
        assert sum(one.read for one in total) == pytest.approx(after.bytes_read - before.bytes_read, rel=0.2)
        assert sum(one.gets for one in total) == pytest.approx(after.gets - before.gets, rel=0.2)
        assert sum(one.puts for one in total) == pytest.approx(
            after.shards_placed - before.shards_placed, rel=0.4
        )


# --- killed --------------------------------------------------------------------------------


async def _recode(house: House, fuse: Fuse) -> None:
    """The command; raises Killed where the fuse blows."""
    async with recoding(house, fuse) as (rig, recoder, _):
        fuse.count = 0
        assert (await recoder.change(WIDE)).left == 0
        assert await rig.tree() == house.tree
        await rig.reaper.round()


async def test_killed_at_any_request_and_gone_on_with(tmp_path: Path) -> None:
    """I1, I3: any one bucket may go at every moment, and any two in the end."""
    whole = await build(tmp_path, files=3)
    (tmp_path / "count").mkdir()
    fuse = Fuse()
    await _recode(await whole.copied(tmp_path / "count"), fuse)
    assert fuse.count > 40
    for point in range(1, fuse.count + 1, max(1, fuse.count // 5)):
        place = tmp_path / f"at{point}"
        place.mkdir()
        house = await whole.copied(place)
        try:
            await _recode(house, Fuse(point, after=bool(point % 2)))
        except BaseException as error:
            if not killed(error):
                raise
        else:
            pytest.fail(f"not killed at {point}")
        for lost in ("b0", "b5"):
            assert await house.shown(lost) == house.tree, f"killed at {point}, without {lost}"
        await _recode(house, Fuse())
        for two in (("b0", "b1"), ("b2", "b5")):
            assert await house.shown(*two) == house.tree, f"killed at {point}, without {two}"


async def test_the_next_mount_goes_on_by_itself(tmp_path: Path) -> None:
    """Also another machine's, after this one was lost with only the header changed."""
    house = await build(tmp_path, files=3)
    async with house.mounted() as rig:
        await publish_code(rig.volume, rig.checkpointer, WIDE)
        await rig.leave()
    house.home = await house.cloud.attach()
    async with recoding(house) as (rig, recoder, standing):
        assert (await recoder.finished()).left == 0
        assert rig.volume.store.code == WIDE
        assert standing.borne.buckets == 2
        await rig.leave()
    assert await house.shown("b1", "b4") == house.tree


async def test_interrupting_the_command_leaves_the_work_to_the_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await build(tmp_path, files=2)
    async with recoding(house) as (rig, recoder, standing):
        use = rig.volume.store.use_code
        with trio.CancelScope() as scope:
            monkeypatch.setattr(rig.volume.store, "use_code", lambda code: (use(code), scope.cancel()))
            await recoder.change(WIDE)
        assert scope.cancelled_caught
        with trio.fail_after(60):
            await standing.reaches(2)
        assert recoder.progress.left == 0
        await rig.leave()


async def test_a_header_that_too_few_buckets_took_changes_nothing_here(tmp_path: Path) -> None:
    house = await build(tmp_path, files=1)
    async with recoding(house) as (rig, recoder, _):
        there = dict(rig.volume.buckets.buckets)
        for slot in list(there)[:4]:
            del rig.volume.buckets.buckets[slot]
        with pytest.raises(NoQuorum):
            await recoder.change(WIDE)
        assert rig.volume.header.code == rig.volume.store.code == NARROW
        rig.volume.buckets.buckets.update(there)
        assert (await recoder.change(WIDE)).left == 0
        await rig.leave()


async def test_the_end_of_a_mount_does_not_wait_for_all_of_it(tmp_path: Path) -> None:
    house = await build(tmp_path, files=2)
    async with recoding(house) as (rig, recoder, _):
        await rig.compactor.stop()
        done = await recoder.change(WIDE)
        assert (done.waits, done.left) == ("the mount ends", done.segments)
        await rig.leave()


# --- mixed codes ---------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True], ids=["half", "whole"])
async def test_a_scan_of_the_buckets_finds_content_under_both_codes(tmp_path: Path, whole: bool) -> None:
    """Every checkpoint is gone, and a bucket; old segments lie beside new ones until the grace is over."""
    house = await build(tmp_path, files=3)
    async with recoding(house) as (rig, recoder, _):
        await (recoder.change(WIDE) if whole else publish_code(rig.volume, rig.checkpointer, WIDE))
        rig.create(b"late")
        rig.write(b"late", 0, b"late" * 20_000)
        house.tree = await rig.tree()
        await rig.leave()
    house.take_away("b4")
    for name in house.cloud.names:
        bucket = house.cloud.memory.open(name)
        for info in await bucket.list(layout.MANIFEST_PREFIX):
            await bucket.delete(info.key)
    home = await house.cloud.attach(without=["b4"])
    buckets = house.cloud.buckets(home)
    rescue = await Rescue.open(home, PASSPHRASE, buckets, TrioClock(), RescueOptions("other"))
    target = tmp_path / "out"
    target.mkdir()
    assert await rescue.copy_out(await rescue.scan(lambda _text: None), target) == {}
    assert sorted(path.read_bytes() for path in target.iterdir()) == sorted(house.tree.values())
