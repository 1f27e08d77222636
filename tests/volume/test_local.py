"""The state directory: names, volume.toml, settings, lock, clean mark, salvage."""

from __future__ import annotations

import base64
import json
import shutil
import stat
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from objfs.durable import sync_directory
from objfs.errors import BadSetting, Corrupt, HeldElsewhere, NoSuchVolume, UsageError, VolumeExists
from objfs.volume.config import BucketPlace, VolumeConfig, format_config, parse_config
from objfs.volume.local import VolumeHome, read_json, replace_file, write_json
from objfs.volume.progress import read_delta_pages
from objfs.volume.settings import GIB, SETTINGS, VolumeSettings
from tests.doubles.disk import certain, kept
from tests.doubles.journal import Journal
from tests.doubles.recorder import Recorder

CONFIG = VolumeConfig(
    b"v" * 16,
    (
        BucketPlace(b"a" * 16, "s3://one/x?region=eu", {"profile": 'we"ird\\ \x7f\n'}),
        BucketPlace(b"b" * 16, "file:///srv/ö"),
    ),
    VolumeSettings(cache_size=5 * GIB, checkpoint_interval=2.5, fsync="bucket"),
)
HEAD = f'format = 1\nvolume = "{"76" * 16}"\n'


@pytest.mark.parametrize("name", ["", "A", "-a", ".a", "a/b", "a b", "a" * 65, "ä", "a\n"])
def test_bad_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        VolumeHome(tmp_path, name)


def test_config_round_trip_and_mode(tmp_path: Path) -> None:
    home = VolumeHome(tmp_path, "photos.2026_a-b")
    with pytest.raises(NoSuchVolume):
        home.read_config()
    home.create()
    home.write_config(CONFIG)
    assert home.read_config() == CONFIG
    assert stat.S_IMODE(home.config_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    with pytest.raises(VolumeExists):
        home.create()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (HEAD + "colour = 1", "colour"),
        pytest.param(HEAD + "colour = " + "1" * 5000, "4300 digits", id="a number of 5,000 digits"),
        (HEAD + "[settings]\ncahce_size = 1", "settings.cahce_size"),
        (HEAD + "[settings]\ncache_size = 'ten'", "settings.cache_size"),
        (HEAD + "[settings]\ncache_size = '10 XB'", "settings.cache_size"),
        (HEAD + "[settings]\nconnections = 0", "settings.connections"),
        (HEAD + "[settings]\nconnections = 1.5", "settings.connections"),
        (HEAD + "[settings]\nretries = true", "settings.retries"),
        (HEAD + "[settings]\nfsync = 'never'", "settings.fsync"),
        (HEAD + "[settings]\ncheckpoint_interval = nan", "settings.checkpoint_interval"),
        (HEAD + f"[bucket.{'61' * 16}]\nurl = 'mem://x'\nurll = 1", f"bucket.{'61' * 16}.urll"),
        (HEAD + f"[bucket.{'61' * 16}]", f"bucket.{'61' * 16}.url"),
        (HEAD + f"[bucket.{'61' * 16}]\nurl='x'\n[bucket.{'61' * 16}.options]\na=1", "options.a"),
        (HEAD + "[bucket.zz]\nurl = 'x'", "bucket.zz"),
        (HEAD + "bucket = 3", "bucket"),
        ("format = 2\n", "format"),
        ("format = 1\nvolume = 'x'", "volume"),
        ("format = ", "vol.toml"),
        ("format = " + "[" * 5000, "vol.toml"),
    ],
)
def test_what_is_wrong_is_named_in_full(text: str, named: str) -> None:
    with pytest.raises(BadSetting, match=named.replace(".", r"\.")):
        parse_config(text, "vol.toml")


def test_a_configuration_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    home = VolumeHome(tmp_path, "v")
    home.create()
    home.config_path.write_bytes(b"format = 1 # \xe9\n")
    with pytest.raises(BadSetting, match=r"volume\.toml: is not UTF-8"):
        home.read_config()


