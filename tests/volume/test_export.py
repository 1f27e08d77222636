"""An archive holds exactly the tree: GNU tar and objfs itself unpack it to the same, and none leads out."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import trio

from objfs.errors import ExitCode, InvalidArgument, NotEnoughShards, UsageError
from objfs.fs import acl
from objfs.fs.acl import Acl
from objfs.model import ROOT
from objfs.store.layout import shard_name
from objfs.store.store import SegmentStore
from objfs.volume import export as export_module
from objfs.volume.acl_text import from_text, to_text
from objfs.volume.destination import DRAFTS, Destination
from objfs.volume.export import SOCKETS, Export
from objfs.volume.local import VolumeHome
from objfs.volume.pieces import Part, Parts, Unread, read
from objfs.volume.restored import Restored
from objfs.volume.selection import Selection
from objfs.volume.unpack import Unpack
from objfs.volume.visit import visited
from tests.volume.planted import Described, Grove, Plant, described
from tests.volume.restoring import ALL, DIRECTORY, FILE, SMALL, orchard, planted, quiet
from tests.volume.rigs import CHUNK, Cloud
from tests.volume.support import PASSPHRASE, TrioClock

LIST = Acl(6, 4, 0, mask=6, users=((1001, 6), (2002, 4)), groups=((3003, 6),))
DEFAULT = Acl(7, 5, 5, mask=7, users=((1001, 7),))
NAMED = os.geteuid() == 0


def garden(grove: Grove) -> None:
    """The orchard, and what only an archive has trouble with."""
    orchard(grove)
    long = b"n" * 200
    grove.plant(long, Plant(DIRECTORY, xattrs={acl.DEFAULT: acl.encode(DEFAULT)}, mode=0o755))
    grove.plant(long + b"/" + long, Plant(FILE, LIST.mode, xattrs={acl.ACCESS: acl.encode(LIST)}))
    grove.plant(b"far", Plant(stat.S_IFLNK, 0o777, target=b"t" * 300))
    grove.plant("grün".encode(), Plant(FILE, xattrs={b"user.a=b%": b"=\n\0\xff"}, parts={0: b"g"}))
    if NAMED:
        grove.plant(b"owned", Plant(FILE, uid=5_000_000, gid=6_000_000))


class Grown:
    """The garden in its buckets, its archive, and what unpacking it must show."""

    def __init__(self, root: Path) -> None:
        self.cloud: Cloud
        self.home: VolumeHome
        self.cloud, self.home, expected = trio.run(planted, root, garden, SMALL)
        self.expected = {path: row for path, row in expected.items() if row[0] != stat.S_IFSOCK}
        self.archive, self.done = trio.run(exported, self.cloud, self.home)


async def exported(cloud: Cloud, home: VolumeHome, selection: Selection = ALL) -> tuple[bytes, Restored]:
    stream = io.BytesIO()
    async with visited(
        cloud.buckets(home), PASSPHRASE, cloud.tmp_path, TrioClock(), cloud.notes.append
    ) as visit:
        done = await Export(visit.newest(), selection, stream.write, quiet).run()
    return stream.getvalue(), done


def unpacked(archive: bytes, directory: Path) -> Restored:
    with closing(Destination(directory, resume=True, mode=0o755)) as destination:
        work = Unpack(io.BytesIO(archive), destination, quiet)
        try:
            work.run()
        finally:
            destination.complete()
            work.finish()
    return work.done


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    return Grown(tmp_path_factory.mktemp("garden"))


def test_gnu_tar_unpacks_the_tree(grown: Grown, tmp_path: Path) -> None:
    words = ["tar", "-x", "-p", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-f", "-"]
    done = subprocess.run(words, input=grown.archive, cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert described(tmp_path) == grown.expected
    assert (tmp_path / "hole").stat().st_blocks == 0
    assert len(grown.archive) < 20 * CHUNK, "holes are not written out"


def test_objfs_unpacks_the_tree(grown: Grown, tmp_path: Path) -> None:
    done = unpacked(grown.archive, tmp_path / "out")
    assert described(tmp_path / "out") == grown.expected
    names = (done.done.files, done.done.directories, done.done.links, done.done.others)
    wanted = grown.done.done
    assert names == (wanted.files, wanted.directories, wanted.links, wanted.others)
    assert done.exit_code is ExitCode.OK
    assert (tmp_path / "out" / "hole").stat().st_blocks == 0


def test_what_gnu_tar_packs_objfs_unpacks(grown: Grown, tmp_path: Path) -> None:
    unpacked(grown.archive, tmp_path / "in")
    words = ["tar", "-c", "--format=posix", "--xattrs", "--acls", "--sparse", "-C", f"{tmp_path}/in", "."]
    archive = subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout
    unpacked(archive, tmp_path / "out")
    assert described(tmp_path / "out") == grown.expected


def test_sockets_are_left_out_and_said(grown: Grown) -> None:
    assert grown.done.remarks == {SOCKETS: 1}
    assert "socket" not in _names(grown.archive)
    assert grown.done.exit_code is ExitCode.OK


async def test_paths_alone_keep_their_place(grown: Grown, tmp_path: Path) -> None:
    archive, _ = await exported(grown.cloud, grown.home, Selection([b"d"], exclude=[b"d/0"]))
    names = sorted(name.encode("utf-8", "surrogateescape") for name in _names(archive))
    assert names == [b"d", b"d/empty", b"d/second", b"d/\xff\n odd"]


def _names(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive), encoding="utf-8", errors="surrogateescape") as opened:
        return opened.getnames()


async def _damage(grown: Grown, root: Path, name: bytes) -> tuple[Cloud, VolumeHome]:
    """A copy of the volume of which two shards of each segment of a file are gone."""
    cloud, home = await grown.cloud.copied(root, grown.home)
    async with visited(
        cloud.buckets(home), PASSPHRASE, cloud.tmp_path, TrioClock(), cloud.notes.append
    ) as visit:
        parts = list(Parts(visit.table, CHUNK).of(visit.table.lookup(ROOT, name)))
    for uuid in {part.segment.uuid for part in parts}:
        for bucket in map(cloud.memory.open, cloud.names):
            held = {info.key for info in await bucket.list("segment/")}
            for shard in held & {shard_name(uuid, 0), shard_name(uuid, 2)}:
                await bucket.delete(shard)
    return cloud, home


async def test_a_file_that_cannot_be_read_is_left_out_with_its_other_names(
    grown: Grown, tmp_path: Path
) -> None:
    cloud, home = await _damage(grown, tmp_path, b"big")
    archive, done = await exported(cloud, home)
    assert done.exit_code is ExitCode.DAMAGE_FOUND
    assert {b"big", b"d/second"} <= done.unreadable.keys()
    unpacked(archive, tmp_path / "out")
    expected = {path: row for path, row in grown.expected.items() if path not in done.unreadable}
    assert described(tmp_path / "out") == expected


async def test_an_archive_ends_in_a_large_file_that_cannot_be_read_further(
    grown: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_less(store: SegmentStore, parts: Sequence[Part]) -> list[bytes | Unread]:
        found = await read(store, parts)
        late = [part.length == CHUNK and part.offset >= 2 * CHUNK for part in parts]
        return [Unread("gone") if fails else data for fails, data in zip(late, found, strict=True)]

    monkeypatch.setattr(export_module, "read", read_less)
    monkeypatch.setattr(export_module, "READ_BYTES", CHUNK // 4)  # each chunk is a batch
    with pytest.RaisesGroup(NotEnoughShards):
        await exported(grown.cloud, grown.home)


# --- archives of others --------------------------------------------------------------------


def packed(members: Sequence[tuple[str, bytes | None, Mapping[str, object]]]) -> bytes:
    """An archive of members: name, content (None: what the fields say), fields of TarInfo."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content, fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content or b""))
    return stream.getvalue()


