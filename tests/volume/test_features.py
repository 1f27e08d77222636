"""Features of a newer program: what it alone may write is read and left as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from objfs.errors import NewerFormat
from objfs.store import layout
from objfs.volume import manifest as manifests
from objfs.volume.attach import identified, read_volume
from objfs.volume.features import Features
from objfs.volume.keys import write_header
from objfs.volume.local import VolumeHome
from objfs.volume.published import Published, put, read_newest
from objfs.volume.quorum import BucketSet
from tests.volume.rigs import Cloud, running
from tests.volume.support import PASSPHRASE

QUOTA = Features(ro_compat=frozenset({"quota"}))
TAPE = Features(incompat=frozenset({"tape"}))


async def made(tmp_path: Path) -> tuple[Cloud, VolumeHome]:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        rig.create(b"file")
        rig.write(b"file", 0, b"content")
        await rig.leave()
    return cloud, home


async def set_in_header(cloud: Cloud, home: VolumeHome, features: Features) -> None:
    header, ring = await read_volume({"b0": cloud.bucket("b0")}, PASSPHRASE)
    buckets, _ = await identified(header, ring, cloud.buckets(home))
    await write_header(buckets, ring, replace(header, generation=header.generation + 1, features=features))


async def newest_of(cloud: Cloud, home: VolumeHome) -> tuple[Published, BucketSet]:
    header, ring = await read_volume({"b0": cloud.bucket("b0")}, PASSPHRASE)
    buckets, _ = await identified(header, ring, cloud.buckets(home))
    newest = await read_newest(buckets, ring)
    assert newest is not None
    return newest, buckets


async def set_in_manifest(cloud: Cloud, home: VolumeHome, features: Features) -> int:
    """What a newer program would publish next."""
    newest, buckets = await newest_of(cloud, home)
    _, ring = await read_volume({"b0": cloud.bucket("b0")}, PASSPHRASE)
    manifest = replace(
        newest.manifest, sequence=newest.manifest.sequence + 1, previous=newest.hash, features=features
    )
    await put(buckets, ring, manifest.sequence, manifests.encode(manifest, ring), 3)
    return manifest.sequence


async def manifests_and_header(cloud: Cloud) -> list[bytes]:
    bucket = cloud.memory.open("b0")
    names = [info.key for info in await bucket.list(layout.MANIFEST_PREFIX)]
    return [await bucket.get(name) for name in [layout.HEADER, *names]]


@pytest.mark.parametrize("where", [set_in_header, set_in_manifest])
async def test_what_only_a_newer_program_may_write_is_mounted_read_only(
    tmp_path: Path, where: object
) -> None:
    cloud, home = await made(tmp_path)
    assert callable(where)
    await where(cloud, home, QUOTA)
    before = await manifests_and_header(cloud)
    for machine in (home, await cloud.attach(), home):
        cloud.notes.clear()
        volume = await cloud.open(machine)
        assert volume.lease is None
        assert volume.newer_features
        assert "quota" in str(volume.gate.reason)
        assert any("quota" in note for note in cloud.notes)
        async with running(volume) as rig:
            assert await rig.tree() == {b"file": b"content"}
        await rig.close()
    assert await manifests_and_header(cloud) == before


async def test_the_lease_is_given_back_for_who_can_write(tmp_path: Path) -> None:
    cloud, home = await made(tmp_path)
    sequence = await set_in_manifest(cloud, home, QUOTA)
    await (await cloud.open(home)).close(clean=True, settled=True)
    newest, _ = await newest_of(cloud, home)
    assert newest.manifest.sequence == sequence
    await set_in_manifest(cloud, home, Features())  # as if the feature had been taken off again
    volume = await cloud.open(await cloud.attach())
    assert volume.lease is not None
    assert not volume.moment.manifest.fence  # what was left was settled
    await volume.close(clean=True, settled=True)


@pytest.mark.parametrize("where", [set_in_header, set_in_manifest])
async def test_what_a_newer_program_must_read_is_refused(tmp_path: Path, where: object) -> None:
    cloud, home = await made(tmp_path)
    assert callable(where)
    await where(cloud, home, TAPE)
    with pytest.raises(NewerFormat, match="tape"):
        await cloud.open(home)


async def test_a_feature_that_anybody_may_ignore_is_ignored(tmp_path: Path) -> None:
    cloud, home = await made(tmp_path)
    await set_in_header(cloud, home, Features(compat=frozenset({"hints"})))
    volume = await cloud.open(home)
    assert volume.lease is not None
    assert volume.header.features.compat == {"hints"}
    await volume.close(clean=True, settled=True)