def test_page_numbers_that_declare_an_absurd_length_are_read_elsewhere(tmp_path: Path) -> None:
    """zstd allocates by its header: 2 TiB here."""
    home = VolumeHome(tmp_path, "v")
    home.create()
    packed = base64.b64encode(bytes.fromhex("28b52ffde0") + (2**41).to_bytes(8, "little")).decode()
    home.deltas_path.write_text(json.dumps({"00" * 16: packed}))
    assert read_delta_pages(home) == {}


def test_sizes_may_be_texts() -> None:
    settings = VolumeSettings.read({"cache_size": "1.5 GiB", "bandwidth": "10MB", "checkpoint_interval": "5"})
    assert (settings.cache_size, settings.bandwidth) == (3 * GIB // 2, 10_000_000)
    assert settings.checkpoint_interval == 5.0


def test_table_and_record_agree() -> None:
    assert [row.name for row in SETTINGS] == [item.name for item in fields(VolumeSettings)]
    assert VolumeSettings.read({row.name: row.default for row in SETTINGS}) == VolumeSettings()
    assert VolumeSettings().changed() == {}
    assert all(row.meaning.endswith(".") and row.range for row in SETTINGS)


def test_defaults_are_not_written() -> None:
    assert "cache_size" not in format_config(VolumeConfig(b"v" * 16, ()))


def test_one_process_holds_the_lock(tmp_path: Path) -> None:
    home = VolumeHome(tmp_path, "v")
    home.create()
    lock = home.lock()
    with pytest.raises(HeldElsewhere, match="process"):
        home.lock()
    lock.release()
    lock.release()
    home.lock().release()


def test_a_copy_of_a_state_directory_in_use_is_refused(tmp_path: Path) -> None:
    home = VolumeHome(tmp_path / "one", "v")
    home.create()
    home.new_state(b"v" * 16)
    shutil.copytree(home.path, tmp_path / "two" / "v")
    copy = VolumeHome(tmp_path / "two", "v")
    lock = home.lock()
    with pytest.raises(HeldElsewhere, match=f"copy of {copy.path}"):
        copy.lock()
    lock.release()
    copy.lock().release()


def test_a_copy_of_one_that_is_in_use_for_the_first_time_is_refused(tmp_path: Path) -> None:
    """The first use after ``attach`` drew the id after the lock, and never claimed it."""
    home, copy = VolumeHome(tmp_path / "one", "v"), VolumeHome(tmp_path / "two", "v")
    home.create()
    home.write_config(VolumeConfig(b"v" * 16, ()))
    lock = home.lock()
    shutil.copytree(home.path, copy.path)
    with pytest.raises(HeldElsewhere, match="copy of"):
        copy.lock()
    lock.release()
    drawn = home.read_state()
    assert drawn is not None
    assert drawn.volume == b"v" * 16
    home.lock().release()
    assert home.read_state() == drawn


def test_state_is_drawn_once_and_read_back(tmp_path: Path) -> None:
    home = VolumeHome(tmp_path, "v")
    home.create()
    assert home.read_state() is None
    state = home.new_state(b"v" * 16)
    assert home.read_state() == state
    assert home.new_state(b"v" * 16).state_id != state.state_id
    home.state_path.write_bytes(b"{}")
    with pytest.raises(Corrupt, match="state_id"):
        home.read_state()


def test_the_clean_mark_counts_once(tmp_path: Path) -> None:
    home = VolumeHome(tmp_path, "v")
    home.create()
    assert not home.take_clean()
    home.mark_clean()
    assert home.take_clean()
    assert not home.take_clean()


def test_setting_aside_keeps_the_configuration(tmp_path: Path) -> None:
    home = VolumeHome(tmp_path, "v")
    home.create()
    home.write_config(CONFIG)
    home.new_state(b"v" * 16)
    home.cache_path.mkdir()
    (home.cache_path / "dirty").write_bytes(b"precious")
    state = home.read_state()
    aside = home.set_aside("1")
    assert (aside / "cache" / "dirty").read_bytes() == b"precious"
    assert home.read_config() == CONFIG
    assert home.read_state() == state
    assert not home.cache_path.exists()
    home.cache_path.mkdir()
    home.remove_contents()
    assert not home.cache_path.exists()
    assert aside.is_dir()


def test_two_that_are_set_aside_at_once_have_places_of_their_own(tmp_path: Path) -> None:
    """It ended in FileExistsError where both came within one second."""
    home = VolumeHome(tmp_path, "v")
    home.create()
    aside = []
    for content in (b"first", b"second"):
        home.database_path.write_bytes(content)
        aside.append(home.set_aside("1"))
    assert [(path / "meta.db").read_bytes() for path in aside] == [b"first", b"second"]


def test_the_mark_of_a_mirror_goes_with_what_it_marks(tmp_path: Path) -> None:
    home = VolumeHome(tmp_path, "v")
    home.create()
    home.mark_mirror()
    home.mark_mirror()
    assert home.is_mirror()
    home.clear_mirror()
    assert not home.is_mirror()
    home.mark_mirror()
    home.remove_contents()
    assert not home.is_mirror()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Recorder]:
    """Everything below ``tmp_path / "disk"`` is recorded."""
    (tmp_path / "disk").mkdir()
    recorder = Recorder(tmp_path / "disk", Journal())
    with recorder.installed():
        yield recorder


