"""Reading, writing, truncating and syncing bytes."""

from __future__ import annotations

import os
import stat

import pytest
import trio
import trio.testing

from objfs.errors import BadHandle, FileTooBig, InvalidArgument, IsDirectory, NoSpace, ReadOnly, StaleHandle
from objfs.fs import Caller, FsSettings
from objfs.fs import data as data_module
from objfs.model import FILE_SIZE_MAX, ROOT, AttrChange, Ino
from tests.fs.memory import CHUNK, World

USER = Caller(1000, 100)
SUPER = Caller(0, 0)


@pytest.fixture
def world() -> World:
    return World()


class File:
    """One open file of a world."""

    def __init__(self, world: World, name: bytes = b"f", flags: int = os.O_RDWR, mode: int = 0o644) -> None:
        self.world, self.fs = world, world.fs
        handle, attr = self.fs.create(ROOT, name, mode, flags, USER)
        self.fh, self.ino = handle.fh, attr.ino

    async def write(self, offset: int, data: bytes) -> None:
        assert await self.fs.write(self.fh, offset, data) == len(data)

    async def read(self, offset: int = 0, length: int = 1 << 20) -> bytes:
        return await self.fs.read(self.fh, offset, length)

    async def truncate(self, size: int, caller: Caller = USER) -> None:
        assert (await self.fs.truncate(self.ino, size, caller)).size == size

    @property
    def size(self) -> int:
        return self.fs.getattr(self.ino).size

    @property
    def held(self) -> int:
        return self.fs.getattr(self.ino).held


@pytest.fixture
def file(world: World) -> File:
    return File(world)


async def test_what_was_written_is_read(file: File) -> None:
    await file.write(0, b"hello")
    assert await file.read() == b"hello"
    assert await file.read(1, 3) == b"ell"
    assert await file.read(5) == b""
    assert await file.read(100) == b""


async def test_a_write_over_many_chunks(file: File) -> None:
    data = os.urandom(5 * CHUNK + 17)
    await file.write(CHUNK - 3, data)
    assert await file.read() == bytes(CHUNK - 3) + data
    assert await file.read(2 * CHUNK - 1, CHUNK + 2) == data[CHUNK + 2 : 2 * CHUNK + 4]


async def test_holes_read_as_zeros_and_have_no_chunks(file: File) -> None:
    await file.write(10 * CHUNK, b"x")
    assert await file.read() == bytes(10 * CHUNK) + b"x"
    assert len(file.world.table.versions) == 1


async def test_a_file_holds_its_chunks_up_to_their_ends(file: File) -> None:
    await file.write(3 * CHUNK, b"a" * 100)
    await file.write(3 * CHUNK + 50, b"b" * 100)
    await file.write(3 * CHUNK, b"c")
    assert file.held == 150
    file.world.freeze()
    await file.write(3 * CHUNK + 140, b"d" * 20)
    assert file.held == 160
    await file.write(0, bytes(2 * CHUNK + 5))
    assert file.held == 2 * CHUNK + 5 + 160
    await file.truncate(FILE_SIZE_MAX)
    assert file.held == 2 * CHUNK + 5 + 160
    await file.truncate(2 * CHUNK + 1)
    assert file.held == 2 * CHUNK + 1
    file.world.freeze()
    await file.truncate(CHUNK + 1)
    assert file.held == CHUNK + 1
    await file.truncate(0)
    assert file.held == 0


async def test_truncating_before_the_first_byte_of_a_chunk_leaves_a_hole(file: File) -> None:
    await file.write(1000, b"x" * 500)
    await file.truncate(700)
    assert file.held == 0
    await file.write(0, b"y")
    assert file.held == 1


