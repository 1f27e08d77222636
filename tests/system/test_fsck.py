"""``objfs fsck`` as a person runs it: beside a mount, after it, on another machine; its lines and codes."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from objfs.errors import ExitCode
from tests.system.harness import VOLUME, Station, have_fuse, urls

needs_fuse = pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")
CONTENT = os.urandom(3 << 20)


def largest(place: Path) -> Path:
    """The largest shard in a bucket."""
    return max(place.glob("segment/*/*"), key=lambda path: path.stat().st_size)


def test_a_new_volume_is_clean_and_needs_no_mount(station: Station) -> None:
    said = station.run("fsck", VOLUME).stdout.splitlines()
    assert len(said) == 1
    assert said[0].startswith("clean: nothing to say (")
    document = json.loads(station.run("fsck", VOLUME, "--json", "--data").stdout)
    assert (document["verdict"], document["exit_code"], document["findings"]) == ("ok", 0, [])


def test_damage_is_told_line_by_line_mended_and_gone(station: Station, places: list[Path]) -> None:
    # A label is put back where shards prove which bucket it is: of a small segment one bucket has none.
    proven = next(place for place in (places[2], places[0]) if any(place.glob("segment/**/*")))
    (places[1] / "header").unlink()
    (proven / "label").write_bytes(b"?")
    found = station.run("fsck", VOLUME, code=ExitCode.DAMAGE_FOUND).stdout
    assert f"damage  header: header in file://{places[1]}: is not there" in found
    document = json.loads(station.run("fsck", VOLUME, "--json", code=ExitCode.DAMAGE_FOUND).stdout)
    assert {one["rule"] for one in document["findings"]} >= {"header", "label"}
    mended = station.run("fsck", VOLUME, "--repair", code=ExitCode.DAMAGE_HEALED).stdout
    assert "done    header is put into" in mended
    assert mended.splitlines()[-1].startswith("mended: ")
    station.run("fsck", VOLUME)


def test_a_bucket_that_is_away_is_another_code(station: Station, places: list[Path]) -> None:
    places[0].rename(places[0].with_name("away"))
    done = station.run("fsck", VOLUME, code=ExitCode.DEGRADED)
    assert "unseen  bucket: its objects" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_wrong_secret_looks_at_nothing(station: Station, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("not it")
    station.run("fsck", VOLUME, "--passphrase-file", tmp_path / "wrong", code=ExitCode.WRONG_PASSPHRASE)
    station.run("fsck", "nothing", code=ExitCode.NO_SUCH_VOLUME)


@pytest.mark.mount
@needs_fuse
def test_beside_a_mount_and_after_it(station: Station, places: list[Path], directory: Path) -> None:
    station.mount(VOLUME, directory)
    (directory / "file").write_bytes(CONTENT)
    (directory / "other").write_bytes(b"small")
    station.run("flush", directory)
    assert station.run("fsck", directory).stdout.startswith("clean: ")
    shard = largest(places[0])
    kept = shard.read_bytes()
    shard.write_bytes(kept[:5000] + bytes([kept[5000] ^ 1]) + kept[5001:])
    station.run("fsck", VOLUME)
    assert "shard-damaged" in station.run("fsck", VOLUME, "--data", code=ExitCode.DAMAGE_FOUND).stdout
    shard.unlink()
    document = json.loads(station.run("fsck", VOLUME, "--json", code=ExitCode.DAMAGE_FOUND).stdout)
    (finding,) = document["findings"]
    assert (finding["rule"], finding["bucket"]) == ("shard-missing", f"file://{places[0]}")
    assert finding["object"] == str(shard.relative_to(places[0]))
    station.run("fsck", VOLUME, "--repair", code=ExitCode.USAGE)
    assert (directory / "file").read_bytes() == CONTENT
    station.umount(directory)
    station.run("fsck", VOLUME, "--repair", code=ExitCode.DAMAGE_HEALED)
    assert shard.read_bytes() == kept
    station.mount(VOLUME, directory)
    assert (directory / "file").read_bytes() == CONTENT
    station.umount(directory)
    station.run("fsck", VOLUME, "--data")


@pytest.mark.mount
@needs_fuse
def test_what_lost_its_name_is_found_by_its_inode_on_every_machine(
    station: Station, places: list[Path], directory: Path, tmp_path: Path
) -> None:
    station.mount(VOLUME, directory)
    (directory / "file").write_bytes(CONTENT)
    inode = (directory / "file").stat().st_ino
    station.umount(directory)
    (station.home / VOLUME / "clean").unlink()
    with closing(sqlite3.connect(station.home / VOLUME / "meta.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM entry WHERE name = x'66696c65'")
    mended = station.run("fsck", VOLUME, "--repair", code=ExitCode.DAMAGE_HEALED).stdout
    assert f"inode {inode} had no name: it is /lost+found/#{inode} now" in mended
    with Station(tmp_path / "other") as other:
        other.attach(VOLUME, urls(places))
        other.run("fsck", VOLUME, "--data")
        other.mount(VOLUME, directory, "--read-only")
        assert (directory / "lost+found" / f"#{inode}").read_bytes() == CONTENT
        other.umount(directory)


@pytest.mark.mount
@needs_fuse
def test_without_any_checkpoint_files_come_back_by_their_inodes(
    station: Station, places: list[Path], directory: Path, tmp_path: Path
) -> None:
    station.mount(VOLUME, directory)
    (directory / "file").write_bytes(CONTENT)
    inode = (directory / "file").stat().st_ino
    station.umount(directory)
    for place in places:
        for manifest in place.glob("manifest/*"):
            manifest.unlink()
    with Station(tmp_path / "other") as other:
        other.attach(VOLUME, urls(places))
        other.run("recover", VOLUME, code=ExitCode.USAGE)
        said = other.run("recover", VOLUME, "--scan").stdout
        assert f"#{inode}" in said
        assert "nothing was written" in said
        other.run("recover", VOLUME, "--scan", tmp_path / "out")
        assert (tmp_path / "out" / f"#{inode}").read_bytes() == CONTENT
        document = json.loads(other.run("recover", VOLUME, "--scan", "--publish", "--json").stdout)
        assert document["published"] == 1
        other.mount(VOLUME, directory)
        assert (directory / "lost+found" / f"#{inode}").read_bytes() == CONTENT
        other.umount(directory)
        other.run("fsck", VOLUME, "--data")
        other.run("recover", VOLUME, "--scan", "--publish", code=ExitCode.UNCLEAN)
