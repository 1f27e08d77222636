"""Local directories: what lies on the disk, and what happens when the disk says no."""

# ruff: noqa: ASYNC240  (tests look at the disk directly)

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
import trio

from objfs.backends.base import Bucket
from objfs.backends.registry import open_bucket
from objfs.errors import (
    BucketError,
    BucketFull,
    ContractBroken,
    NoSuchBucket,
    NoSuchObject,
    Refused,
    Unreachable,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


@pytest.fixture
async def bucket(root: Path) -> Bucket:
    return open_bucket(str(root), {})


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def test_objects_are_files_named_by_their_keys(bucket: Bucket, root: Path) -> None:
    await bucket.put("segment/0a/x.00", b"shard")
    await bucket.put_if_absent("lease/01", b"lease")
    assert files(root) == ["lease/01", "segment/0a/x.00"]
    assert (root / "segment/0a/x.00").read_bytes() == b"shard"


async def test_a_missing_root_is_a_missing_bucket_and_is_never_made(bucket: Bucket, root: Path) -> None:
    await bucket.put("segment/0a/x.00", b"shard")
    root.rename(root.parent / "elsewhere")
    for request in (
        lambda: bucket.put("segment/0a/y.00", b"x"),
        lambda: bucket.put_if_absent("label", b"x"),
        lambda: bucket.get("segment/0a/x.00"),
        lambda: bucket.stat("label"),
        lambda: bucket.delete("label"),
        lambda: bucket.list(""),
    ):
        with pytest.raises(NoSuchBucket, match="no such directory"):
            await request()
    assert not root.exists()
    (root.parent / "elsewhere").rename(root)
    assert await bucket.get("segment/0a/x.00") == b"shard"


async def test_another_file_system_under_the_same_path_is_a_missing_bucket(tmp_path: Path) -> None:
    """As when the disk was unmounted and its mount point is left."""
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    bucket = open_bucket(str(link), {})
    await bucket.put("label", b"x")
    link.unlink()
    link.symlink_to(shared_memory)
    with pytest.raises(NoSuchBucket, match="another file system"):
        await bucket.put("label", b"y")
    assert not (shared_memory / "label").exists()


async def test_an_emptied_bucket_takes_objects_again(bucket: Bucket, root: Path) -> None:
    await bucket.put("segment/0a/x.00", b"x")
    (root / "segment/0a/x.00").unlink()
    (root / "segment/0a").rmdir()
    (root / "segment").rmdir()
    await bucket.put("segment/0a/x.00", b"again")
    assert await bucket.get("segment/0a/x.00") == b"again"


async def test_foreign_files_are_not_objects(bucket: Bucket, root: Path) -> None:
    await bucket.put("a/b", b"x")
    for name in ("a/.tmp-0123", ".hidden", "README", "a/With Space"):
        (root / name).write_bytes(b"foreign")
    (root / "lost+found").mkdir()
    (root / "lost+found/x").write_bytes(b"foreign")
    assert [info.key for info in await bucket.list("")] == ["a/b"]
    assert [info.key for info in await bucket.list("a/")] == ["a/b"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOSPC, BucketFull),
        (errno.EDQUOT, BucketFull),
        (errno.EROFS, Refused),
        (errno.EACCES, Refused),
        (errno.ENOTCONN, Unreachable),
        (errno.ESTALE, Unreachable),
        (errno.EIO, BucketError),
    ],
)
async def test_the_disk_says_no(
    bucket: Bucket, root: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[BucketError]
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    for put in (bucket.put, bucket.put_if_absent):
        with pytest.raises(error, match=os.strerror(code)) as caught:
            await put("label", b"data")
        assert type(caught.value) is error
        assert "label" in str(caught.value)
    monkeypatch.undo()
    assert files(root) == []  # nothing half-written stays, not even under another name


async def test_without_hard_links_the_promise_is_broken_by_name(
    bucket: Bucket, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_paths: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ContractBroken, match="no hard links"):
        await bucket.put_if_absent("label", b"x")
    assert files(root) == []


async def test_bytes_then_name_then_directory_are_synced(
    bucket: Bucket, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut needs: the file before it gets its name, each directory after its entry."""
    await bucket.put("segment/other", b"x")
    steps: list[str] = []

    def name(descriptor: int) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        return "bytes" if path.name.startswith(".tmp-") else f"sync {path.relative_to(root)}"

    fsync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        steps.append(name(descriptor))
        fsync(descriptor)

    def note_name(temporary: Path, path: Path) -> None:
        steps.append("name")
        replace(temporary, path)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_name)
    await bucket.put("segment/0a/x.00", b"x")
    await bucket.put("segment/0a/y.00", b"x")
    publish = ["bytes", "name", "sync segment/0a"]
    # A directory is synced into its parent when it is first used, and not again.
    assert steps == ["sync segment", *publish, *publish]


async def test_a_put_that_was_given_up_is_not_published_later(
    bucket: Bucket, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, release, ended = threading.Event(), threading.Event(), threading.Event()
    fsync, unlink = os.fsync, Path.unlink

    def hang(descriptor: int) -> None:
        stuck.set()
        assert release.wait(10)
        fsync(descriptor)

    def note_the_end(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        ended.set()

    await bucket.put("lease", b"before")
    monkeypatch.setattr(os, "fsync", hang)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bucket.put, "lease", b"late")
        await trio.to_thread.run_sync(stuck.wait)
        nursery.cancel_scope.cancel()
    monkeypatch.setattr(os, "fsync", fsync)
    await bucket.put("lease", b"newer")
    monkeypatch.setattr(Path, "unlink", note_the_end)
    release.set()
    assert await trio.to_thread.run_sync(ended.wait, 10)
    assert await bucket.get("lease") == b"newer"
    assert files(root) == ["lease"]


async def test_a_directory_is_no_object(bucket: Bucket) -> None:
    await bucket.put("segment/0a/x.00", b"x")
    for request in (bucket.get, bucket.stat):
        with pytest.raises(NoSuchObject):
            await request("segment/0a")
    with pytest.raises(NoSuchObject):
        await bucket.get("segment/0a/x.00/below")
    await bucket.delete("segment/0a")
    await bucket.delete("segment/0a/x.00/below")
    assert await bucket.get("segment/0a/x.00") == b"x"
