"""What was written here and is not in the buckets comes out of a state that was set aside."""

from __future__ import annotations

import os
import random
import shutil
import stat
from pathlib import Path

import pytest

from objfs.cache.offline import CacheDirectory
from objfs.cache.recovery import boot_id
from objfs.codec.keys import KeyRing
from objfs.errors import ExitCode, UsageError
from objfs.meta.view import TableView
from objfs.model import ROOT, AttrChange, NewInode, RenameFlag
from objfs.ports import WriteGate
from objfs.store.store import SegmentStore
from objfs.volume.attach import identified, read_volume
from objfs.volume.local import VolumeHome
from objfs.volume.open import OpenOptions
from objfs.volume.salvage import (
    CURRENT,
    Salvage,
    Salvaged,
    Source,
    choose_source,
    finish_setting_aside,
    sources,
)
from objfs.volume.versions import Versions
from tests.cache.test_with_meta import MetaRig, pile
from tests.volume.patients import BIG, CRASHED_TREE, OVER, Patient, build, now
from tests.volume.rigs import CHUNK, Rig, running
from tests.volume.support import PASSPHRASE, TrioClock

OTHER = OpenOptions(host="other", force=True)


@pytest.fixture
async def crashed(tmp_path: Path) -> Patient:
    return Patient(*await build(tmp_path, "volume", crashed=True))


async def overtake(patient: Patient) -> Source:
    """Another machine goes on; the next mount here sets the local state aside."""
    async with running(await patient.cloud.open(await patient.fresh(), OTHER)) as rig:
        rig.create(b"elsewhere")
        await rig.leave()
    volume = await patient.cloud.open(patient.home)
    assert volume.salvage is not None
    await volume.close(clean=False, settled=True)
    return choose_source(patient.home, "")


async def store_of(patient: Patient) -> SegmentStore:
    raw = patient.buckets(patient.home)
    header, ring = await read_volume({bucket.url: bucket for bucket in raw.values()}, PASSPHRASE)
    assert isinstance(ring, KeyRing)
    buckets, _ = await identified(header, ring, raw)
    return SegmentStore(buckets.buckets, ring, header.code, clock=TrioClock(), gate=WriteGate())


async def copy(
    patient: Patient, source: Source, directory: Path, *, local: bool = False, boot: bytes | None = None
) -> Salvaged:
    store = None if local else await store_of(patient)
    return await Salvage(source, directory, store, boot or boot_id(), lambda _text: None).run()


