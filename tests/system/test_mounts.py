"""The life of a mount as a person meets it: start, stop, crash, refusal, and what each says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.harness import REPOSITORY, VOLUME, Station, away, have_fuse, urls, wait_for_end

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may remount")


def pid_of(station: Station, word: str | Path) -> int:
    return int(station.status(word)["pid"])


def test_what_is_written_is_there_after_a_remount(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory)
    (directory / "file").write_bytes(b"x" * 3_000_000)
    station.umount(directory)
    assert list(directory.iterdir()) == []
    station.mount(VOLUME, directory)
    assert (directory / "file").read_bytes() == b"x" * 3_000_000


def test_proc_mounts_shows_the_name_and_the_type(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory)
    lines = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    assert [VOLUME, str(directory), "fuse.objfs"] in [line[:3] for line in lines]


def test_status_says_safe_after_a_flush(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory)
    (directory / "file").write_bytes(os.urandom(2_000_000))
    station.run("flush", directory)
    status = station.status(directory)
    assert status["safe"]
    assert status["state"] == "mounted"
    assert status["redundancy"]["sentence"] == "survives the loss of any one of 3 buckets"
    assert sum(bucket["requests"]["put"] for bucket in status["buckets"]) > 0
    assert "safe: everything is recoverable" in station.run("status", VOLUME).stdout


def test_a_crash_loses_nothing_that_was_written(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory)
    (directory / "file").write_bytes(b"y" * 1_500_000)
    pid = pid_of(station, directory)
    os.kill(pid, signal.SIGKILL)
    assert wait_for_end(pid, 10)
    with pytest.raises(OSError, match=r"not connected|Software caused"):
        (directory / "file").read_bytes()
    subprocess.run(["fusermount3", "-u", str(directory)], check=True)
    station.mount(VOLUME, directory)
    assert (directory / "file").read_bytes() == b"y" * 1_500_000


def test_taken_away_from_outside_it_drains_and_the_next_mount_joins(
    station: Station, directory: Path
) -> None:
    station.mount(VOLUME, directory)
    (directory / "file").write_bytes(os.urandom(30_000_000))
    pid = pid_of(station, directory)
    subprocess.run(["fusermount3", "-u", str(directory)], check=True)
    station.mount(VOLUME, directory)
    assert (directory / "file").stat().st_size == 30_000_000
    assert not wait_for_end(pid_of(station, directory), 0)
    assert wait_for_end(pid, 1)


def test_a_link_to_the_mount_and_a_name_with_spaces_mean_the_mount(
    station: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, link = tmp_path / "my photos, all", tmp_path / "link"
    link.symlink_to(directory.name)
    monkeypatch.chdir(tmp_path)
    station.mount(VOLUME, directory)
    (directory / "file").write_bytes(b"x")
    for word in (link, directory, Path(directory.name)):
        assert station.status(word)["directory"] == str(directory)
    station.run("info", link / "file")
    station.run("umount", link)
    assert not os.path.ismount(directory)


def test_a_termination_signal_drains(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory)
    (directory / "file").write_bytes(b"z" * 1_000_000)
    pid = pid_of(station, directory)
    os.kill(pid, signal.SIGTERM)
    assert wait_for_end(pid, 60)
    assert not os.path.ismount(directory)
    station.forget(VOLUME)
    station.attach(VOLUME, urls(sorted((station.root.parent / "buckets").iterdir())))
    station.mount(VOLUME, directory)
    assert (directory / "file").read_bytes() == b"z" * 1_000_000


def test_a_busy_mount_is_not_torn_away(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory)
    with (directory / "open").open("wb"):
        refused = station.run("umount", directory, code=21)
    assert "busy" in refused.stderr
    (directory / "open").write_bytes(b"still works")


def helper_of(program: str, station: Station) -> tuple[str, dict[str, str]]:
    """The script that mount(8) or umount(8) runs, and an environment in which it finds objfs."""
    console = station.root / "objfs"
    console.write_text('#!/bin/sh\nexec "$PYTHON" -m objfs "$@"\n')
    console.chmod(0o755)
    environment = {"OBJFS": str(console), "PYTHON": station.command()[0]}
    script = str(REPOSITORY / "contrib" / f"{program}.fuse.objfs")
    return script, station.full_environment() | environment


def test_the_helper_of_mount(station: Station, directory: Path) -> None:
    """What mount(8) runs for ``mount -t fuse.objfs vol DIR`` with an fstab's options."""
    script, environment = helper_of("mount", station)
    helper = [script, VOLUME, str(directory), "-o", "rw,nofail,user,noatime"]
    station.mounted.append(directory)
    subprocess.run(helper, check=True, env=environment, timeout=60)
    assert os.path.ismount(directory)