async def test_a_dense_file_holds_its_size_whatever_the_order_of_writes(file: File) -> None:
    for number in (3, 0, 5, 1, 4, 2):
        await file.write(number * CHUNK // 2, bytes(CHUNK // 2))
        if number % 2:
            file.world.freeze()
    assert file.held == file.size == 3 * CHUNK


async def test_an_empty_write_changes_nothing(file: File) -> None:
    before = file.fs.getattr(file.ino)
    await file.write(100, b"")
    assert file.fs.getattr(file.ino) == before


async def test_a_write_sets_mtime_and_ctime_but_not_atime(file: File) -> None:
    before = file.fs.getattr(file.ino)
    await file.write(0, b"x")
    after = file.fs.getattr(file.ino)
    assert after.mtime_ns == after.ctime_ns > before.mtime_ns
    assert after.atime_ns == before.atime_ns


async def test_a_dirty_version_is_written_in_place(file: File) -> None:
    await file.write(0, b"aaaa")
    await file.write(1, b"b")
    assert await file.read() == b"abaa"
    assert len(file.world.table.versions) == 1


async def test_a_frozen_version_is_layered_over_not_written(file: File) -> None:
    await file.write(0, b"aaaa")
    frozen = file.world.table.chunk_at(file.ino, 0)
    assert frozen is not None
    file.world.cache.freeze()
    await file.write(1, b"b")
    over = file.world.table.chunk_at(file.ino, 0)
    assert over is not None
    assert (over.base, over.base_size) == (frozen.chunk, 4)
    assert await file.read() == b"abaa"
    assert bytes(file.world.cache.bytes[frozen.chunk]) == b"aaaa"


@pytest.mark.parametrize("length", [4, 5, CHUNK])
async def test_a_write_that_covers_all_keeps_its_base_for_a_power_cut(file: File, length: int) -> None:
    await file.write(0, b"aaaa")
    frozen = file.world.table.chunk_at(file.ino, 0)
    assert frozen is not None
    file.world.cache.freeze()
    await file.write(0, b"b" * length)
    over = file.world.table.chunk_at(file.ino, 0)
    assert over is not None
    assert (over.base, over.base_size) == (frozen.chunk, 4)
    assert await file.read() == b"b" * length


async def test_truncate_down_then_up_shows_zeros(file: File) -> None:
    await file.write(0, b"a" * (2 * CHUNK))
    await file.truncate(CHUNK + 5)
    await file.truncate(2 * CHUNK)
    assert await file.read() == b"a" * (CHUNK + 5) + bytes(CHUNK - 5)


async def test_truncate_clips_a_frozen_version_by_layering(file: File) -> None:
    await file.write(0, b"a" * 100)
    frozen = file.world.table.chunk_at(file.ino, 0)
    assert frozen is not None
    file.world.cache.freeze()
    await file.truncate(10)
    over = file.world.table.chunk_at(file.ino, 0)
    assert over is not None
    assert (over.base, over.base_size) == (frozen.chunk, 10)
    await file.write(20, b"z")
    assert await file.read() == b"a" * 10 + bytes(10) + b"z"


async def test_truncate_clips_a_layered_version_and_its_base(file: File) -> None:
    await file.write(0, b"a" * 100)
    file.world.cache.freeze()
    await file.write(90, b"b" * 100)
    await file.truncate(50)
    await file.truncate(200)
    assert await file.read() == b"a" * 50 + bytes(150)


async def test_truncate_to_a_chunk_boundary_drops_the_chunk(file: File) -> None:
    await file.write(0, b"a" * (3 * CHUNK))
    await file.truncate(CHUNK)
    assert [chunk.index for chunk in file.world.table.versions.values()] == [0]


async def test_a_file_of_the_largest_size_costs_nothing(file: File) -> None:
    await file.truncate(FILE_SIZE_MAX)
    assert file.world.table.versions == {}
    await file.write(FILE_SIZE_MAX - 1, b"z")
    assert await file.read(FILE_SIZE_MAX - 3, 100) == b"\0\0z"
    await file.truncate(3)
    assert file.world.table.versions == {}


async def test_beyond_the_largest_size_is_refused(file: File) -> None:
    with pytest.raises(FileTooBig):
        await file.write(FILE_SIZE_MAX, b"x")
    with pytest.raises(FileTooBig):
        await file.truncate(FILE_SIZE_MAX + 1)
    assert file.size == 0


async def test_truncate_is_for_files(world: World) -> None:
    with pytest.raises(IsDirectory):
        await world.fs.truncate(ROOT, 0, SUPER)
    fifo = world.fs.mknod(ROOT, b"p", stat.S_IFIFO | 0o600, 0, USER).ino
    with pytest.raises(InvalidArgument):
        await world.fs.truncate(fifo, 0, SUPER)


async def test_truncate_sets_times_also_when_the_size_stays(file: File) -> None:
    before = file.fs.getattr(file.ino)
    await file.truncate(0)
    after = file.fs.getattr(file.ino)
    assert after.mtime_ns == after.ctime_ns > before.ctime_ns


async def test_given_times_win_over_those_of_a_truncate(file: File) -> None:
    attr = await file.fs.setattr(file.ino, AttrChange(mtime_ns=5), 100, USER)
    assert (attr.size, attr.mtime_ns) == (100, 5)


async def test_truncate_by_a_user_drops_set_id_bits(world: World) -> None:
    file = File(world, mode=0o6755)
    await file.truncate(0, SUPER)
    assert stat.S_IMODE(file.fs.getattr(file.ino).mode) == 0o6755
    await file.truncate(0, USER)
    assert stat.S_IMODE(file.fs.getattr(file.ino).mode) == 0o755


async def test_open_with_o_trunc_empties_the_file(world: World) -> None:
    file = File(world, mode=0o4755)
    await file.write(0, b"old")
    await file.fs.open(file.ino, os.O_WRONLY | os.O_TRUNC, USER)
    attr = file.fs.getattr(file.ino)
    assert (attr.size, stat.S_IMODE(attr.mode)) == (0, 0o755)


async def test_open_of_a_directory_is_refused(world: World) -> None:
    with pytest.raises(IsDirectory):
        await world.fs.open(ROOT, os.O_RDONLY, USER)
    with pytest.raises(StaleHandle):
        await world.fs.open(Ino(999), os.O_RDONLY, USER)


async def test_a_handle_for_reading_does_not_write(world: World) -> None:
    file = File(world)
    reader = await file.fs.open(file.ino, os.O_RDONLY, USER)
    with pytest.raises(BadHandle):
        await file.fs.write(reader.fh, 0, b"x")
    writer = await file.fs.open(file.ino, os.O_WRONLY, USER)
    await file.write(0, b"page")
    assert await file.fs.read(writer.fh, 0, 4) == b"page"


async def test_clearing_set_uid_with_a_write(world: World) -> None:
    file = File(world, mode=0o4755)
    await file.fs.write(file.fh, 0, b"x", clear_suid=True)
    assert not file.fs.getattr(file.ino).mode & stat.S_ISUID


# --- durability --------------------------------------------------------------------------


async def test_I1_fsync_reaches_the_cache_and_local_asks_no_bucket(file: File) -> None:
    await file.write(0, b"x")
    await file.fs.fsync(file.fh)
    assert file.world.cache.synced == [file.ino]
    assert file.world.barrier.flushes == 0


async def test_I2_fsync_to_the_bucket_waits_for_the_barrier() -> None:
    world = World(FsSettings(CHUNK, fsync="bucket"))
    file = File(world)
    await file.fs.fsync(file.fh)
    assert (world.cache.synced, world.barrier.flushes) == ([file.ino], 1)


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC])
async def test_I1_synchronous_writes_are_durable_before_they_return(world: World, flag: int) -> None:
    file = File(world, flags=os.O_WRONLY | flag)
    await file.write(0, b"x")
    assert world.cache.synced == [file.ino]


