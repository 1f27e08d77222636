"""Inode table and every checkpoint are gone: what comes back from the segments' own indexes."""

from __future__ import annotations

from pathlib import Path

import pytest

from objfs.errors import ExitCode, HeldElsewhere, Unclean
from objfs.store import layout
from objfs.volume.recover_publish import Rescue, RescueOptions
from tests.volume.patients import BIG, CLEAN_TREE, HOST, INNER, Patient, build
from tests.volume.rigs import CHUNK, running
from tests.volume.support import PASSPHRASE, TrioClock

LF = b"/lost+found"
FOUND = {2: BIG, 3: b"s" * 100, 6: INNER, 7: bytes(200_000) + b"end"}
"""Inode -> content.  The twin of a chunk was stored by reference, and no index knows it."""


@pytest.fixture
async def wrecked(tmp_path: Path) -> Patient:
    """A new machine, and buckets in which no manifest and no page is left."""
    sick = Patient(*await build(tmp_path, "volume", crashed=False))
    manifest = await sick.newest_manifest()
    for bucket in await sick.each():
        for info in await bucket.list(layout.MANIFEST_PREFIX):
            await bucket.delete(info.key)
    for blob in manifest.blobs:
        for shard in range(blob.segment.code.n):
            slot, key = sick.shard(blob.segment, shard)
            await sick.bucket(slot).delete(key)
    return Patient(sick.cloud, await sick.fresh())


async def rescue(patient: Patient) -> Rescue:
    buckets = patient.buckets(patient.home)
    return await Rescue.open(patient.home, PASSPHRASE, buckets, TrioClock(), RescueOptions(HOST))


def quiet(_text: str) -> None:
    pass


async def test_a_scan_alone_changes_nothing_and_says_what_there_is(wrecked: Patient) -> None:
    before = [[info.key for info in await bucket.list("")] for bucket in await wrecked.each()]
    found = await (await rescue(wrecked)).scan(quiet)
    assert {ino: found.size(ino) for ino in found.files} == {ino: len(data) for ino, data in FOUND.items()}
    assert found.holes(7) == [0, 1, 2]  # type: ignore[arg-type]
    assert (found.unreadable, found.silent) == ({}, {})
    assert [[info.key for info in await bucket.list("")] for bucket in await wrecked.each()] == before
    assert not wrecked.home.database_path.exists()


async def test_files_are_copied_by_inode_number(wrecked: Patient, tmp_path: Path) -> None:
    work = await rescue(wrecked)
    target = tmp_path / "out"
    target.mkdir()
    assert await work.copy_out(await work.scan(quiet), target) == {}
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        f"#{ino}": data for ino, data in FOUND.items()
    }
    with pytest.raises(FileExistsError):
        await work.copy_out(await work.scan(quiet), target)


async def test_what_is_published_is_a_volume_again_on_every_machine(wrecked: Patient) -> None:
    work = await rescue(wrecked)
    sequence = await work.publish(await work.scan(quiet))
    assert sequence == 1
    expected = {LF + b"/#%d" % ino: data for ino, data in FOUND.items()} | {LF: b"/"}
    assert await wrecked.tree() == expected
    assert await wrecked.tree(await wrecked.fresh()) == expected
    report = await wrecked.check(data=True)
    assert report.exit_code is ExitCode.OK, [one.line for one in report.findings]
    async with running(await wrecked.cloud.open(wrecked.home)) as rig:
        rig.create(b"more")
        rig.write(b"more", 0, b"written after the rescue")
        await rig.leave()
    assert (await wrecked.tree(await wrecked.fresh()))[b"/more"] == b"written after the rescue"
    again = await rescue(wrecked)
    with pytest.raises(Unclean, match="mount it"):
        await again.publish(await again.scan(quiet))


async def test_the_newest_version_of_a_chunk_wins(tmp_path: Path) -> None:
    sick = Patient(*await build(tmp_path, "volume", crashed=False))
    async with running(await sick.cloud.open(sick.home)) as rig:
        rig.write(b"big", CHUNK + 5, b"newer")
        await rig.leave()
    found = await (await rescue(sick)).scan(quiet)
    assert found.files[2][1].chunk > found.files[2][2].chunk  # type: ignore[index]
    target = tmp_path / "out"
    target.mkdir()
    await (await rescue(sick)).copy_out(found, target)
    assert (target / "#2").read_bytes()[CHUNK + 5 : CHUNK + 10] == b"newer"


