"""fsck where nothing is damaged, where not all can be seen, on other machines, and beside a running mount."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from objfs.backends.wrappers.faults import FailBefore, Fault
from objfs.cache.offline import CacheDirectory
from objfs.cache.recovery import boot_id
from objfs.errors import Corrupt, ExitCode, HeldElsewhere, Refused
from objfs.meta.view import TableView
from objfs.model import ROOT, Slot
from objfs.store import layout
from objfs.volume.fsck import FsckOptions, check_running
from objfs.volume.fsck_repair import check_volume
from objfs.volume.fsck_report import Grade, Report
from objfs.volume.fsck_subject import Subject
from objfs.volume.open import OpenOptions
from tests.volume.patients import CLEAN_TREE, CRASHED_TREE, HOST, Patient, build
from tests.volume.rigs import CHUNK, Cloud, Rig, running
from tests.volume.support import PASSPHRASE, TrioClock
from tests.volume.wards import ward

OTHER = OpenOptions(host="other", force=True)


@pytest.fixture
async def crashed(tmp_path: Path) -> Patient:
    return Patient(*await build(tmp_path, "volume", crashed=True))


def said(report: Report) -> list[str]:
    return [one.line for one in report.findings]


async def test_a_new_machine_checks_what_it_would_get(crashed: Patient) -> None:
    home = await crashed.fresh()
    before = sorted(path.name for path in home.path.iterdir())
    report = await crashed.check(home=home)
    assert (report.rules(), report.exit_code) == ({"in-use"}, ExitCode.OK)
    assert report.seen["segments"] == 2
    assert sorted(path.name for path in home.path.iterdir()) == sorted([*before, "lock", "state.json"])


async def test_published_damage_keeps_a_new_machine_out_until_it_is_repaired(crashed: Patient) -> None:
    crashed.sql("UPDATE inode SET nlink = 9 WHERE ino = 3", "DELETE FROM entry WHERE name = x'6c696e6b'")
    async with running(await crashed.cloud.open(crashed.home)) as rig:
        await rig.leave()
    fresh = Patient(crashed.cloud, await crashed.fresh())
    with pytest.raises(Corrupt, match="fsck --repair"):
        await crashed.cloud.open(fresh.home)
    assert (await fresh.check()).rules(Grade.DAMAGE) >= {"links"}
    report = await fresh.repair()
    assert report.exit_code is ExitCode.DAMAGE_HEALED, said(report)
    expected = {path: data for path, data in CRASHED_TREE.items() if path != b"/link"}
    assert await fresh.tree() == expected | {b"/lost+found": b"/", b"/lost+found/#5": b"->target"}
    async with running(await crashed.cloud.open(await crashed.fresh(), OTHER)) as rig:
        assert rig.table.check() == []
    rig.vanish()


async def test_a_bucket_that_does_not_answer_is_said_to_be_unseen(crashed: Patient) -> None:
    crashed.silent = frozenset({"b1"})
    report = await crashed.check()
    assert report.exit_code is ExitCode.DEGRADED
    assert {(one.rule, one.bucket) for one in report.of(Grade.UNSEEN)} == {("bucket", "mem://b1")}
    assert report.of(Grade.DAMAGE, Grade.LOSS) == []


async def test_with_a_silent_bucket_another_loss_is_told_and_nothing_is_given_up(crashed: Patient) -> None:
    segment = crashed.segment("inner")[1]
    silent, gone = segment.placement
    crashed.silent = frozenset({f"b{silent}"})
    for path in crashed.home.cache_path.glob("00/*"):
        path.unlink()
    key = crashed.shard(segment, 1)[1]
    kept = await crashed.bucket(gone).get(key)
    await crashed.bucket(gone).delete(key)
    report = await crashed.repair()
    assert report.exit_code is ExitCode.DAMAGE_FOUND
    assert "inode 6 (/d/inner): bytes 0 to 4999 cannot be read" in "\n".join(said(report))
    crashed.silent = frozenset()
    await crashed.bucket(gone).put(key, kept)
    assert await crashed.tree() == CRASHED_TREE


async def test_a_machine_without_a_url_for_a_bucket_says_so(crashed: Patient) -> None:
    home = await crashed.cloud.attach(without={"b2"})
    report = await crashed.check(home=home)
    assert report.exit_code is ExitCode.DEGRADED
    assert ["no URL here" in one.line for one in report.of(Grade.UNSEEN)] == [True]


async def test_what_nothing_names_is_remarked_and_left_alone(crashed: Patient) -> None:
    """A segment of a crash, and an object of somebody else."""
    volume = await crashed.cloud.open(crashed.home)
    segment, _ = await volume.store.write_segment([])
    volume.meta.close()
    volume.replica.close()
    await crashed.bucket(0).put("segment/zz/notes.txt", b"mine")
    crashed.sql("UPDATE inode SET nlink = 9 WHERE ino = 3")
    for report in (await crashed.check(), await crashed.repair(), await crashed.check()):
        assert report.rules(Grade.REMARK) == {"unknown", "foreign"}
    assert report.exit_code is ExitCode.OK
    assert await crashed.bucket(0).get("segment/zz/notes.txt") == b"mine"
    held = [await each.list(layout.shard_prefix(segment.uuid)) for each in await crashed.each()]
    assert sum(map(len, held)) == segment.code.n


async def test_an_overtaken_state_is_no_damage(crashed: Patient) -> None:
    async with running(await crashed.cloud.open(await crashed.fresh(), OTHER)) as rig:
        rig.create(b"elsewhere")
        await rig.leave()
    for report in (await crashed.check(), await crashed.repair()):
        assert (report.rules(), report.exit_code) == ({"overtaken"}, ExitCode.OK)
    assert not list(crashed.home.path.glob("salvage-*"))
    assert await crashed.tree() == CLEAN_TREE | {b"/elsewhere": b""}


async def test_repair_of_an_overtaken_state_keeps_it_aside(crashed: Patient) -> None:
    async with running(await crashed.cloud.open(await crashed.fresh(), OTHER)) as rig:
        rig.create(b"elsewhere")
        await rig.leave()
    await crashed.bucket(1).delete(layout.HEADER)
    report = await crashed.repair()
    assert report.exit_code is ExitCode.DAMAGE_HEALED, said(report)
    (aside,) = crashed.home.path.glob("salvage-*")
    assert (aside / "meta.db").exists()
    assert await crashed.tree() == CLEAN_TREE | {b"/elsewhere": b""}


async def test_a_repair_needs_the_lease(crashed: Patient) -> None:
    fresh = await crashed.fresh()
    async with running(await crashed.cloud.open(fresh, OTHER)) as rig:
        crashed.sql("UPDATE inode SET nlink = 9 WHERE ino = 3")
        before = await crashed.bucket(0).list("")
        with pytest.raises(HeldElsewhere):
            await crashed.repair()
        after = await crashed.bucket(0).list("")
        assert [info.key for info in after] == [info.key for info in before]
    rig.vanish()


async def test_the_data_of_a_volume_that_nobody_could_recover_is_told(crashed: Patient) -> None:
    """The newest moment is lost in the buckets, and this machine has nothing either."""
    manifest = await crashed.newest_manifest()
    for shard in (0, 1):
        slot, key = crashed.shard(manifest.base[0].segment, shard)
        await crashed.bucket(slot).delete(key)
    fresh = Patient(crashed.cloud, await crashed.fresh())
    report = await fresh.check()
    assert report.exit_code is ExitCode.DAMAGE_FOUND
    assert {"digest", "shard-missing"} <= report.rules(Grade.LOSS)


# --- beside a running mount ----------------------------------------------------------------


async def beside(rig: Rig, cloud: Cloud, *, data: bool = False) -> Report:
    volume = rig.volume
    with TableView(rig.table.path) as view:
        cache = CacheDirectory(volume.home.cache_path, boot_id())
        raw = cloud.buckets(volume.home)
        return await check_running(
            Subject(
                volume.header,
                volume.ring,
                raw,
                volume.buckets,
                volume.left_out,
                volume.store,
                view,
                cache,
                live=True,
                data=data,
                owed=rig.reaper.debts.owed,
            )
        )


async def test_what_is_being_deleted_is_no_damage(tmp_path: Path) -> None:
    """A bucket that deletes nothing at the time has manifests whose blobs are gone from the others."""
    async with ward(tmp_path) as it:
        for name in (b"a", b"b"):
            await it.write(name)
        async with it.rig.checkpointer.quiet():
            it.rig.checkpointer.rebase()  # the next moment names none of the blobs before
        for name in (b"c", b"d", b"e"):
            await it.write(name)
        it.faulty[Slot(1)].add(Fault(FailBefore(Refused), op="delete"))
        await it.rig.reaper.round()
        assert await it.manifests(1) > await it.manifests(0)
        report = await beside(it.rig, it.cloud)
        assert not report.of(Grade.REDUCED, Grade.DAMAGE, Grade.LOSS, Grade.UNSEEN), said(report)


async def test_a_busy_mount_is_clean(tmp_path: Path) -> None:
    """Writes, renames, deletes, checkpoints and the removal of segments go on while it is checked."""
    cloud, home = await build(tmp_path, "volume", crashed=False)
    async with running(await cloud.open(home), interval_s=0.05) as rig, trio.open_nursery() as nursery:
        grace = trio.Event()

        async def work() -> None:
            dice = random.Random(3)
            for number in range(10_000):
                name = b"w%d" % dice.randrange(8)
                if rig.table._entries.find(ROOT, name) is None:
                    rig.create(name)
                rig.write(name, dice.randrange(3) * CHUNK, dice.randbytes(dice.randrange(1, 70_000)))
                if number % 7 == 0:
                    rig.unlink(name)
                if number % 20 == 0:
                    rig.reaper.search()
                    await rig.checkpointer.flush()
                    if not grace.is_set():
                        await rig.reaper.round()
                await trio.sleep(0.002)

        nursery.start_soon(work)
        for data in (False, True, False):
            report = await beside(rig, cloud, data=data)
            assert report.of(Grade.DAMAGE, Grade.LOSS, Grade.UNSEEN) == [], said(report)
            assert report.seen["segments"] > 0
        # From another machine, without anybody's leave: there only the volume's grace keeps what it reads.
        grace.set()
        report = await Patient(cloud, home).check(home=await cloud.attach())
        assert report.of(Grade.DAMAGE, Grade.LOSS, Grade.UNSEEN) == [], said(report)
        assert "in-use" in report.rules()
        nursery.cancel_scope.cancel()
    rig.vanish()


async def test_beside_a_mount_damage_is_found_and_nothing_is_changed(tmp_path: Path) -> None:
    cloud, home = await build(tmp_path, "volume", crashed=False)
    sick = Patient(cloud, home)
    slot, key = sick.shard(sick.segment("big")[1], 1)
    async with running(await cloud.open(home)) as rig:
        rig.write(b"big", 10, b"dirty")
        await cloud.memory.open(cloud.names[slot]).delete(key)
        rig.table._db.connection.execute("UPDATE inode SET nlink = 9 WHERE ino = 3")
        report = await beside(rig, cloud)
        assert report.rules(Grade.DAMAGE) == {"shard-missing", "links"}
        assert report.exit_code is ExitCode.DAMAGE_FOUND
        assert key not in [info.key for info in await cloud.memory.open(cloud.names[slot]).list("")]
    rig.vanish()


async def test_beside_a_mount_lost_bytes_of_what_was_not_uploaded_are_named(tmp_path: Path) -> None:
    """Before the uploader has come to them."""
    cloud, home = await build(tmp_path, "volume", crashed=False)
    rig = Rig(await cloud.open(home), 1000)
    rig.write(b"big", 10, b"dirty")
    sick = Patient(cloud, home)
    sick.cache_file(sick.chunk("big")).unlink()
    report = await beside(rig, cloud)
    assert (report.rules(Grade.LOSS), report.exit_code) == ({"unreadable"}, ExitCode.DAMAGE_FOUND)
    assert ["(/big): bytes 10 to 14 cannot be read" in one.line for one in report.of(Grade.LOSS)] == [True]
    rig.vanish()


async def test_the_caller_is_told_what_takes_long(tmp_path: Path) -> None:
    cloud, home = await build(tmp_path, "volume", crashed=False)
    notes: list[str] = []
    await check_volume(
        home,
        PASSPHRASE,
        cloud.buckets(home),
        clock=TrioClock(),
        options=FsckOptions(data=True, host=HOST),
        note=notes.append,
    )
    assert [note.split(":")[0] for note in notes] == [
        "replaying the newest moment from the buckets",
        "rules of the inode table",
        "segments against buckets",
    ]
