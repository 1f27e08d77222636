"""What reads cost in requests and bytes."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from objfs.codec import BLOCK, TAG
from objfs.model import FRAME_SIZE, Code
from tests.store.buckets import Volume, chunks, noise, text, whole

MIB = 1 << 20


@pytest.mark.parametrize("compressible", [False, True])
@pytest.mark.parametrize("code", [Code(4, 2), Code(1, 1), Code(3, 1)], ids=str)
async def test_a_cold_4k_read_is_one_small_get(code: Code, compressible: bool) -> None:
    """Budget: one ranged GET of at most 256 KiB, wherever in the segment."""
    volume = Volume(code, code.n)
    content = text if compressible else noise
    datas = [content(MIB - 4096 * (i % 5), i) for i in range(3)]
    segment, placed = await volume.store.write_segment(chunks(*datas))
    for one, data in zip(placed, datas, strict=True):
        for frame in range(len(one.location.frames)):
            volume.forget()
            (got,) = await volume.store.read_chunks([(segment, one.location, frame, frame)])
            assert got == data[frame * FRAME_SIZE : (frame + 1) * FRAME_SIZE]
            assert len(volume.gets()) == 1
            assert volume.gets()[0][2] <= 256 * 1024


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 300_000), min_size=1, max_size=12),
    code=st.sampled_from([Code(2, 1), Code(4, 2), Code(8, 3)]),
    compressible=st.booleans(),
    data=st.data(),
)
async def test_any_4k_read_is_one_small_get(
    sizes: list[int], code: Code, compressible: bool, data: st.DataObject
) -> None:
    volume = Volume(code, code.n)
    contents = [(text if compressible else noise)(size, seed) for seed, size in enumerate(sizes)]
    segment, placed = await volume.store.write_segment(chunks(*contents))
    number = data.draw(st.integers(0, len(sizes) - 1))
    position = data.draw(st.integers(0, (sizes[number] - 1) // 4096)) * 4096
    frame = position // FRAME_SIZE
    (got,) = await volume.store.read_chunks([(segment, placed[number].location, frame, frame)])
    within = position - frame * FRAME_SIZE
    assert got[within : within + 4096] == contents[number][position : position + 4096]
    assert len(volume.gets()) == 1
    assert volume.gets()[0][2] <= 256 * 1024


@pytest.mark.parametrize("code", [Code(1, 1), Code(2, 1), Code(4, 2), Code(8, 3)], ids=str)
async def test_a_sequential_read_fetches_hardly_more_than_is_stored(code: Code) -> None:
    """Budget: at most 1.1 times the stored bytes, and one request per data shard."""
    volume = Volume(code, code.n)
    datas = [noise(MIB, i) for i in range(8)]
    segment, placed = await volume.store.write_segment(chunks(*datas))
    assert await volume.store.read_chunks(whole(segment, placed)) == datas
    assert len(volume.gets()) == code.k
    assert sum(size for _, _, size in volume.gets()) <= 1.1 * segment.length


async def test_a_sequential_read_in_a_few_calls() -> None:
    volume = Volume(Code(4, 2), 6)
    segment, placed = await volume.store.write_segment(chunks(*(noise(MIB, i) for i in range(8))))
    for start in range(0, 8, 2):
        await volume.store.read_chunks(whole(segment, placed[start : start + 2]))
    assert sum(size for _, _, size in volume.gets()) <= 1.1 * segment.length


async def test_neighbouring_files_cost_one_request() -> None:
    volume = Volume(Code(1, 2), 3)
    segment, placed = await volume.store.write_segment(chunks(*(noise(4096, i) for i in range(500))))
    assert len(await volume.store.read_chunks(whole(segment, placed))) == 500
    assert len(volume.gets()) == 1
    assert volume.store.statistics().gets == 1


async def test_far_ranges_are_fetched_apart() -> None:
    """A gap of one block is fetched along, a wider one is not."""
    volume = Volume(Code(1, 0), 1)
    segment, placed = await volume.store.write_segment(chunks(*(noise(BLOCK, i) for i in range(20))))
    ends = [whole(segment, placed)[0], whole(segment, placed)[10]]
    await volume.store.read_chunks(ends)
    assert sorted(size for _, _, size in volume.gets()) == [2 * (BLOCK + TAG)] * 2


@pytest.mark.parametrize(("between", "requests"), [(0, 1), (1, 1), (2, 2), (3, 2)])
async def test_only_a_gap_of_one_block_is_fetched_along(between: int, requests: int) -> None:
    volume = Volume(Code(1, 0), 1)
    datas = [noise(1000, 1), noise((between + 1) * BLOCK, 2), noise(1000, 3)]
    segment, placed = await volume.store.write_segment(chunks(*datas))
    assert placed[2].location.position // BLOCK == between + 1
    first, _, last = whole(segment, placed)
    assert await volume.store.read_chunks([first, last]) == [datas[0], datas[2]]
    assert len(volume.gets()) == requests


async def test_a_busy_line_is_not_taken_for_a_silent_bucket(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Forty requests of 2 MiB that share 1 MiB/s take longer than one alone would be waited for."""
    volume = Volume(Code(1, 1), 2)
    segment, placed = await volume.store.write_segment(chunks(noise(2 * MIB)))
    line = trio.Lock()
    for bucket in volume.buckets.values():
        bucket.line = line
    wanted = whole(segment, placed)
    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(volume.store.read_chunks, wanted)
    assert len(volume.gets()) == 40
    assert volume.store.statistics().slow == 0
