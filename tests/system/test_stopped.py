"""A writer stopped by SIGSTOP inside a request, and continued after another host took the volume over (I5).

Real processes on real mounts.  The writer publishes and deletes nothing more, is read-only and says so, and
ends in good order; a third machine gets exactly what the second one published.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from objfs.cache.recovery import boot_id
from objfs.meta import MetaDatabase
from objfs.store import layout
from tests.system.foreground import PATIENCE_S
from tests.system.harness import VOLUME, Station, have_fuse, urls
from tests.system.stopped import StoppingMount, When, stopping_mount
from tests.system.tree import described

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]

OPTIONS = "fsync=bucket,lease_interval=1,checkpoint_interval=3600"
DELETE_AT_ONCE = "recovery_window=0,recovery_keep=1,delete_grace=0"
SEGMENT = 1_000_000
"""Bytes of a file that gets a segment of its own, much larger than those of checkpoints."""


@dataclass(frozen=True)
class Hosts:
    """``old`` is stopped, ``new`` takes over, ``third`` comes with nothing."""

    old: Station
    new: Station
    third: Station
    root: Path
    places: list[Path]

    @property
    def old_mount(self) -> Path:
        return self.root / "mnt"

    @property
    def new_mount(self) -> Path:
        return self.root / "new-mnt"

    def take_over(self) -> None:
        """Waits for three silent intervals, mounts, writes and publishes."""
        self.new.mount(VOLUME, self.new_mount, "--take-over", "-o", OPTIONS)
        publish(self.new_mount / "new", b"from the new host")


@pytest.fixture
def hosts(tmp_path: Path, places: list[Path], station: Station, directory: Path) -> Iterator[Hosts]:
    with Station(tmp_path / "new") as new, Station(tmp_path / "third") as third:
        new.attach(VOLUME, urls(places))
        yield Hosts(station, new, third, directory.parent, places)


def publish(path: Path, data: bytes) -> None:
    """Returns when the file is recoverable from the buckets: the mounts here have ``fsync=bucket``."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def objects(hosts: Hosts) -> dict[tuple[str, str], str]:
    """A digest of every object but the leases (which are renewed), by bucket and key.  A put that was stopped
    half way has a temporary file, which is no object."""
    return {
        (place.name, str(path.relative_to(place))): hashlib.sha256(path.read_bytes()).hexdigest()
        for place in hosts.places
        for path in place.rglob("*")
        if path.is_file()
        and layout.LEASE_PREFIX not in f"{path.relative_to(place)}"
        and not path.name.startswith(".tmp-")
    }


# --- what must hold after each ---------------------------------------------------------------


def assert_it_gave_way(hosts: Hosts, old: StoppingMount) -> None:
    """The old host is read-only, and its log and status name who has the volume now."""
    holder = f"process {hosts.new.status(hosts.new_mount)['pid']}"
    assert holder in old.log.until("lease lost")
    assert_read_only(hosts.old_mount)
    status = hosts.old.status(hosts.old_mount)
    assert (status["state"], status["read_only"], status["lease_lost"]) == ("mounted", True, True)
    assert holder in status["reason"]


def assert_read_only(directory: Path) -> None:
    changes: list[Callable[[], object]] = [
        lambda: (directory / "kept").write_bytes(b"too late"),
        lambda: (directory / "too late").touch(),
        lambda: (directory / "kept").unlink(),
    ]
    for change in changes:
        with pytest.raises(OSError, match="Read-only") as refused:
            change()
        assert refused.value.errno == errno.EROFS
    assert (directory / "kept").read_bytes() == b"acknowledged"


def assert_it_ends(hosts: Hosts, old: StoppingMount, *, left: bool) -> None:
    """In good order; ``left``: with something that never reached the buckets, which is said."""
    said = hosts.old.run("umount", hosts.old_mount, code=13 if left else 0).stderr
    assert said.count("\n") == (1 if left else 0)
    assert ("left in the local state: the lease of epoch" in said) is left
    assert old.wait_for_end() == (1 if left else 0)
    assert not os.path.ismount(hosts.old_mount)
    lines = old.log.all()
    assert sum("lease lost" in line for line in lines) == 1
    assert any(f"ended volume={VOLUME} clean={not left}" in line for line in lines)
    assert not any("Traceback" in line or "stays with this machine" in line for line in lines)


def assert_the_volume_is_the_new_hosts(hosts: Hosts) -> None:
    """It goes on, and a machine that has nothing gets what it published, whole."""
    publish(hosts.new_mount / "more", b"still going")
    published = described(hosts.new_mount)
    hosts.new.umount(hosts.new_mount)
    hosts.third.attach(VOLUME, urls(hosts.places))
    mount = hosts.root / "third-mnt"
    hosts.third.mount(VOLUME, mount)
    assert described(mount) == published
    hosts.third.umount(mount)
    with MetaDatabase.open(hosts.third.home / VOLUME / "meta.db", boot_id=boot_id()) as table:
        assert table.check() == []


# --- where it is stopped ---------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_stopped_inside_a_manifest_put(hosts: Hosts, when: When) -> None:
    """Before a bucket has it, the moment is lost, and fsync says so.  One that a bucket has is adopted by
    whoever takes over, so that the fsync, which comes back long after, has told the truth."""
    mount = hosts.old_mount
    with (
        ThreadPoolExecutor(1) as program,
        stopping_mount(hosts.old, mount, when, "put_if_absent", OPTIONS) as old,
    ):
        publish(mount / "kept", b"acknowledged")
        old.stop_at(layout.MANIFEST_PREFIX)
        late = program.submit(publish, mount / "late", b"late")
        old.wait_until_stopped()
        hosts.take_over()
        before = objects(hosts)
        old.go_on()
        failure = late.exception()
        if when == "before":
            assert isinstance(failure, OSError)
            assert failure.errno == errno.EROFS
        else:
            assert failure is None
        assert (hosts.new_mount / "late").exists() is (when == "after")
        assert_it_gave_way(hosts, old)
        assert (mount / "late").read_bytes() == b"late"
        assert_it_ends(hosts, old, left=when == "before")
    assert objects(hosts) == before
    assert_the_volume_is_the_new_hosts(hosts)


