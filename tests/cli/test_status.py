"""What ``objfs status`` tells a person about writing and safety, from the document of a mount."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from objfs.app.status import BucketStatus, Redundancy, Status
from objfs.cli.status import describe
from objfs.volume.fields import JSON, Fields

MOUNTED = Status(
    volume="photos",
    uuid="00" * 16,
    version="1",
    state="mounted",
    directory="/srv/photos",
    pid=1234,
    read_only=False,
    reason="",
    lease_lost=False,
    epoch=1,
    inodes=1,
    content_bytes=0,
    safe=False,
    dirty_bytes=5_000_000,
    dirty_chunks=5,
    oldest_dirty_s=3.0,
    uploading_bytes=0,
    upload_error="",
    lost=(),
    checkpoint={},
    follow={},
    redundancy=Redundancy("2+1", 1, (), "survives the loss of any one of 3 buckets"),
    at_risk={"segments": 0, "bytes": 0, "most_missing": 0},
    buckets=(),
    cache={"cached_bytes": 0, "limit_bytes": 1, "hits": 0, "misses": 0},
    store={},
    loop={"longest_s": 0.0, "operation": "", "over_50ms": 0},
    memory_bytes=0,
)
REASON = "the lease of epoch 1 is lost: taken over by host b, process 7, since 5 s (epoch 2)"
OVERTAKEN = replace(MOUNTED, read_only=True, reason=REASON, lease_lost=True)


def line(status: Status, name: str) -> str:
    document = Fields.parse(json.dumps(status.to_json()).encode(), "status")
    found = [text for text in describe(document) if text.startswith(f"{name} ")]
    assert len(found) == 1
    return found[0].removeprefix(name).strip()


def test_a_mount_that_writes() -> None:
    assert line(MOUNTED, "state") == "mounted at /srv/photos, read and write"
    assert "not yet in the buckets, the oldest for 3" in line(MOUNTED, "safety")


def test_a_mount_that_lost_its_lease_is_read_only_and_says_why() -> None:
    said = line(OVERTAKEN, "state")
    assert said.startswith("mounted at /srv/photos, read only; writing stopped: ")
    assert said.endswith(REASON)


@pytest.mark.parametrize(("dirty", "what"), [(5_000_000, "5.00 MB"), (0, "changes")])
def test_what_can_no_longer_be_uploaded_is_to_be_copied(dirty: int, what: str) -> None:
    """Also where only names changed: no checkpoint will ever name them."""
    said = line(replace(OVERTAKEN, dirty_bytes=dirty), "safety")
    assert what in said
    assert "can no longer reach the buckets: copy them from /srv/photos before you unmount it" in said


def test_a_lost_lease_that_cost_nothing() -> None:
    assert line(replace(OVERTAKEN, safe=True), "safety").startswith("safe: ")


def test_what_is_lost_is_named() -> None:
    lost: JSON = {"path": "/a/b", "inode": 7, "offset": 65536, "length": 1000}
    assert line(replace(MOUNTED, lost=(lost,)), "LOST") == (
        "/a/b (inode 7): 1000 bytes from 65536 on read as an error"
    )


def test_a_bucket_without_a_url_here_is_told_with_what_gives_it_one() -> None:
    absent = BucketStatus(3, "33" * 16, "no URL on this machine", True, "absent")
    healthy = replace(absent, slot=2, url="file:///c", health="healthy")
    document = Fields.parse(json.dumps(replace(MOUNTED, buckets=(healthy, absent)).to_json()).encode(), "")
    told = describe(document)[-5:]
    assert [text.split()[0] for text in told] == ["bucket", "0", "bucket", "0", "to"]
    assert told[-1].strip() == "to be used here: objfs attach photos --add --bucket URL"


@pytest.mark.parametrize(
    ("days", "kept"), [(0, "kept until emptied: trash_days is 0"), (7, "each kept 7 days")]
)
def test_how_long_the_trash_is_kept_is_told_where_that_is_decided(days: int, kept: str) -> None:
    snapshots: dict[str, JSON] = {"count": 0, "trash": 2, "trash_days": days}
    assert line(replace(MOUNTED, snapshots=snapshots), "trash") == f"2 snapshots, {kept}"
    assert line(replace(MOUNTED, snapshots=snapshots, read_only=True), "trash") == "2 snapshots"


@pytest.mark.parametrize(
    ("healer", "said"),
    [
        ({}, "2.00 KiB (2.05 kB) in 3 segments short of shards; a mount that writes heals it"),
        (
            {"blobs": 1, "oldest_s": 300.0, "last_error": ""},
            "2.00 KiB (2.05 kB) in 3 segments and 1 parts of the inode table short of shards, "
            "the oldest stored 5 min ago",
        ),
        (
            {"segments": 0, "buckets": 2, "oldest_s": 0.0, "last_error": ""},
            "2 buckets short of manifests",
        ),
        (
            {"blobs": 0, "oldest_s": 3.0, "last_error": "too few shards"},
            "2.00 KiB (2.05 kB) in 3 segments short of shards, the oldest stored 3.0 s ago; "
            "the last try to heal failed: too few shards",
        ),
    ],
)
def test_what_is_at_risk_is_told_with_its_amount_and_age(healer: dict[str, JSON], said: str) -> None:
    risk: dict[str, JSON] = {"segments": 3, "bytes": 2048, "most_missing": 1, **healer}
    assert line(replace(MOUNTED, at_risk=risk), "at risk") == said
