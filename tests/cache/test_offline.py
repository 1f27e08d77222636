"""A cache directory read by nobody's cache: which ranges count, and what is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import xxhash

from objfs.cache.disk import version_path
from objfs.cache.ledger import CleanLog
from objfs.cache.offline import CacheDirectory
from objfs.model import ChunkId, DirtyRange

NOW, BEFORE = b"this boot", b"another boot"
CHUNK = ChunkId(0x1234)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = version_path(tmp_path, CHUNK)
    path.parent.mkdir()
    path.write_bytes(b"abcdefghij")
    return path


def written(offset: int, data: bytes, boot: bytes = NOW, *, synced: bool = False) -> DirtyRange:
    checksum = None if synced else xxhash.xxh3_64_intdigest(data)
    return DirtyRange(CHUNK, offset, len(data), checksum, synced, None, boot)


def test_what_this_boot_wrote_is_trusted_and_must_be_there(place: Path, tmp_path: Path) -> None:
    cache = CacheDirectory(tmp_path, NOW)
    held = cache.held(CHUNK, [written(0, b"other"), written(8, b"xxxx")])
    assert (list(held.sound), list(held.missing), list(held.torn)) == ([(0, 5)], [(8, 12)], [])
    place.unlink()
    assert list(cache.held(CHUNK, [written(0, b"abc")]).missing) == [(0, 3)]


def test_what_another_boot_wrote_is_verified(place: Path, tmp_path: Path) -> None:
    cache = CacheDirectory(tmp_path, NOW)
    ranges = [written(0, b"abc", BEFORE), written(3, b"???", BEFORE), written(6, b"!!", BEFORE, synced=True)]
    held = cache.held(CHUNK, ranges)
    assert (list(held.sound), list(held.torn)) == ([(0, 3), (6, 8)], [(3, 6)])


def test_newer_ranges_decide_first(place: Path, tmp_path: Path) -> None:
    """What was written over cannot be verified any more, and need not be."""
    cache = CacheDirectory(tmp_path, NOW)
    held = cache.held(CHUNK, [written(0, b"?????", BEFORE), written(2, b"cdef", BEFORE)])
    assert (list(held.sound), list(held.torn)) == ([(0, 6)], [])


def test_bytes_in_the_log_need_no_file(tmp_path: Path) -> None:
    cache = CacheDirectory(tmp_path, NOW)
    inline = DirtyRange(CHUNK, 2, 3, None, data=b"log", boot=BEFORE)
    assert list(cache.held(CHUNK, [inline]).sound) == [(2, 5)]
    assert cache.bytes_of(CHUNK, [inline], 2, 5) == b"log"
    assert cache.bytes_of(CHUNK, [inline], 3, 4) == b"o"


def test_later_ranges_lie_over_earlier_ones(place: Path, tmp_path: Path) -> None:
    cache = CacheDirectory(tmp_path, NOW)
    inline = DirtyRange(CHUNK, 2, 3, None, data=b"LOG", boot=NOW)
    assert cache.bytes_of(CHUNK, [written(0, b"abcdefghij"), inline], 0, 8) == b"abLOGfgh"
    assert cache.bytes_of(CHUNK, [inline, written(0, b"abcdefghij")], 0, 8) == b"abcdefgh"


def test_copies_of_what_is_stored(place: Path, tmp_path: Path) -> None:
    ledger = CleanLog(tmp_path)
    ledger.note(CHUNK, 0, 6, xxhash.xxh3_64_intdigest(b"abcdef"))
    ledger.note(CHUNK, 6, 4, xxhash.xxh3_64_intdigest(b"ghij"))
    ledger.flush()
    cache = CacheDirectory(tmp_path, NOW)
    assert cache.clean(CHUNK, 10) == b"abcdefghij"
    assert cache.clean(CHUNK, 11) is None
    assert list(cache.rotten()) == []
    place.write_bytes(b"abcdefghiJ")
    assert list(cache.rotten()) == [(CHUNK, 6, 4)]
    assert cache.clean(CHUNK, 10) is None


def test_files_and_whose_they_are(place: Path, tmp_path: Path) -> None:
    (place.parent / "notes").write_bytes(b"")
    assert dict(CacheDirectory(tmp_path, NOW).files()) == {place: CHUNK, place.parent / "notes": None}
    assert list(CacheDirectory(tmp_path / "nowhere", NOW).files()) == []


def test_a_checksum_over_more_than_a_frame_is_none(place: Path, tmp_path: Path) -> None:
    """A record that rotted is not believed its length: 4 GiB would be made room for."""
    log = CleanLog(tmp_path)
    log.note(CHUNK, 0, 2**32 - 1, 1)
    log.note(CHUNK, 0, 0, 1)
    log.note(CHUNK, 0, 10, xxhash.xxh3_64_intdigest(b"abcdefghij"))
    log.flush()
    assert list(CacheDirectory(tmp_path, NOW).sums[CHUNK]) == [(0, 10)]