LINK, HARD, DIR = (
    {"type": tarfile.SYMTYPE},
    {"type": tarfile.LNKTYPE},
    {"type": tarfile.DIRTYPE, "mode": 0o755},
)


def test_nothing_leads_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    archive = packed(
        [
            ("../up", b"1", {}),
            ("a/../../up", b"2", {}),
            (str(outside / "absolute"), b"3", {}),
            ("way", None, {**LINK, "linkname": str(outside)}),
            ("way/through", b"4", {}),
            ("taken", None, {**HARD, "linkname": "../secret"}),
            (os.fsdecode(DRAFTS) + "/import", b"5", {}),
            ("good", b"6", {}),
        ]
    )
    done = unpacked(archive, tmp_path / "out")
    assert list(outside.iterdir()) == []
    assert not (tmp_path / "up").exists()
    assert (tmp_path / "out" / "good").read_bytes() == b"6"
    below = tmp_path / "out" / str(outside / "absolute").lstrip("/")
    assert below.read_bytes() == b"3", "as tar does, an absolute name is taken from the directory"
    refused = {b"../up", b"a/../../up", b"way/through", b"taken", DRAFTS + b"/import"}
    assert (set(done.refused), done.exit_code) == (refused, ExitCode.FAILURE)


def test_a_member_that_no_file_can_be_is_refused_and_the_rest_comes(tmp_path: Path) -> None:
    archive = packed(
        [
            ("owner", b"1", {"uid": -7}),
            ("zero", None, {**LINK, "pax_headers": {"linkpath": "a\0b"}}),
            ("attribute", b"2", {"pax_headers": {"SCHILY.xattr.user.a\0b": "x"}}),
            ("list", b"3", {"pax_headers": {"SCHILY.acl.access": "user::rw-,user:99999999999:r"}}),
            ("directory", None, {**DIR, "pax_headers": {"mtime": "1e40"}}),
            ("good", b"4", {}),
        ]
    )
    done = unpacked(archive, tmp_path / "out")
    assert (tmp_path / "out" / "good").read_bytes() == b"4"
    assert set(done.refused) >= {b"zero", b"attribute", b"list", b"directory"}
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"owner", "directory", "good"}


