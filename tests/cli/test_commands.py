"""Commands that need no mount, as a person types them: mkfs, attach, key, bucket, status."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from objfs.cli.mkfs import parse_code
from objfs.cli.scrub import parse_order
from objfs.errors import UsageError
from objfs.model import Code
from objfs.volume.scrub import ScrubOrder
from tests.system.harness import Station, urls

VOLUME = "vol"


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "buckets" / name for name in "abc"]
    for place in made:
        place.mkdir(parents=True)
    return made


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    with Station(tmp_path / "machine") as made:
        yield made


def test_mkfs_tells_the_tolerance_and_a_recovery_key(station: Station, places: list[Path]) -> None:
    done = station.run("mkfs", VOLUME, *[word for url in urls(places) for word in ("--bucket", url)])
    assert "2+1 over 3 buckets bears the loss of any one bucket" in done.stderr
    printed = done.stdout.splitlines()[-1].strip()
    (station.root / "recovery").write_text(printed)
    listed = station.run("key", "list", VOLUME, "--recovery-key-file", station.root / "recovery", "--json")
    assert [slot["kind"] for slot in json.loads(listed.stdout)] == ["passphrase", "recovery"]


def test_mkfs_says_where_fewer_than_a_majority_could_be_left(
    station: Station, places: list[Path], tmp_path: Path
) -> None:
    """I5: two buckets bear one loss, and then nobody has a majority; a witness mends that."""
    words = [word for url in urls(places[:2]) for word in ("--bucket", url)]
    said = station.run("mkfs", VOLUME, *words, "--code", "1+1").stderr
    assert "a new mount that writes needs 2 of 2 voting buckets, or --force" in said
    assert "one more --witness bucket would mend that" in said
    more = [tmp_path / "more" / name for name in "xyz"]
    for place in more:
        place.mkdir(parents=True)
    words = [word for url in urls(more[:2]) for word in ("--bucket", url)]
    said = station.run("mkfs", "witnessed", *words, "--code", "1+1", "--witness", urls(more)[2]).stderr
    assert "bears the loss of any one bucket" in said
    assert "--force" not in said


def test_the_default_code_bears_one_loss() -> None:
    assert [parse_code(None, count) for count in (1, 2, 3, 6)] == [
        Code(1, 0), Code(1, 1), Code(2, 1), Code(5, 1),
    ]  # fmt: skip
    assert parse_code("4+2", 3) == Code(4, 2)
    with pytest.raises(UsageError, match="K\\+M"):
        parse_code("two", 3)


def test_fewer_buckets_than_shards_only_where_they_are_meant(station: Station, places: list[Path]) -> None:
    """I3: two shards in one bucket bear less than the code says, and nobody should learn that from a loss."""
    words = [word for url in urls(places[:2]) for word in ("--bucket", url)]
    said = station.run("mkfs", VOLUME, *words, "--code", "2+1", code=2).stderr
    assert "2+1 over 2 buckets bears the loss of no bucket" in said
    assert "--fewer-buckets" in said
    said = station.run("mkfs", VOLUME, *words, "--code", "2+1", "--fewer-buckets").stderr
    assert "2+1 over 2 buckets bears the loss of no bucket" in said


def test_a_key_slot_comes_and_goes(station: Station, places: list[Path], tmp_path: Path) -> None:
    station.mkfs(VOLUME, urls(places))
    (tmp_path / "key").write_bytes(os.urandom(32))
    station.run("key", "add", VOLUME, "--label", "laptop", "--new-key-file", tmp_path / "key")
    listed = station.run("key", "list", VOLUME, "--key-file", tmp_path / "key").stdout
    assert "laptop" in listed
    station.run("key", "remove", VOLUME, "2")
    station.run("key", "list", VOLUME, "--key-file", tmp_path / "key", code=10)


def test_a_rotation_names_the_slots_that_it_cannot_renew(
    station: Station, places: list[Path], tmp_path: Path
) -> None:
    done = station.run("mkfs", VOLUME, *[word for url in urls(places) for word in ("--bucket", url)])
    (tmp_path / "recovery").write_text(done.stdout.splitlines()[-1].strip())
    said = station.run("key", "rotate", VOLUME, code=2).stderr
    assert "slot 1 (recovery)" in said
    assert "--drop-slots" in said
    said = station.run("key", "rotate", VOLUME, "--with-recovery-key-file", tmp_path / "recovery").stderr
    assert "sealed under key 2" in said
    assert "slot 0, 1" in said
    said = station.run("key", "rotate", VOLUME, "--drop-slots").stderr
    assert "sealed under key 3" in said
    assert "slot 1 (recovery) is gone" in said
    assert "objfs key add vol --recovery" in said
    station.run("key", "list", VOLUME, "--recovery-key-file", tmp_path / "recovery", code=10)
    assert "passphrase" in station.run("key", "list", VOLUME).stdout


def _known(station: Station) -> list[str]:
    listed = json.loads(station.run("bucket", "list", VOLUME, "--json").stdout)
    return sorted(item["url"] for item in listed)


def test_attach_by_one_bucket_finds_the_others(station: Station, places: list[Path], tmp_path: Path) -> None:
    station.mkfs(VOLUME, urls(places))
    with Station(tmp_path / "other") as other:
        said = other.run("attach", VOLUME, "--bucket", urls(places)[1]).stderr
        assert "3 buckets" in said
        assert "not found" not in said
        assert _known(other) == urls(places)
        other.run("attach", VOLUME, "--bucket", urls(places)[0], code=22)
        assert "not mounted" in other.run("status", VOLUME).stdout


def test_attach_by_one_bucket_then_add_those_that_were_moved(
    station: Station, places: list[Path], tmp_path: Path
) -> None:
    """One place is gone, at another there is a different bucket of the volume."""
    station.mkfs(VOLUME, urls(places))
    elsewhere = [tmp_path / "elsewhere" / name for name in "ac"]
    (tmp_path / "elsewhere").mkdir()
    places[0].rename(elsewhere[0])
    places[2].rename(elsewhere[1])
    shutil.copytree(places[1], places[2])
    with Station(tmp_path / "other") as other:
        said = other.run("attach", VOLUME, "--bucket", urls(places)[1]).stderr
        assert f"bucket 0 was at {urls(places)[0]}, which is not used" in said
        assert f"bucket 2 was at {urls(places)[2]}, which is not used: another bucket" in said
        assert "2 of its buckets were not found" in said
        added = [word for url in urls(elsewhere) for word in ("--bucket", url)]
        other.run("attach", VOLUME, "--add", *added)
        assert _known(other) == sorted([*urls(elsewhere), urls(places)[1]])


def test_the_newest_table_of_all_that_are_found_counts(
    station: Station, places: list[Path], tmp_path: Path
) -> None:
    """The bucket that is named was away while another was replaced, and names the old one."""
    station.mkfs(VOLUME, urls(places))
    new = tmp_path / "buckets" / "d"
    new.mkdir()
    away = places[1].rename(tmp_path / "away")
    station.run("bucket", "replace", VOLUME, "2", urls([new])[0])
    away.rename(places[1])
    with Station(tmp_path / "other") as other:
        said = other.run("attach", VOLUME, "--bucket", urls(places)[1]).stderr
        assert "not found" not in said
        assert _known(other) == urls([*places[:2], new])


def test_a_removed_passphrase_learns_nothing_where_a_newer_header_is_found(
    station: Station, places: list[Path], tmp_path: Path
) -> None:
    station.mkfs(VOLUME, urls(places))
    away = places[1].rename(tmp_path / "away")
    (tmp_path / "new").write_text("another one")
    station.run("key", "add", VOLUME, "--new-passphrase-file", tmp_path / "new")
    station.run("key", "remove", VOLUME, "0", "--passphrase-file", tmp_path / "new")
    away.rename(places[1])
    with Station(tmp_path / "other") as other:
        other.run("attach", VOLUME, "--bucket", urls(places)[1], code=10)
        assert not (other.home / VOLUME).exists()
        other.run("attach", VOLUME, "--bucket", urls(places)[0], "--passphrase-file", tmp_path / "new")
        assert _known(other) == urls(places)


def test_another_address_keeps_the_options(station: Station, places: list[Path], tmp_path: Path) -> None:
    station.mkfs(VOLUME, urls(places))
    config = station.home / VOLUME / "volume.toml"
    uuid = json.loads(station.run("bucket", "list", VOLUME, "--json").stdout)[0]["uuid"]
    config.write_text(f'{config.read_text()}\n[bucket.{uuid}.options]\nconnections = "3"\n')
    moved = places[0].rename(tmp_path / "buckets" / "moved")
    station.run("attach", VOLUME, "--add", "--bucket", urls([moved])[0])
    assert '"connections" = "3"' in config.read_text()
    assert urls([moved])[0] in _known(station)


def test_a_moved_bucket_is_found_once_the_table_was_changed(
    station: Station, places: list[Path], tmp_path: Path
) -> None:
    station.mkfs(VOLUME, urls(places))
    moved = places[0].rename(tmp_path / "buckets" / "moved")
    station.run("attach", VOLUME, "--add", "--bucket", urls([moved])[0])
    station.run("bucket", "label", VOLUME, "0", "--domain", "attic")
    with Station(tmp_path / "other") as other:
        other.run("attach", VOLUME, "--bucket", urls(places)[1])
        assert _known(other) == sorted(urls([moved, *places[1:]]))


def test_a_bucket_that_refuses_writing(station: Station) -> None:
    """sysfs lets not even root make files."""
    if not Path("/sys/kernel").is_dir():
        pytest.skip("no /sys")
    said = station.run("mkfs", VOLUME, "--bucket", "file:///sys/kernel", "--code", "1+0", code=19).stderr
    assert "file:///sys/kernel" in said
    assert not (station.home / VOLUME / "volume.toml").exists()


def test_a_bucket_of_another_volume(station: Station, places: list[Path], tmp_path: Path) -> None:
    station.mkfs(VOLUME, urls(places))
    (tmp_path / "x").mkdir()
    station.mkfs("other", urls([tmp_path / "x"]), "1+0")
    station.run("attach", VOLUME, "--add", "--bucket", urls([tmp_path / "x"])[0], code=20)


def test_version_and_help(station: Station) -> None:
    assert station.run("version").stdout == station.run("--version").stdout.replace(", version", "")
    assert "umount" in station.run("--help").stdout
    station.run("nonsense", code=2)


def test_which_segments_a_scrub_reads_is_said_in_one_way() -> None:
    def order(everything: bool = False, sample: str | None = None, since: str | None = None) -> ScrubOrder:
        return parse_order(everything, sample, since, repair=False, rate="2MiB")

    assert order() == order(everything=True) == ScrubOrder("all", 100.0, 0, False, 2 << 20)
    assert (order(sample="5%").percent, order(sample="2.5").kind) == (5.0, "sample 2.5")
    assert time.time_ns() - order(since="36h").since_ns == pytest.approx(36 * 3600e9, rel=1e-3)
    for sample, since in (("0", None), ("101", None), ("some", None), (None, "yesterday"), ("5", "7d")):
        with pytest.raises(UsageError):
            order(sample=sample, since=since)
    with pytest.raises(UsageError):
        order(everything=True, since="7d")