async def test_fsyncdir_syncs_the_directory(world: World) -> None:
    handle = world.fs.opendir(ROOT)
    await world.fs.fsync(handle.fh)
    assert world.cache.synced == [ROOT]


# --- when the disk or the bucket is in the way ---------------------------------------------


async def test_a_full_disk_keeps_what_was_written_before(file: File) -> None:
    file.world.cache.full_after = 2
    with pytest.raises(NoSpace):
        await file.write(0, b"a" * (4 * CHUNK))
    file.world.cache.full_after = None
    assert await file.read() == b"a" * (2 * CHUNK)


async def test_a_full_disk_does_not_lose_what_was_to_be_replaced(file: File) -> None:
    await file.write(0, b"old")
    file.world.cache.freeze()
    file.world.cache.full_after = 0
    with pytest.raises(NoSpace):
        await file.write(0, b"new")
    assert await file.read() == b"old"


async def test_a_gate_that_closes_while_a_writer_waits_stops_it(file: File) -> None:
    world = file.world
    world.cache.door = trio.Event()
    async with trio.open_nursery() as nursery:

        async def refused() -> None:
            with pytest.raises(ReadOnly):
                await file.write(0, b"x")

        nursery.start_soon(refused)
        await trio.testing.wait_all_tasks_blocked()
        world.gate.close("the lease was lost")
        world.cache.door.set()
    assert file.size == 0


