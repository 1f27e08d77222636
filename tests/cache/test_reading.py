"""What is fetched, when, and who waits."""

from __future__ import annotations

import errno
import random
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from objfs.cache.disk import version_path
from objfs.errors import NotEnoughShards
from objfs.model import FRAME_SIZE, ChunkId, Ino
from tests.cache.rig import INO, SMALL, Rig

MIB = 1 << 20


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


async def stored(directory: Path, files: dict[Ino, bytes], settings: object = None) -> Rig:
    """A volume whose chunks are all in segments and of whose bytes none is local."""
    rig = Rig(directory / "first")
    async with rig.running() as cache:
        for ino, content in files.items():
            for at in range(0, len(content), MIB):
                await rig.write(at // MIB, 0, content[at : at + MIB], ino)
        await cache.drain()
    cache.close()
    rig.directory = directory / "second"
    rig.start()
    return rig


async def test_a_random_cold_read_fetches_one_frame(tmp_path: Path) -> None:
    content = noise(4 * MIB)
    rig = await stored(tmp_path, {INO: content})
    async with rig.running():
        at = 2 * MIB + 3 * FRAME_SIZE + 4096
        assert await rig.read(2, at - 2 * MIB, 4096) == content[at : at + 4096]
        await trio.testing.wait_all_tasks_blocked()
    assert rig.store.fetched_bytes == FRAME_SIZE
    assert len(rig.store.reads) == 1


async def test_a_fetched_frame_is_kept(tmp_path: Path) -> None:
    rig = await stored(tmp_path, {INO: noise(MIB)})
    first = await rig.read(0, 0, 4096)
    assert rig.cache.read_nowait(rig.row(), 0, 4096) == first
    assert len(rig.store.reads) == 1


async def test_a_file_that_is_lost_under_a_slow_reader_is_not_read_anew_as_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another reader found it unreadable and fetched a frame into a new file, in which all else is a hole."""
    content = noise(8 * FRAME_SIZE)
    rig = await stored(tmp_path, {INO: content})
    assert await rig.read(0, 0, len(content)) == content
    files, first, go_on = rig.cache._files, trio.Event(), threading.Event()
    real, token = files.read, trio.lowlevel.current_trio_token()

    def read(chunk: ChunkId, offset: int, length: int) -> bytes:
        if offset:
            raise OSError(errno.EIO, "bad sector")
        token.run_sync_soon(first.set)
        go_on.wait(30)
        return real(chunk, offset, length)

    monkeypatch.setattr(files, "read_nowait", lambda *_: None)
    monkeypatch.setattr(files, "read", read)
    async with trio.open_nursery() as nursery:

        async def slow() -> None:
            assert await rig.read(0, 0, FRAME_SIZE) == content[:FRAME_SIZE]

        nursery.start_soon(slow)
        await first.wait()
        assert await rig.read(0, 7 * FRAME_SIZE, FRAME_SIZE) == content[7 * FRAME_SIZE :]
        go_on.set()


async def test_readers_of_a_frame_share_one_request(tmp_path: Path) -> None:
    content = noise(MIB)
    rig = await stored(tmp_path, {INO: content})
    rig.store.read_gate = trio.Event()
    answers: list[bytes] = []

    async def reader(at: int) -> None:
        answers.append(await rig.read(0, at, 100))

    async with trio.open_nursery() as nursery:
        for at in (0, 100, 5000):
            nursery.start_soon(reader, at)
        await trio.testing.wait_all_tasks_blocked()
        rig.store.read_gate.set()
    assert len(rig.store.reads) == 1
    assert sorted(answers) == sorted(content[at : at + 100] for at in (0, 100, 5000))


async def test_a_cancelled_reader_does_not_fail_the_others(tmp_path: Path) -> None:
    content = noise(MIB)
    rig = await stored(tmp_path, {INO: content})
    rig.store.read_gate = trio.Event()
    answers: list[bytes] = []

    async def reader() -> None:
        answers.append(await rig.read(0, 0, 100))

    async with trio.open_nursery() as nursery:
        first = trio.CancelScope()

        async def doomed() -> None:
            with first:
                await reader()

        nursery.start_soon(doomed)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        rig.store.read_gate.set()
    assert answers == [content[:100]]


async def test_a_sequential_cold_read_fetches_each_byte_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    content = noise(6 * MIB + 12345)
    rig = await stored(tmp_path, {INO: content})
    async with rig.running():
        got = b""
        while len(got) < len(content):
            index, at = divmod(len(got), MIB)
            got += await rig.read(index, at, min(FRAME_SIZE, len(content) - len(got)))
            await trio.testing.wait_all_tasks_blocked()
    assert got == content
    assert rig.store.fetched_bytes == len(content)
    assert len(rig.store.reads) < 8


async def test_small_neighbours_come_in_few_requests(tmp_path: Path) -> None:
    files = {Ino(100 + n): noise(4096, n) for n in range(500)}
    rig = await stored(tmp_path, files)
    for ino, content in files.items():
        assert await rig.read(0, 0, 4096, ino) == content
    assert rig.store.fetched_bytes == 500 * 4096
    assert len(rig.store.reads) < 8


async def test_small_files_in_random_order_are_fetched_alone(tmp_path: Path) -> None:
    files = {Ino(100 + n): noise(FRAME_SIZE, n) for n in range(40)}
    rig = await stored(tmp_path, files)
    for number in (35, 20, 30, 5, 25):
        await rig.read(0, 0, 4096, Ino(100 + number))
    assert len(rig.store.reads) == 5
    assert rig.store.fetched_bytes == 5 * FRAME_SIZE


async def test_a_random_read_that_lands_near_the_last_one_is_fetched_alone(tmp_path: Path) -> None:
    content = noise(16 * MIB)
    rig = await stored(tmp_path, {INO: content})
    for frame in (2, 50, 52):
        before = rig.store.fetched_bytes
        at = frame * FRAME_SIZE
        await rig.read(at // MIB, at % MIB, 4096)
        assert rig.store.fetched_bytes - before == FRAME_SIZE


async def test_a_window_over_a_segment_takes_no_more_of_large_chunks(tmp_path: Path) -> None:
    """A miss shortly after another in the same segment: 256 KiB more, and nothing that lies before."""
    content = noise(16 * MIB)
    rig = await stored(tmp_path, {INO: content})
    await rig.read(1, 2 * FRAME_SIZE, 4096)
    await rig.read(12, 0, 4096)
    before = rig.store.fetched_bytes
    at = 5 * FRAME_SIZE
    assert await rig.read(1, at, 4096) == content[MIB + at : MIB + at + 4096]
    assert rig.store.fetched_bytes - before <= FRAME_SIZE + 256 * 1024
    assert rig.cache.read_nowait(rig.row(1), 0, 4096) is None


async def test_a_damaged_neighbour_does_not_fail_a_read(tmp_path: Path) -> None:
    files = {Ino(100 + n): noise(4096, n) for n in range(10)}
    rig = await stored(tmp_path, files)
    for uuid, frames in rig.store.payloads.items():
        rig.store.payloads[uuid] = [*frames[:5], b"", *frames[6:]]
    for number in range(5):
        assert await rig.read(0, 0, 4096, Ino(100 + number)) == files[Ino(100 + number)]


async def test_cached_reads_do_not_wait_for_hanging_uploads(tmp_path: Path) -> None:
    rig = Rig(tmp_path, replace(SMALL, writeback_bytes=1))
    rig.store.hang_writes = True
    async with rig.running():
        await rig.write(0, 0, noise(MIB))
        await rig.store.asked.wait()
        assert rig.cache.read_nowait(rig.row(), 0, MIB) == noise(MIB)


async def test_an_overwrite_of_an_uncached_chunk_needs_no_bucket(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """I8: the write, its fsync and its own bytes are at once; the rest fails within the bound."""
    content = noise(MIB)
    rig = await stored(tmp_path, {INO: content})
    rig.store.read_bound_s = 20.0
    async with rig.running() as cache:
        with trio.fail_after(1):
            await rig.write(0, 200_000, b"x" * 4096)
            await cache.fsync(INO)
            assert await rig.read(0, 200_000, 4096) == b"x" * 4096
        with trio.fail_after(21), pytest.raises(NotEnoughShards):
            await rig.read(0, 0, 4096)


async def test_layers_read_through_to_the_store(tmp_path: Path) -> None:
    content = bytearray(noise(MIB))
    rig = await stored(tmp_path, {INO: bytes(content)})
    for fill, at in ((b"a", 1000), (b"b", 1500), (b"c", 400_000)):
        rig.write_now(0, at, fill * 1000)
        content[at : at + 1000] = fill * 1000
        rig.cache.cut()
    assert await rig.read(0, 0, MIB) == bytes(content)


async def test_a_lost_clean_file_is_fetched_again(tmp_path: Path) -> None:
    content = noise(MIB)
    rig = await stored(tmp_path, {INO: content})
    await rig.read(0, 0, MIB)
    for path in rig.directory.glob("??/*"):
        path.write_bytes(b"")
    assert await rig.read(0, 0, MIB) == content


async def test_a_copy_that_rots_under_a_running_mount_is_found_by_scrub_and_fetched_again(
    tmp_path: Path,
) -> None:
    """I4: a read verifies only what a former mount left."""
    content = noise(MIB)
    rig = await stored(tmp_path, {INO: content})
    assert await rig.read(0, 0, MIB) == content
    spent: list[int] = []

    async def spend(nbytes: int) -> None:
        spent.append(nbytes)

    whole = await rig.cache.verify_copies(spend)
    assert (whole.nbytes, whole.dropped) == (MIB, [])
    path = version_path(rig.directory, rig.row().chunk)
    data = bytearray(path.read_bytes())
    data[FRAME_SIZE + 5] ^= 1
    path.write_bytes(data)
    found = await rig.cache.verify_copies(spend)
    assert found.dropped == [(rig.row().chunk, FRAME_SIZE, FRAME_SIZE)]
    assert sum(spent) == 2 * MIB
    assert await rig.read(0, 0, MIB) == content