async def test_a_moment_that_opens_is_not_published_over(tmp_path: Path) -> None:
    sick = Patient(*await build(tmp_path, "volume", crashed=False))
    fresh = Patient(sick.cloud, await sick.fresh())
    work = await rescue(fresh)
    with pytest.raises(Unclean, match="can be recovered"):
        await work.publish(await work.scan(quiet))
    assert await sick.tree() == CLEAN_TREE


async def test_manifests_that_open_and_lead_nowhere_are_no_obstacle(tmp_path: Path) -> None:
    """The pages are gone, the manifests are not: what is published comes after them, and names the last."""
    sick = Patient(*await build(tmp_path, "volume", crashed=False))
    manifest = await sick.newest_manifest()
    for blob in manifest.base:
        for shard in range(blob.segment.code.n):
            slot, key = sick.shard(blob.segment, shard)
            await sick.bucket(slot).delete(key)
    fresh = Patient(sick.cloud, await sick.fresh())
    work = await rescue(fresh)
    assert await work.publish(await work.scan(quiet)) == manifest.sequence + 1
    assert (await fresh.check()).exit_code is ExitCode.OK
    assert (await fresh.tree())[LF + b"/#2"] == BIG


async def test_damaged_manifests_are_no_obstacle(wrecked: Patient) -> None:
    for slot in range(3):
        await wrecked.bucket(slot).put(layout.manifest_name(9), b"?")
    work = await rescue(wrecked)
    assert await work.publish(await work.scan(quiet)) == 10
    assert (await wrecked.tree())[LF + b"/#6"] == INNER


async def test_one_bucket_may_be_gone(wrecked: Patient, tmp_path: Path) -> None:
    wrecked.silent = frozenset({"b2"})
    work = await rescue(wrecked)
    found = await work.scan(quiet)
    assert list(found.silent) == [2]
    target = tmp_path / "out"
    target.mkdir()
    assert await work.copy_out(found, target) == {}
    assert (target / "#2").read_bytes() == BIG


async def test_what_cannot_be_read_is_named(wrecked: Patient, tmp_path: Path) -> None:
    """Of one segment too few shards are left to read its index; of another one chunk is damaged in all."""
    work = await rescue(wrecked)
    found = await work.scan(quiet)
    segment = found.segments[found.files[6][0].segment]  # type: ignore[index]
    for shard in range(segment.code.n):
        slot, key = wrecked.shard(segment, shard)
        await wrecked.change(slot, key, lambda data: data[:300] + bytes([data[300] ^ 1]) + data[301:])
    target = tmp_path / "out"
    target.mkdir()
    failures = await work.copy_out(found, target)
    assert list(failures) == [6, 7]  # both have bytes in that block
    assert "chunk 0" in failures[6][0]  # type: ignore[index]
    assert sorted(path.name for path in target.iterdir()) == ["#2", "#3", "#6.incomplete", "#7.incomplete"]
    for shard in range(segment.code.n):
        slot, key = wrecked.shard(segment, shard)
        await wrecked.bucket(slot).delete(key)
    big = found.segments[found.files[2][0].segment]  # type: ignore[index]
    for shard in (0, 1):
        slot, key = wrecked.shard(big, shard)
        await wrecked.bucket(slot).delete(key)
    again = await work.scan(quiet)
    assert list(again.unreadable) == [big.uuid]
    assert again.files == {}


async def test_publishing_needs_the_lease_and_leaves_a_local_table_alone(tmp_path: Path) -> None:
    sick = Patient(*await build(tmp_path, "volume", crashed=True))
    for bucket in await sick.each():
        for info in await bucket.list(layout.MANIFEST_PREFIX):
            await bucket.delete(info.key)
    work = await rescue(sick)
    with pytest.raises(Unclean, match="fsck --repair"):
        await work.publish(await work.scan(quiet))
    fresh = Patient(sick.cloud, await sick.fresh())
    other = await rescue(fresh)
    with pytest.raises(HeldElsewhere):
        await other.publish(await other.scan(quiet))
    assert not fresh.home.database_path.exists()