def remount(station: Station, directory: Path, options: str) -> subprocess.CompletedProcess[str]:
    """What mount(8) runs for ``mount -o remount,OPTIONS DIR``."""
    script, environment = helper_of("mount", station)
    arguments = [script, VOLUME, str(directory), "-o", f"{options},remount,user_id=0,group_id=0"]
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=60)


@needs_root
def test_remounted_read_only_a_mount_keeps_its_lease_and_can_write_again(
    station: Station, directory: Path
) -> None:
    station.mount(VOLUME, directory)
    with (directory / "file").open("wb"):
        assert remount(station, directory, "ro").returncode == 21, "busy: a file is open for writing"
    (directory / "file").write_bytes(b"before")
    assert remount(station, directory, "ro").returncode == 0
    with pytest.raises(OSError, match="Read-only"):
        (directory / "file").touch()
    atime = (directory / "file").stat().st_atime_ns
    assert (directory / "file").read_bytes() == b"before"
    assert (directory / "file").stat().st_atime_ns == atime
    status = station.status(directory)
    assert (status["read_only"], status["epoch"] > 0) == (True, True)
    assert "remounted read-only" in station.run("status", directory).stdout
    assert remount(station, directory, "rw").returncode == 0
    (directory / "file").write_bytes(b"after")
    assert not station.status(directory)["read_only"]


@needs_root
@pytest.mark.parametrize("mode", ["ro", "follow"])
def test_a_mount_that_holds_no_lease_is_not_made_writable(
    station: Station, directory: Path, mode: str
) -> None:
    """The kernel took it for a writing one, and every write failed."""
    station.mount(VOLUME, directory, "-o", mode)
    done = remount(station, directory, "rw")
    assert (done.returncode, "mount it for writing" in done.stderr) == (21, True)
    assert remount(station, directory, "ro,noexec").returncode == 0
    assert os.statvfs(directory).f_flag & (os.ST_RDONLY | os.ST_NOEXEC) == os.ST_RDONLY | os.ST_NOEXEC


def test_the_helper_of_umount_returns_when_all_is_in_the_buckets(
    station: Station, directory: Path, places: list[Path]
) -> None:
    """What umount(8) runs for ``umount DIR``: the machine may be lost the moment it returns."""
    script, environment = helper_of("umount", station)
    station.mount(VOLUME, directory)
    content = os.urandom(20_000_000)
    (directory / "file").write_bytes(content)
    pid = pid_of(station, directory)
    subprocess.run([script, str(directory), "-t", "fuse.objfs"], check=True, env=environment, timeout=60)
    assert wait_for_end(pid, 0)
    station.forget(VOLUME)
    station.attach(VOLUME, urls(places))
    station.mount(VOLUME, directory)
    assert (directory / "file").read_bytes() == content


def test_the_helper_of_umount_leaves_a_busy_mount_and_lets_go_of_it_when_lazy(
    station: Station, directory: Path
) -> None:
    script, environment = helper_of("umount", station)
    station.mount(VOLUME, directory)
    pid = pid_of(station, directory)
    with (directory / "open").open("wb") as file:
        refused = subprocess.run([script, str(directory)], capture_output=True, text=True, env=environment)
        assert (refused.returncode, "busy" in refused.stderr) == (21, True)
        file.write(b"still works")
        file.flush()
        lazy = subprocess.Popen([script, str(directory), "-l"], env=environment)
        while os.path.ismount(directory):
            assert lazy.poll() is None, "it waits for the program that has a file open"
    assert lazy.wait(60) == 0
    assert wait_for_end(pid, 0)


@pytest.mark.skipif(shutil.which("findmnt") is None, reason="no findmnt")
def test_the_helper_under_the_name_of_all_fuse_mounts_drains_ours_and_leaves_others_alone(
    station: Station, directory: Path, tmp_path: Path
) -> None:
    """umount(8) runs ``umount.fuse`` for an absolute path without options of user space."""
    script, environment = helper_of("umount", station)
    (tmp_path / "umount.fuse").symlink_to(script)
    station.mount(VOLUME, directory)
    pid = pid_of(station, directory)
    helper = tmp_path / "umount.fuse"
    other = subprocess.run([helper, str(tmp_path)], capture_output=True, text=True, env=environment)
    assert other.returncode != 0
    assert other.stderr.startswith("umount: ")
    subprocess.run([helper, str(directory)], check=True, env=environment, timeout=60)
    assert wait_for_end(pid, 0)