def certain_names(disk: Recorder) -> set[str]:
    """What no power cut takes."""
    return {path for path, _ in certain(disk.journal.records).walk()}


def test_i1_a_new_state_directory_is_itself_durable(disk: Recorder, tmp_path: Path) -> None:
    home = VolumeHome(tmp_path / "disk" / "var" / "objfs", "vol")
    home.create()
    home.new_state(bytes(16))
    assert "var/objfs/vol/state.json" in certain_names(disk)


@pytest.fixture
def full(disk: Recorder, tmp_path: Path) -> VolumeHome:
    """A state directory with a table and a file in its cache, all of it durable."""
    home = VolumeHome(tmp_path / "disk", "vol")
    home.create()
    (home.cache_path / "00").mkdir(parents=True)
    replace_file(home.database_path, b"rows")
    replace_file(home.cache_path / "00" / "file", b"bytes")
    sync_directory(home.cache_path)
    return home


SET_ASIDE = {"vol/salvage-1/meta.db", "vol/salvage-1/cache/00/file"}


def test_i1_what_was_set_aside_survives_a_power_cut(disk: Recorder, full: VolumeHome) -> None:
    """A move between directories is two changes: both must be on the disk before anything goes on."""
    full.set_aside("1")
    assert certain_names(disk) >= SET_ASIDE


def test_setting_aside_goes_on_after_a_crash_anywhere(
    disk: Recorder, full: VolumeHome, tmp_path: Path
) -> None:
    """Nothing that may hold the only copy of something stays where a recovery would remove it."""
    start = len(disk.journal.records)
    full.set_aside("1")
    records = disk.journal.records
    for end in range(start, len(records) + 1):
        tree = kept(records[:end])
        (tmp_path / f"after{end}").mkdir()
        tree.write_out(tmp_path / f"after{end}")
        again = VolumeHome(tmp_path / f"after{end}", "vol")
        if again.half_set_aside or again.database_path.exists():
            again.set_aside("1")
        found = {str(path.relative_to(tmp_path / f"after{end}")) for path in again.path.rglob("*")}
        assert found >= SET_ASIDE


def test_json_files_are_absent_or_whole(tmp_path: Path) -> None:
    assert read_json(tmp_path / "x") is None
    write_json(tmp_path / "x", {"a": 1})
    found = read_json(tmp_path / "x")
    assert found is not None
    assert found.integer("a") == 1
    (tmp_path / "x").write_bytes(b"{")
    with pytest.raises(Corrupt):
        read_json(tmp_path / "x")


def test_the_directory_of_a_snapshot_is_beside_that_of_its_volume(tmp_path: Path) -> None:
    volume = VolumeHome(tmp_path, "v")
    plain = volume.of_snapshot("monday")
    assert (plain.path, plain.shows_snapshot, volume.shows_snapshot) == (tmp_path / "v@monday", True, False)
    assert volume.of_snapshot("a b/é").name == "v@a%20b%2F%C3%A9"
    names = {volume.of_snapshot(name).name for name in ("x" * 255, "x" * 254, "é" * 127)}
    assert len(names) == 3
    assert max(map(len, names)) < 60
    with pytest.raises(UsageError, match="is a snapshot"):
        plain.create()