def tree(directory: Path) -> dict[str, bytes]:
    return {
        f"/{path.relative_to(directory)}": path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


WRITTEN = {"/big": CRASHED_TREE[b"/big"], "/new": CRASHED_TREE[b"/new"]}


async def test_files_that_were_never_uploaded_come_out_whole_and_nothing_else(
    crashed: Patient, tmp_path: Path
) -> None:
    source = await overtake(crashed)
    before = {path: path.stat().st_mtime_ns for path in source.path.rglob("*") if path.is_file()}
    done = await copy(crashed, source, tmp_path / "out")
    assert tree(tmp_path / "out") == WRITTEN
    assert (sorted(done.files), done.incomplete, done.left_out, done.exit_code) == (
        [("/big", len(BIG)), ("/new", 1000)],
        {},
        {},
        ExitCode.OK,
    )
    after = {path: path.stat().st_mtime_ns for path in source.path.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before


async def test_the_present_state_can_be_read_too(crashed: Patient, tmp_path: Path) -> None:
    """After a lost lease, before the next mount sets it aside."""
    with pytest.raises(UsageError, match="--from current"):
        choose_source(crashed.home, "")
    await copy(crashed, choose_source(crashed.home, CURRENT), tmp_path / "out")
    assert tree(tmp_path / "out") == WRITTEN


async def test_without_buckets_what_is_only_there_is_missing_and_named(
    crashed: Patient, tmp_path: Path
) -> None:
    for path in crashed.home.cache_path.glob("00/*"):
        path.unlink()  # the copies of what is stored
    source = await overtake(crashed)
    done = await copy(crashed, source, tmp_path / "out", local=True)
    found = tree(tmp_path / "out")
    assert found["/new"] == WRITTEN["/new"]
    assert found["/big"][70_000 : 70_000 + len(OVER)] == OVER
    assert len(found["/big"]) == len(BIG)
    assert list(done.incomplete) == ["/big"]
    spans = [line.split(":")[0] for line in done.incomplete["/big"]]
    assert spans == [
        "bytes 0 to 65535",
        "bytes 65536 to 69999",
        f"bytes {70_000 + len(OVER)} to 131071",
        "bytes 131072 to 196607",
        "bytes 196608 to 262143",
        "bytes 262144 to 299999",
    ]
    assert done.exit_code is ExitCode.DAMAGE_FOUND


async def test_without_buckets_copies_in_the_cache_are_enough(crashed: Patient, tmp_path: Path) -> None:
    done = await copy(crashed, await overtake(crashed), tmp_path / "out", local=True)
    assert (tree(tmp_path / "out"), done.incomplete) == (WRITTEN, {})


async def test_bytes_that_the_cache_lost_are_named(crashed: Patient, tmp_path: Path) -> None:
    crashed.cache_file(crashed.chunk("new")).unlink()
    done = await copy(crashed, await overtake(crashed), tmp_path / "out")
    assert done.incomplete == {"/new": ["bytes 0 to 999: written here, and gone from the cache's directory"]}
    assert tree(tmp_path / "out")["/new"] == bytes(1000)


async def test_after_a_power_cut_what_was_not_synced_is_judged(crashed: Patient, tmp_path: Path) -> None:
    path = crashed.cache_file(crashed.chunk("new"))
    path.write_bytes(b"torn" * 250)
    done = await copy(crashed, await overtake(crashed), tmp_path / "out", boot=b"another boot")
    assert list(done.incomplete) == ["/new"]
    assert "power cut" in done.incomplete["/new"][0]
    assert tree(tmp_path / "out")["/big"] == WRITTEN["/big"]


async def change(rig: Rig) -> None:
    """Of everything that a tree can hold something that no checkpoint has."""
    table = rig.table

    def make(name: bytes, mode: int, parent: int = ROOT, target: bytes | None = None) -> int:
        new = NewInode(mode, os.getuid(), os.getgid(), now(rig), target=target)
        return table.create(parent, name, new).ino  # type: ignore[arg-type]

    directory = make(b"made", stat.S_IFDIR | 0o750)
    make(b"pipe", stat.S_IFIFO | 0o600, directory)
    make(b"socket", stat.S_IFSOCK | 0o600, directory)
    make(b"pointer", stat.S_IFLNK | 0o777, directory, b"../new")
    table.rename(ROOT, b"twin", directory, b"moved \xff", RenameFlag.REPLACE, now(rig))  # type: ignore[arg-type]
    table.link(table.lookup(ROOT, b"new").ino, directory, b"second", now(rig))  # type: ignore[arg-type]
    table.set_attr(table.lookup(ROOT, b"sparse").ino, AttrChange(mode=0o400, ctime_ns=now(rig)))
    rig.write(b"big", 2 * CHUNK, random.Random(9).randbytes(CHUNK))
    await rig.cache.drain()
    rig.write(b"big", 2 * CHUNK + 10, b"twice")


async def test_every_kind_of_change_comes_out_with_its_attributes(crashed: Patient, tmp_path: Path) -> None:
    """Also what was uploaded, but never became part of a moment."""
    async with running(await crashed.cloud.open(crashed.home)) as rig:
        await change(rig)
        expected = await rig.tree()
        mtime = rig.table.lookup(ROOT, b"big").mtime_ns
    rig.vanish()
    out = tmp_path / "out"
    done = await copy(crashed, await overtake(crashed), out)
    assert done.left_out == {"/made/socket": "a special file (mode 140600)"}
    assert (out / "big").read_bytes() == expected[b"big"]
    assert (out / "big").stat().st_mtime_ns == mtime
    assert stat.S_IMODE((out / "sparse").stat().st_mode) == 0o400
    assert (out / "sparse").read_bytes() == CRASHED_TREE[b"/sparse"]
    assert stat.S_IMODE((out / "made").stat().st_mode) == 0o750
    assert stat.S_ISFIFO((out / "made" / "pipe").stat().st_mode)
    assert os.readlink(out / "made" / "pointer") == "../new"
    assert (out / "new").stat().st_ino == (out / "made" / "second").stat().st_ino
    assert (out / "made" / os.fsdecode(b"moved \xff")).read_bytes() == CRASHED_TREE[b"/twin"]
    assert not (out / "small").exists()
    assert not (out / "d").exists()


async def test_without_an_image_only_what_was_not_uploaded_is_known(crashed: Patient, tmp_path: Path) -> None:
    source = await overtake(crashed)
    shutil.rmtree(source.path / "pages")
    done = await copy(crashed, source, tmp_path / "out")
    assert tree(tmp_path / "out") == WRITTEN
    assert ["only files with chunks" in remark for remark in done.remarks] == [True]


async def test_without_a_table_the_caches_files_come_out_as_they_are(
    crashed: Patient, tmp_path: Path
) -> None:
    number = crashed.chunk("new")
    source = await overtake(crashed)
    source.database.write_bytes(b"no table" * 1000)
    done = await copy(crashed, source, tmp_path / "out")
    assert tree(tmp_path / "out")[f"/lost+found/chunk-{number:016x}"] == WRITTEN["/new"]
    assert len(done.remarks) == 1


async def test_a_damaged_table_leads_nowhere_else(crashed: Patient, tmp_path: Path) -> None:
    crashed.sql(
        "UPDATE entry SET name = x'2e2e' WHERE name = x'6e6577'",
        "DELETE FROM entry WHERE name = x'626967'",
    )
    done = await copy(crashed, choose_source(crashed.home, CURRENT), tmp_path / "out")
    assert done.left_out == {"/..": "its path would lead out of the destination"}
    assert tree(tmp_path / "out") == {"/lost+found/#2": WRITTEN["/big"]}


async def test_a_state_that_a_crash_left_in_two_halves_is_whole_again(
    crashed: Patient, tmp_path: Path
) -> None:
    """The process died while the state was being set aside: the table has moved, the cache has not."""
    draft = crashed.home.path / "salvage-7.new"
    draft.mkdir()
    for path in (crashed.home.checkpoint_path, *crashed.home.path.glob("meta.db*")):
        path.rename(draft / path.name)
    assert sources(crashed.home) == []
    finish_setting_aside(crashed.home, "8")
    source = choose_source(crashed.home, "")
    assert source.name == "salvage-7"
    done = await copy(crashed, source, tmp_path / "out")
    assert (tree(tmp_path / "out"), done.incomplete) == (WRITTEN, {})


def test_which_state_is_meant(tmp_path: Path) -> None:
    home = VolumeHome(tmp_path, "vol")
    for name in ("salvage-1", "salvage-2"):
        (home.path / name).mkdir(parents=True)
    assert [source.name for source in sources(home)] == ["salvage-1", "salvage-2"]
    with pytest.raises(UsageError, match="--from with one of salvage-1, salvage-2"):
        choose_source(home, "")
    assert choose_source(home, "salvage-1").path == home.path / "salvage-1"
    with pytest.raises(UsageError, match="no salvage-3"):
        choose_source(home, "salvage-3")
    home.database_path.touch()
    assert choose_source(home, CURRENT).database == home.database_path


async def test_any_number_of_versions_over_each_other_is_copied(tmp_path: Path) -> None:
    """Only 64 of them were looked at, and the rest called gone."""
    rig = MetaRig(tmp_path / "cache")
    content = pile(rig, 200)
    chunk = rig.row().chunk
    rig.cache.close()
    rig.meta.close()
    with TableView(rig.path) as view:
        versions = Versions(view, CacheDirectory(rig.directory, b"first boot"), None)
        data, missing = await versions.read(chunk, len(content))
    assert (data, missing.spans) == (content, [])