def test_the_helper_of_umount_unmounts_what_no_process_of_this_home_answers_for(
    station: Station, directory: Path, tmp_path: Path
) -> None:
    script, environment = helper_of("umount", station)
    station.mount(VOLUME, directory)
    pid = pid_of(station, directory)
    stranger = environment | {"OBJFS_HOME": str(tmp_path / "stranger")}
    done = subprocess.run([script, str(directory)], capture_output=True, text=True, env=stranger)
    assert (done.returncode, "unmounted without waiting" in done.stderr) == (0, True)
    assert not os.path.ismount(directory)
    assert wait_for_end(pid, 30), "it drains by itself"


def test_read_only_and_beside_a_writer(
    station: Station, directory: Path, tmp_path: Path, places: list[Path]
) -> None:
    station.mount(VOLUME, directory)
    (directory / "file").write_bytes(b"published")
    station.run("flush", directory)
    with Station(tmp_path / "other") as other:
        other.attach(VOLUME, urls(places)[:2])
        other.mount(VOLUME, tmp_path / "mnt2", "--read-only")
        assert (tmp_path / "mnt2" / "file").read_bytes() == b"published"
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "mnt2" / "new").touch()
        other.umount(tmp_path / "mnt2")


def test_one_directory_of_a_volume(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory)
    (directory / "a" / "b").mkdir(parents=True)
    (directory / "a" / "b" / "file").write_bytes(b"inside")
    station.umount(directory)
    station.mount(VOLUME, directory, "--subdir", "a/b")
    assert [path.name for path in directory.iterdir()] == ["file"]


# --- refusals: one line, and its own exit code ---------------------------------------------


def refused(station: Station, code: int, *arguments: str | Path) -> str:
    said = station.run(*arguments, code=code).stderr
    assert said.startswith("objfs: ")
    assert said.count("\n") == 1
    return said


def test_a_second_mount_here_is_refused(station: Station, directory: Path, tmp_path: Path) -> None:
    station.mount(VOLUME, directory)
    (tmp_path / "second").mkdir()
    assert str(directory) in refused(station, 12, "mount", VOLUME, tmp_path / "second")


def test_a_mount_on_another_machine_is_refused(
    station: Station, directory: Path, tmp_path: Path, places: list[Path]
) -> None:
    station.mount(VOLUME, directory)
    with Station(tmp_path / "other") as other:
        other.attach(VOLUME, urls(places))
        (tmp_path / "mnt2").mkdir()
        said = refused(other, 12, "mount", VOLUME, tmp_path / "mnt2")
    assert f"process {pid_of(station, directory)}" in said


def test_a_copy_of_the_state_directory_is_refused_from_the_first_mount_after_attach_on(
    tmp_path: Path, directory: Path, station: Station, places: list[Path]
) -> None:
    """The copy took the lease as its own, and the first mount lost it."""
    with Station(tmp_path / "other") as other, Station(tmp_path / "copied") as copied:
        other.attach(VOLUME, urls(places))
        other.mount(VOLUME, directory)
        left_out = shutil.ignore_patterns("control.sock")
        shutil.copytree(other.home / VOLUME, copied.home / VOLUME, ignore=left_out)
        (tmp_path / "second").mkdir()
        copied.mounted.append(tmp_path / "second")
        assert "copy of" in refused(copied, 12, "mount", VOLUME, tmp_path / "second")
        (directory / "file").write_bytes(b"still the writer")
        other.umount(directory)