async def test_a_read_that_is_overtaken_gets_the_new_version(file: File) -> None:
    world = file.world
    await file.write(0, b"old")
    chunk = world.table.chunk_at(file.ino, 0)
    assert chunk is not None
    world.cache.cold.add(chunk.chunk)
    got: list[bytes] = []
    async with trio.open_nursery() as nursery:

        async def reader() -> None:
            got.append(await file.read())

        nursery.start_soon(reader)
        await world.cache.reading.wait()
        await file.truncate(0)
        await file.write(0, b"new")
        world.cache.arrive.set()
    assert got == [b"new"]


async def test_cold_chunks_are_fetched_together(file: File) -> None:
    world = file.world
    data = os.urandom(4 * CHUNK)
    await file.write(0, data)
    world.cache.cold.update(world.table.versions)
    world.cache.arrive.set()
    assert await file.read() == data


async def test_a_cold_read_fails_with_the_cause_itself(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    world = file.world
    await file.write(0, b"x" * (2 * CHUNK))
    world.cache.cold.update(world.table.versions)

    async def broken(*_: object) -> bytes:
        raise NoSpace("no room to fetch into")

    monkeypatch.setattr(world.cache, "read", broken)
    with pytest.raises(NoSpace, match="no room to fetch into"):
        await file.read()


# --- long truncates ------------------------------------------------------------------------


async def test_writers_wait_for_a_long_truncate(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "CHUNKS_PER_STEP", 1)
    await file.write(0, b"a" * (5 * CHUNK))
    order: list[str] = []

    async def cut() -> None:
        await file.truncate(0)
        order.append("cut")

    async def grow() -> None:
        await file.write(4 * CHUNK, b"z")
        order.append("grown")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cut)
        while file.size:  # until the first step is taken
            await trio.lowlevel.checkpoint()
        assert await file.read() == b""
        nursery.start_soon(grow)
    assert order == ["cut", "grown"]
    assert await file.read() == bytes(4 * CHUNK) + b"z"


async def test_a_cancelled_truncate_is_still_completed(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "CHUNKS_PER_STEP", 1)
    await file.write(0, b"a" * (5 * CHUNK))
    with trio.CancelScope() as scope:
        scope.cancel()
        await file.fs.truncate(file.ino, 0, USER)
    assert file.world.table.versions == {}
    assert file.world.table.unfinished == {}


async def test_an_interrupted_truncate_is_finished_before_anybody_is_served(file: File) -> None:
    await file.write(0, b"a" * (5 * CHUNK))
    world = file.world
    assert not world.table.truncate(file.ino, 0, 1, 1)  # and here the power goes
    world.fs = world.mount()
    await world.fs.recover()
    assert world.table.unfinished == {}
    await world.fs.truncate(file.ino, 5 * CHUNK, USER)
    handle = await world.fs.open(file.ino, os.O_RDONLY, USER)
    assert await world.fs.read(handle.fh, 0, 5 * CHUNK) == bytes(5 * CHUNK)