def test_what_is_there_is_replaced_and_not_written_into(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "elsewhere").write_bytes(b"mine")
    (out / "name").symlink_to(tmp_path / "elsewhere")
    (out / "kept").mkdir()
    (out / "kept" / "inside").write_bytes(b"inside")
    unpacked(packed([("name", b"new", {}), ("kept", None, DIR)]), out)
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"
    assert (out / "name").read_bytes() == b"new"
    assert (out / "kept" / "inside").read_bytes() == b"inside"


@pytest.mark.parametrize("left", [700, 1024, 1536, 2048 + 100])
def test_an_archive_that_is_cut_off_is_not_taken_for_whole(tmp_path: Path, left: int) -> None:
    archive = packed([("one", b"1" * 400, {}), ("two", b"2" * 400, {})])
    with pytest.raises(UsageError, match="cannot be read to its end"):
        unpacked(archive[:left], tmp_path / "out")
    assert not (tmp_path / "out" / os.fsdecode(DRAFTS)).exists()


def test_lists_have_one_text_and_several_spellings() -> None:
    assert from_text(to_text(LIST)) == LIST
    assert from_text("user::rw-\nuser:x:r--:1001\ngroup::r--\nmask::r--\nother::---\n") == Acl(
        6, 4, 0, mask=4, users=((1001, 4),)
    )
    assert from_text("u::rwx,g::rx,o:r") == Acl(7, 5, 4)
    for wrong in ("", "user::rwx", "someone::rwx,group::r,other::r", "user:nobody-here:r,group::r,other::r"):
        with pytest.raises(InvalidArgument):
            from_text(wrong)


def test_times_before_the_epoch_and_owners_beyond_the_old_header(grown: Grown, tmp_path: Path) -> None:
    header = {"mtime": -1.5, "uid": 5_000_000, "gid": 7}
    unpacked(packed([("old", b"", header)]), tmp_path / "out")
    assert (tmp_path / "out" / "old").stat().st_mtime_ns == -1_500_000_000
    expected: Described = grown.expected
    assert not NAMED or expected[b"owned"][2:4] == (5_000_000, 6_000_000)