def test_wrong_passphrase(station: Station, directory: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("not it")
    refused(station, 10, "mount", VOLUME, directory, "--passphrase-file", tmp_path / "wrong")


def test_a_mount_that_is_refused_leaves_a_clean_volume_clean_and_free(
    station: Station, directory: Path, tmp_path: Path, places: list[Path]
) -> None:
    station.mount(VOLUME, directory)
    station.umount(directory)
    assert "no directory" in refused(station, 2, "mount", VOLUME, directory, "--subdir", "nope")
    assert (station.home / VOLUME / "clean").exists(), "else the next mount compares the whole table"
    with Station(tmp_path / "other") as other:
        other.attach(VOLUME, urls(places))
        other.mount(VOLUME, tmp_path / "elsewhere")
        other.umount(tmp_path / "elsewhere")


def test_unknown_volume(station: Station, directory: Path) -> None:
    refused(station, 11, "mount", "absent", directory)


def test_malformed_url(station: Station) -> None:
    refused(station, 2, "mkfs", "other", "--bucket", "s3:///", "--code", "1+0")


def test_unknown_key_in_volume_toml(station: Station, directory: Path) -> None:
    config = station.home / VOLUME / "volume.toml"
    config.write_text(config.read_text().replace("[settings]", "[settings]\ncolour = 1"))
    assert "settings.colour" in refused(station, 23, "mount", VOLUME, directory)


def test_unknown_mount_option(station: Station, directory: Path) -> None:
    assert "colour" in refused(station, 23, "mount", VOLUME, directory, "-o", "colour")


def test_mount_point_missing_or_not_empty(station: Station, tmp_path: Path) -> None:
    refused(station, 21, "mount", VOLUME, tmp_path / "missing")
    assert "not empty" in refused(station, 21, "mount", VOLUME, tmp_path)


def test_a_name_or_bucket_that_is_taken(station: Station, tmp_path: Path, places: list[Path]) -> None:
    (tmp_path / "fresh").mkdir()
    refused(station, 22, "mkfs", VOLUME, "--bucket", f"file://{tmp_path / 'fresh'}", "--code", "1+0")
    refused(station, 22, "mkfs", "other", "--bucket", urls(places)[0], "--code", "1+0")


def test_nothing_runs_there(station: Station, directory: Path) -> None:
    refused(station, 24, "umount", directory)
    refused(station, 24, "flush", VOLUME)


# --- draining with buckets away ------------------------------------------------------------


def test_unmounted_it_waits_for_buckets_and_says_what_is_left(
    station: Station, directory: Path, places: list[Path]
) -> None:
    station.mount(VOLUME, directory)
    with away(places[:2]):
        (directory / "file").write_bytes(os.urandom(5_000_000))
        said = station.run("umount", directory, "--no-wait").stderr
        assert "draining" in said
        status = station.status(VOLUME)
        assert status["state"] == "unmounted"
        assert status["dirty_bytes"] >= 5_000_000
        assert "unmounted from" in station.run("status", VOLUME).stdout
        pid = int(status["pid"])
    assert wait_for_end(pid, 90)
    station.mount(VOLUME, directory)
    assert (directory / "file").stat().st_size == 5_000_000


@contextmanager
def interruptible() -> Iterator[None]:
    """What is started inside hears SIGINT, also where a shell runs the tests in the background, which ignores
    it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupted_umount_says_what_is_left_and_goes_on(
    station: Station, directory: Path, places: list[Path]
) -> None:
    station.mount(VOLUME, directory)
    for place in places[:2]:
        place.rename(place.with_suffix(".away"))
    (directory / "file").write_bytes(os.urandom(5_000_000))
    with interruptible():
        command = station.command("umount", directory)
        umount = subprocess.Popen(command, env=station.full_environment(), stderr=subprocess.PIPE, text=True)
    while os.path.ismount(directory):
        assert umount.poll() is None
    umount.send_signal(signal.SIGINT)
    _, said = umount.communicate(timeout=30)
    assert umount.returncode == 1
    assert f"{directory} is unmounted; 4.77 MiB (5.00 MB) left, draining" in said
    pid = int(station.status(VOLUME)["pid"])
    os.kill(pid, signal.SIGTERM)
    assert not wait_for_end(pid, 2)
    os.kill(pid, signal.SIGTERM)
    assert wait_for_end(pid, 30)


def test_a_second_signal_stops_at_once_and_loses_nothing(
    station: Station, directory: Path, places: list[Path]
) -> None:
    station.mount(VOLUME, directory)
    with away(places):
        (directory / "file").write_bytes(b"kept" * 500_000)
        pid = pid_of(station, directory)
        os.kill(pid, signal.SIGTERM)
        assert not wait_for_end(pid, 2)
        os.kill(pid, signal.SIGTERM)
        assert wait_for_end(pid, 30)
    station.mount(VOLUME, directory)
    assert (directory / "file").read_bytes() == b"kept" * 500_000


def test_one_file_in_chunks_and_objects(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory)
    (directory / "file").write_bytes(b"text " * 1_000_000)
    station.run("flush", directory)
    info = json.loads(station.run("info", directory / "file", "--json").stdout)
    assert (info["size"], info["chunks"], info["dirty"]) == (5_000_000, 5, 0)
    assert 0 < info["stored_bytes"] < 500_000
    assert info["segments"][0]["code"] in ("2+1", "1+1")
    station.run("log", "level", directory, "debug")


def test_ten_thousand_small_files_cost_few_objects(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory)
    for number in range(10_000):
        (directory / f"{number}").write_bytes(number.to_bytes(4, "big") * 1024)
    station.run("flush", directory)
    requests = [bucket["requests"] for bucket in station.status(directory)["buckets"]]
    assert sum(each["put"] + each["put_if_absent"] for each in requests) < 60 * 3
