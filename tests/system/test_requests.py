"""Budgets of requests, on real mounts: small files are packed, and a cold read asks for what it needs.

At full size: ``python -m tests.system.requests_made``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system import requests_made
from tests.system.harness import have_fuse
from tests.system.requests_made import bench, cold_reads, compressible, incompressible, scattered

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]

SIZE = 40_000_000
SHARDS = 3
"""Of a 2+1 volume."""
OBJECTS_PER_10K = 60 * SHARDS
GET_LIMIT = 256 * 1024
RATIO_LIMIT = 1.1
NOT_BY_THE_CLOCK = ("-o", "checkpoint_interval=3600")
"""How many checkpoints copying takes is up to the machine; the one of the flush at the end is not."""

Content = Callable[[int, int], bytes]


def test_copying_small_files_puts_few_objects(tmp_path: Path) -> None:
    """10,000 files of 4 KiB: fewer than 60 x (k+m) objects, those of the checkpoint included; here a part of
    them."""
    files = 1500
    with bench(tmp_path / "work", *NOT_BY_THE_CLOCK) as work:
        cost = requests_made.copy_small_files(work, tmp_path / "source", files)
        copied = sum(1 for path in (work.directory / "copy").rglob("f*") if path.stat().st_size == 4096)
    assert copied == files
    limit = OBJECTS_PER_10K * files // 10_000
    assert SHARDS <= cost.objects <= cost.requests.puts < limit


@pytest.mark.parametrize("make", [incompressible, compressible])
def test_cold_reads_cost_what_they_need(tmp_path: Path, make: Content) -> None:
    """4 KiB anywhere: exactly one ranged GET of at most 256 KiB.  A whole file: at most 1.1 times
    what its chunks take in the buckets."""
    content = make(SIZE, 7)
    with bench(tmp_path) as work:
        (work.directory / "file").write_bytes(content)
        work.flush()
        stored = work.stored_bytes("file")
        work.lose_machine()
        offsets = scattered(random.Random(3), SIZE, 12)
        for read in cold_reads(work, "file", content, offsets):
            assert read.right, read
            assert read.requests.gets == 1, read
            assert 0 < read.requests.bytes_in <= GET_LIMIT, read
        work.lose_machine()
        whole = requests_made.read_whole(work, "file", content, stored)
    assert whole.right
    assert whole.stored <= whole.fetched <= RATIO_LIMIT * whole.stored