def test_stopped_inside_a_segment_delete(hosts: Hosts) -> None:
    """Of three segments that nothing needs the first is on its way; the others stay, though nothing but the
    lease forbids the next delete."""
    mount = hosts.old_mount
    options = f"{OPTIONS},{DELETE_AT_ONCE}"
    with stopping_mount(hosts.old, mount, "before", "delete", options) as old:
        for number in range(3):
            publish(mount / f"unneeded{number}", random.Random(number).randbytes(SEGMENT))
        segments = large_segments(hosts)
        assert len(segments) == 3
        condemn(hosts, old, segments)
        old.stop_at(segments[0])
        publish(mount / "kept", b"acknowledged")
        old.wait_until_stopped()
        hosts.take_over()
        before = objects(hosts)
        assert set(segments[1:]) <= set(large_segments(hosts))
        old.go_on()
        assert_it_gave_way(hosts, old)
        assert_it_ends(hosts, old, left=False)
    after = objects(hosts)
    assert after.items() <= before.items()
    assert {key.partition(".")[0] for _, key in before.keys() - after.keys()} == {segments[0]}
    assert_the_volume_is_the_new_hosts(hosts)


def large_segments(hosts: Hosts) -> list[str]:
    """The names, without the number of the shard, of the segments that hold files, in order of deletion."""
    shards = [path for place in hosts.places for path in place.glob("segment/*/*")]
    large = [path for path in shards if path.stat().st_size > SEGMENT // 4]
    return sorted(
        {f"segment/{path.parent.name}/{path.name.partition('.')[0]}" for path in large}, key=uuid_of
    )


def uuid_of(segment: str) -> str:
    return segment.rpartition("/")[2]


def condemn(hosts: Hosts, old: StoppingMount, segments: list[str]) -> None:
    """Returns when the next checkpoint lets all of them go."""
    hosts.old.run("log", "level", hosts.old_mount, "debug")
    before = inodes(hosts.old_mount)
    for number in range(3):
        (hosts.old_mount / f"unneeded{number}").unlink()
    deadline = time.monotonic() + PATIENCE_S
    while inodes(hosts.old_mount) > before - 3:  # they are purged a little later
        assert time.monotonic() < deadline
    publish(hosts.old_mount / "kept", b"acknowledged")
    found = {old.log.until("segment condemned").rpartition("=")[2] for _ in segments}
    assert found == set(map(uuid_of, segments))


def inodes(mount: Path) -> int:
    room = os.statvfs(mount)
    return room.f_files - room.f_ffree


def test_stopped_inside_a_lease_renewal(hosts: Hosts) -> None:
    """The renewal that lands late shakes nobody: it is of the old epoch."""
    mount = hosts.old_mount
    with stopping_mount(hosts.old, mount, "before", "put", OPTIONS) as old:
        publish(mount / "kept", b"acknowledged")
        (mount / "never published").mkdir()
        old.stop_at(layout.LEASE_PREFIX)
        old.wait_until_stopped()
        hosts.take_over()
        before = objects(hosts)
        old.go_on()
        assert_it_gave_way(hosts, old)
        assert (mount / "never published").is_dir()
        said = hosts.old.run("status", mount).stdout
        assert "read only; writing stopped: the lease of epoch" in said
        assert f"can no longer reach the buckets: copy them from {mount} before you unmount" in said
        assert_it_ends(hosts, old, left=True)
    assert objects(hosts) == before
    assert_the_volume_is_the_new_hosts(hosts)


def test_what_a_fenced_writer_could_not_publish_is_salvaged(hosts: Hosts) -> None:
    """From the mount that lost its lease, after it has ended, and from where the next mount sets it aside."""
    mount, late = hosts.old_mount, os.urandom(SEGMENT)
    with stopping_mount(hosts.old, mount, "before", "put", OPTIONS) as old:
        publish(mount / "kept", b"acknowledged")
        (mount / "made").mkdir()
        (mount / "made" / "late").write_bytes(late)
        old.stop_at(layout.LEASE_PREFIX)
        old.wait_until_stopped()
        hosts.take_over()
        old.go_on()
        assert_it_gave_way(hosts, old)
        assert_salvaged(hosts, "mounted", late, "--from", "current")
        assert_it_ends(hosts, old, left=True)
    assert_salvaged(hosts, "ended", late, "--from", "current")
    assert_the_volume_is_the_new_hosts(hosts)
    hosts.old.mount(VOLUME, mount)
    assert not (mount / "made").exists()
    assert_salvaged(hosts, "set aside", late)
    hosts.old.umount(mount)
    hosts.old.run("fsck", VOLUME)


def assert_salvaged(hosts: Hosts, name: str, late: bytes, *options: str) -> None:
    """What never reached the buckets comes out whole, and nothing else."""
    out = hosts.root / name
    said = hosts.old.run("salvage", VOLUME, out, *options).stdout
    assert "1 files copied whole, 0 incomplete, 0 left out" in said
    assert [path.relative_to(out).as_posix() for path in sorted(out.rglob("*"))] == ["made", "made/late"]
    assert (out / "made" / "late").read_bytes() == late
