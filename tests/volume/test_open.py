"""Making, attaching, opening, crashing, coming back: local state against the buckets (I2, I5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from objfs.backends.wrappers.faults import FailBefore, Fault
from objfs.errors import (
    Corrupt,
    ForeignBucket,
    HeldElsewhere,
    NoQuorum,
    Refused,
    Unclean,
    VolumeExists,
    WrongPassphrase,
)
from objfs.model import Code
from objfs.store import layout
from objfs.volume.config import VolumeConfig
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.mkfs import NewBucket, NewVolume, create_volume
from objfs.volume.open import OpenOptions, OpenVolume
from objfs.volume.reconcile import Verdict
from tests.volume.rigs import CHEAP, Cloud, Rig, running
from tests.volume.support import PASSPHRASE, TrioClock

OTHER = OpenOptions(host="other", force=True)
READING = OpenOptions(read_only=True)


async def used(cloud: Cloud) -> Rig:
    """A machine that made the volume, wrote two files and flushed the first; then it stops."""
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        rig.create(b"one")
        rig.write(b"one", 0, b"flushed" * 10_000)
        await rig.checkpointer.flush()
        rig.create(b"two")
        rig.write(b"two", 10, b"not flushed")
    return rig


async def test_mkfs_says_what_the_volume_bears_and_its_recovery_key_opens_it(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    created = await cloud.make(home)
    assert (created.tolerance, created.voters, created.writes_with_losses) == (1, 3, 1)
    assert "bears the loss of any one bucket" in created.description
    volume = await cloud.open(home, secret=Secret.recovery(created.recovery_key))
    assert volume.verdict is Verdict.SAME
    assert volume.carried is None
    assert volume.moment.manifest.sequence == 1
    await volume.close(clean=True, settled=True)
    with pytest.raises(WrongPassphrase):
        await cloud.open(home, secret=Secret("passphrase", b"wrong"))


async def test_a_prefix_that_holds_a_volume_is_refused_and_left_alone(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    await cloud.make(cloud.home())
    before = await cloud.memory.open("b0").list("")
    home = cloud.home()
    with pytest.raises(VolumeExists, match="b0"):
        await cloud.make(home)
    assert await cloud.memory.open("b0").list("") == before
    assert not home.config_path.exists()


async def test_a_failed_mkfs_leaves_nothing_behind(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    faulty = [cloud.bucket(name) for name in cloud.names]
    faulty[2].add(Fault(FailBefore(Refused), op="put_if_absent", key=layout.HEADER))
    buckets = [NewBucket(bucket.url, {}, bucket) for bucket in faulty]
    with pytest.raises(Refused):
        await create_volume(home, buckets, NewVolume(PASSPHRASE, Code(2, 1), cost=CHEAP), clock=TrioClock())
    for name in cloud.names:
        assert await cloud.memory.open(name).list("") == []
    await cloud.make(home)


async def test_a_crash_of_the_process_loses_nothing(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    rig = await used(cloud)
    before = await rig.tree()
    rig.vanish()
    volume = await cloud.open(rig.volume.home)
    assert volume.verdict is Verdict.SAME
    assert volume.carried is not None
    async with running(volume) as again:
        assert await again.tree() == before
        await again.leave()
    fresh = await cloud.open(await cloud.attach(), OTHER)
    async with running(fresh) as elsewhere:
        assert await elsewhere.tree() == before
    elsewhere.vanish()


async def test_a_lost_machine_comes_back_as_of_its_last_flush(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    rig = await used(cloud)
    rig.vanish()
    home = await cloud.attach(without={"b1"})
    with pytest.raises(HeldElsewhere):
        await cloud.open(home, OpenOptions(host="other"))
    volume = await cloud.open(home, OTHER)
    assert volume.verdict is Verdict.MISSING
    async with running(volume) as elsewhere:
        assert await elsewhere.tree() == {b"one": b"flushed" * 10_000}
        elsewhere.create(b"three")
        await elsewhere.leave()


async def test_an_overtaken_machine_keeps_its_data_aside_and_recovers(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    rig = await used(cloud)
    rig.vanish()
    async with running(await cloud.open(await cloud.attach(), OTHER)) as elsewhere:
        elsewhere.create(b"three")
        await elsewhere.leave()
    volume = await cloud.open(rig.volume.home)
    assert volume.verdict is Verdict.BEHIND
    assert volume.salvage is not None
    assert any(str(volume.salvage) in note for note in cloud.notes)
    assert (volume.salvage / "meta.db").exists()
    assert any(path.is_file() for path in (volume.salvage / "cache").rglob("*"))
    async with running(volume) as again:
        assert sorted(await again.tree()) == [b"one", b"three"]
    again.vanish()


async def test_another_machines_visit_without_changes_overtakes_nothing(tmp_path: Path) -> None:
    """Its fence repeats our moment: what we have beyond it is still good."""
    cloud = Cloud(tmp_path)
    rig = await used(cloud)
    before = await rig.tree()
    rig.vanish()
    visit = await cloud.open(await cloud.attach(), OTHER)
    assert visit.moment.manifest.fence
    await visit.close(clean=False, settled=True)
    volume = await cloud.open(rig.volume.home)
    assert volume.verdict is Verdict.SAME
    async with running(volume) as again:
        assert await again.tree() == before
    again.vanish()


async def test_a_clean_end_needs_no_comparison_and_no_fence(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    rig = await used(cloud)
    rig.vanish()
    async with running(await cloud.open(rig.volume.home)) as again:
        await again.leave()
        sequence = again.volume.moment.manifest.sequence
        assert again.checkpointer.moment is not None
        sequence = again.checkpointer.moment.manifest.sequence
    volume = await cloud.open(rig.volume.home)
    assert volume.carried is None
    assert volume.moment.manifest.sequence == sequence
    await volume.close(clean=True, settled=True)


async def test_a_crash_right_after_publishing_is_our_own_moment(tmp_path: Path) -> None:
    """The manifest arrived, but neither the replica nor checkpoint.json learned of it."""
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        rig.create(b"one")

        def crash(_attempt: object) -> None:
            raise RuntimeError("the process dies here")

        rig.checkpointer._settle_files = crash  # type: ignore[method-assign, assignment]
        with pytest.raises(RuntimeError, match="dies"):
            await rig.checkpointer.flush()
        rig.create(b"two")
    rig.vanish()
    volume = await cloud.open(home)
    assert volume.verdict is Verdict.OWN
    async with running(volume) as again:
        assert sorted(await again.tree()) == [b"one", b"two"]
        await again.leave()
    volume = await cloud.open(home)
    assert volume.verdict is Verdict.SAME
    await volume.close(clean=True, settled=True)


async def test_a_damaged_replica_is_fetched_again(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    rig = await used(cloud)
    before = await rig.tree()
    rig.volume.replica.clear()
    rig.vanish()
    volume = await cloud.open(rig.volume.home)
    assert volume.verdict is Verdict.SAME
    assert volume.replica.digest == volume.moment.manifest.digest
    async with running(volume) as again:
        assert await again.tree() == before
        await again.leave()


async def test_buckets_that_went_back_in_time_are_noticed(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    rig = await used(cloud)
    rig.vanish()
    for name in cloud.names:
        await cloud.memory.open(name).delete(layout.manifest_name(2))
    with pytest.raises(Unclean, match="bring the missing buckets back"):
        await cloud.open(rig.volume.home)
    volume = await cloud.open(rig.volume.home, OTHER)
    assert volume.verdict is Verdict.AHEAD
    assert volume.salvage is not None
    await volume.close(clean=False, settled=True)


async def test_a_clean_state_that_the_buckets_lost_is_kept_aside(tmp_path: Path) -> None:
    """What only this machine still has is not removed because it had been uploaded once."""
    cloud = Cloud(tmp_path)
    rig = await used(cloud)
    rig.vanish()
    async with running(await cloud.open(rig.volume.home)) as again:
        await again.leave()
    newest = again.checkpointer.moment
    assert newest is not None
    for name in cloud.names:
        await cloud.memory.open(name).delete(layout.manifest_name(newest.manifest.sequence))
    volume = await cloud.open(rig.volume.home, OTHER)
    assert volume.verdict is Verdict.AHEAD
    assert volume.salvage is not None
    assert (volume.salvage / "meta.db").exists()
    await volume.close(clean=False, settled=True)


async def test_the_cache_is_kept_aside_where_the_table_is_gone(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    rig = await used(cloud)
    rig.vanish()
    rig.volume.home.database_path.unlink()
    volume = await cloud.open(rig.volume.home)
    assert volume.verdict is Verdict.MISSING
    assert volume.salvage is not None
    assert any(path.is_file() for path in (volume.salvage / "cache").rglob("*"))
    await volume.close(clean=False, settled=True)


async def test_a_reading_mount_takes_no_lease_and_writes_nothing(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    rig = await used(cloud)
    home = await cloud.attach()
    before = [await cloud.memory.open(name).list("") for name in cloud.names]
    volume = await cloud.open(home, OpenOptions(read_only=True))
    assert volume.lease is None
    assert not volume.gate.open
    async with running(volume) as reader:
        assert await reader.tree() == {b"one": b"flushed" * 10_000}
    await volume.close(clean=True, settled=True)
    assert [await cloud.memory.open(name).list("") for name in cloud.names] == before
    assert not home.clean_path.exists()
    rig.vanish()


async def read_once(cloud: Cloud, home: VolumeHome) -> OpenVolume:
    """A reading mount that begins and ends."""
    volume = await cloud.open(home, READING)
    async with running(volume):
        pass
    await volume.close(clean=True, settled=True)
    return volume


async def test_a_reading_machine_keeps_nothing_aside_when_the_writer_went_on(tmp_path: Path) -> None:
    """What it had came out of the buckets: there is nothing in it to salvage."""
    cloud = Cloud(tmp_path)
    writer = cloud.home()
    await cloud.make(writer)
    home = await cloud.attach()
    async with running(await cloud.open(writer)) as rig:
        for verdict in (Verdict.MISSING, Verdict.BEHIND, Verdict.BEHIND):
            volume = await read_once(cloud, home)
            assert (volume.verdict, volume.salvage) == (verdict, None)
            rig.create(verdict.value.encode() + b"%d" % rig.tick)
            await rig.checkpointer.flush()
        await rig.leave()
    volume = await read_once(cloud, writer)
    assert volume.verdict is Verdict.SAME
    assert writer.is_mirror()
    assert not list(home.path.glob("salvage-*"))


async def test_what_was_written_on_a_mirror_is_kept_when_another_machine_went_on(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    await cloud.make(cloud.home())
    home = await cloud.attach()
    await read_once(cloud, home)
    assert home.is_mirror()
    async with running(await cloud.open(home)) as rig:
        assert not home.is_mirror()
        rig.create(b"only here")
    rig.vanish()
    async with running(await cloud.open(await cloud.attach(), OTHER)) as elsewhere:
        elsewhere.create(b"there")
        await elsewhere.leave()
    volume = await cloud.open(home, READING)
    assert volume.verdict is Verdict.BEHIND
    assert volume.salvage is not None
    await volume.close(clean=True, settled=True)


async def test_a_reading_mount_over_local_changes_makes_no_mirror(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    rig = await used(cloud)
    rig.vanish()
    await read_once(cloud, rig.volume.home)
    assert not rig.volume.home.is_mirror()
    async with running(await cloud.open(rig.volume.home)) as again:
        assert sorted(await again.tree()) == [b"one", b"two"]
    again.vanish()


async def test_swapped_and_foreign_buckets_are_refused(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    config = home.read_config()
    one, two, three = config.buckets
    swapped = (replace(one, url=two.url), replace(two, url=one.url), three)
    home.write_config(replace(config, buckets=swapped))
    with pytest.raises(ForeignBucket, match="swapped"):
        await cloud.open(home)
    home.write_config(VolumeConfig(b"x" * 16, config.buckets))
    with pytest.raises(ForeignBucket, match="hold volume"):
        await cloud.open(home)


async def test_a_wiped_bucket_is_left_out_and_the_volume_goes_on(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    rig = await used(cloud)
    rig.vanish()
    for info in await cloud.memory.open("b1").list(""):
        await cloud.memory.open("b1").delete(info.key)
    volume = await cloud.open(rig.volume.home)
    assert set(volume.left_out) == {1}
    async with running(volume) as again:
        assert sorted(await again.tree()) == [b"one", b"two"]
        await again.leave()
    assert await cloud.memory.open("b1").list("") == []


async def test_without_a_majority_a_writing_mount_is_refused(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    rig = await used(cloud)
    rig.vanish()
    home = await cloud.attach(without={"b1", "b2"})
    with pytest.raises(NoQuorum, match="force"):
        await cloud.open(home, OpenOptions(host="other"))


async def test_an_interrupted_recovery_begins_anew_and_leaves_no_salvage(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    rig = await used(cloud)
    rig.vanish()
    home = await cloud.attach()
    volume = await cloud.open(home, OTHER)
    volume.meta.close()
    volume.replica.close()
    home.checkpoint_path.unlink()
    volume = await cloud.open(home, OpenOptions(host="other"))
    assert (volume.verdict, volume.salvage) == (Verdict.MISSING, None)
    await volume.close(clean=False, settled=True)


# --- a local disk that rots --------------------------------------------------------------------


async def ended_clean(tmp_path: Path) -> tuple[Cloud, VolumeHome]:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        for number in range(300):
            rig.create(b"name%03d" % number)
        rig.write(b"name007", 0, b"content")
        await rig.leave()
    assert home.clean_path.exists()
    return cloud, home


def rot(home: VolumeHome, find: bytes, replace_by: bytes) -> None:
    """The database stays sound for SQLite, and says something else."""
    data = home.database_path.read_bytes()
    assert find in data
    home.database_path.write_bytes(data.replace(find, replace_by))


def flip_everywhere(home: VolumeHome) -> None:
    data = bytearray(home.database_path.read_bytes())
    for at in range(5000, len(data), 1000):
        data[at] ^= 0xFF
    home.database_path.write_bytes(data)


def cut_short(home: VolumeHome) -> None:
    data = home.database_path.read_bytes()
    home.database_path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    "damage", [lambda home: rot(home, b"name007", b"nameOO7"), flip_everywhere, cut_short]
)
@pytest.mark.parametrize("options", [OpenOptions(host="host"), READING])
async def test_rot_of_the_table_after_a_clean_end_is_noticed_and_recovered_from_the_buckets(
    tmp_path: Path, damage: Callable[[VolumeHome], None], options: OpenOptions
) -> None:
    cloud, home = await ended_clean(tmp_path)
    damage(home)
    async with running(await cloud.open(home, options)) as rig:
        assert (rig.volume.verdict, rig.volume.salvage) == (Verdict.ROTTEN, None)
        assert ["the disk has damaged it" in note for note in cloud.notes[:1]] == [True]
        assert (await rig.tree())[b"name007"] == b"content"
        assert rig.table.check() == []
        await (rig.close() if options.read_only else rig.leave())
    volume = await cloud.open(home)
    assert volume.verdict is Verdict.SAME
    await volume.close(clean=True, settled=True)


async def test_a_table_that_ended_clean_is_kept_as_it_is(tmp_path: Path) -> None:
    cloud, home = await ended_clean(tmp_path)
    before = home.database_path.stat().st_ino
    volume = await cloud.open(home)
    assert (volume.verdict, volume.carried) == (Verdict.SAME, None)
    assert home.database_path.stat().st_ino == before
    await volume.close(clean=True, settled=True)


async def test_a_damaged_table_with_work_in_it_is_refused_and_kept(tmp_path: Path) -> None:
    """Without a clean mark nobody can tell rot from changes; what SQLite cannot read is for fsck."""
    cloud, home = await ended_clean(tmp_path)
    home.clean_path.unlink()
    flip_everywhere(home)
    damaged = home.database_path.read_bytes()
    with pytest.raises(Corrupt, match="run objfs fsck --repair"):
        await cloud.open(home)
    assert home.database_path.read_bytes() == damaged
