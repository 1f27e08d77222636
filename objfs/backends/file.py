"""Buckets that are local directories: ``file:///path``.

Owns the files below one root directory, which it never makes.  An object is written under a
temporary name that no key can have, synced, and put under its own name in one step (rename, or
link where it must not exist), then the directory is synced; a temporary file left by a crash is
in nobody's way and may be removed at any time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

from objfs.backends.base import (
    ObjectInfo,
    check_key,
    check_prefix,
    check_range,
    cut_range,
    is_key,
    progress,
)
from objfs.backends.url import BucketURL
from objfs.durable import sync_directory
from objfs.errors import (
    BucketError,
    BucketFull,
    ContractBroken,
    NoSuchBucket,
    NoSuchObject,
    ObjectExists,
    Refused,
    Unreachable,
)

T = TypeVar("T")

THREADS = 16
"""Worker threads of one bucket, those that hang in a dead mount included."""

_DIRECTORIES_REMEMBERED = 4096

_ERRORS: Mapping[int, type[BucketError]] = {
    errno.ENOENT: NoSuchObject,
    errno.EISDIR: NoSuchObject,
    errno.ENOTDIR: NoSuchObject,
    errno.EEXIST: ObjectExists,
    errno.ENOSPC: BucketFull,
    errno.EDQUOT: BucketFull,
    errno.EACCES: Refused,
    errno.EPERM: Refused,
    errno.EROFS: Refused,
    errno.EAGAIN: Unreachable,
    errno.EBUSY: Unreachable,
    errno.EHOSTDOWN: Unreachable,
    errno.EHOSTUNREACH: Unreachable,
    errno.EMFILE: Unreachable,
    errno.ENFILE: Unreachable,
    errno.ENOMEM: Unreachable,
    errno.ENOTCONN: Unreachable,
    errno.ESTALE: Unreachable,
    errno.ETIMEDOUT: Unreachable,
}

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})


@dataclass
class _Attempt:
    """Shared by a request and its thread: whether anybody still waits for the outcome."""

    given_up: bool = False


class FileBucket:
    """One directory as a bucket."""

    def __init__(self, root: Path, url: str) -> None:
        self._root = root
        self._url = url
        self._threads = trio.CapacityLimiter(THREADS)
        self._device: int | None = None
        self._durable: set[Path] = set()  # directories known to survive a power cut

    @property
    def url(self) -> str:
        return self._url

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        check_range(key, start, end)
        path = self._path(key)
        return await self._run(key, lambda _attempt: _read(path, key, start, end))

    async def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        await self._run(key, lambda attempt: self._publish(path, data, attempt, os.replace))

    async def put_if_absent(self, key: str, data: bytes) -> None:
        path = self._path(key)
        await self._run(key, lambda attempt: self._publish(path, data, attempt, _link))

    async def delete(self, key: str) -> None:
        path = self._path(key)
        await self._run(key, lambda _attempt: _unlink(path))

    async def stat(self, key: str) -> ObjectInfo:
        path = self._path(key)
        return await self._run(key, lambda _attempt: _stat(path, key))

    async def aclose(self) -> None:
        """Nothing is kept open."""
        await trio.lowlevel.checkpoint()

    async def _scan(self, directory: str, prefix: str) -> tuple[list[ObjectInfo], list[str]]:
        path = self._root / directory
        return await self._run(directory, lambda _attempt: _scan(path, directory, prefix))

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._root / key

    async def _run(self, key: str, work: Callable[[_Attempt], T]) -> T:
        attempt = _Attempt()
        try:
            return await trio.to_thread.run_sync(
                self._work, key, work, attempt, abandon_on_cancel=True, limiter=self._threads
            )
        except trio.Cancelled:
            attempt.given_up = True
            raise

    # --- in a worker thread ---

    def _work(self, key: str, work: Callable[[_Attempt], T], attempt: _Attempt) -> T:
        try:
            self._check_root()
            return work(attempt)
        except OSError as failure:
            raise self._translate(failure, key) from failure

    def _check_root(self) -> None:
        try:
            device = self._root.stat().st_dev
        except (FileNotFoundError, NotADirectoryError):
            raise NoSuchBucket(f"{self.url}: there is no such directory; it is never made for you") from None
        if self._device is None:
            self._device = device
        if device != self._device:
            raise NoSuchBucket(f"{self.url}: another file system lies there than before; mount the right one")

    def _translate(self, failure: OSError, key: str) -> BucketError:
        kind = _ERRORS.get(failure.errno or 0, BucketError)
        return kind(f"{self.url}: {key or 'listing'}: {failure.strerror or failure}")

    def _publish(
        self, path: Path, data: bytes, attempt: _Attempt, place: Callable[[Path, Path], None]
    ) -> None:
        temporary = path.parent / f".tmp-{secrets.token_hex(16)}"
        try:
            self._write(temporary, data)
            if attempt.given_up:
                return  # somebody may have put newer bytes under this name by now
            place(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        sync_directory(path.parent)

    def _write(self, temporary: Path, data: bytes) -> None:
        self._make_directories(temporary.parent)
        try:
            _write_synced(temporary, data)
        except FileNotFoundError:
            # Somebody emptied the bucket behind our back, or took it away: then the root is missing.
            self._durable.clear()
            self._check_root()
            self._make_directories(temporary.parent)
            _write_synced(temporary, data)

    def _make_directories(self, directory: Path) -> None:
        if directory == self._root or directory in self._durable:
            return
        self._make_directories(directory.parent)
        with contextlib.suppress(FileExistsError):
            directory.mkdir()
        # Also where it was there: whoever made it may not have come to its sync yet.
        sync_directory(directory.parent)
        if len(self._durable) >= _DIRECTORIES_REMEMBERED:
            self._durable.clear()
        self._durable.add(directory)

    async def list(self, prefix: str) -> list[ObjectInfo]:
        check_prefix(prefix)
        found: list[ObjectInfo] = []
        pending = [prefix.rpartition("/")[0]]
        while pending:
            files, directories = await self._scan(pending.pop(), prefix)
            found += files
            pending += directories
            progress()
        return sorted(found, key=lambda info: info.key)


def open_url(url: BucketURL, options: Mapping[str, str]) -> FileBucket:
    """The bucket behind ``file:///path``; takes no options.  The directory may come later."""
    return FileBucket(Path(url.place), str(url))


def _read(path: Path, key: str, start: int, end: int | None) -> bytes:
    with path.open("rb", buffering=0) as file:
        wanted = cut_range(key, os.fstat(file.fileno()).st_size, start, end)
        file.seek(wanted.start)
        parts = []
        left = wanted.stop - wanted.start
        while left and (part := file.read(left)):
            parts.append(part)
            left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _stat(path: Path, key: str) -> ObjectInfo:
    status = path.stat()
    if not path.is_file():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return ObjectInfo(key, status.st_size, status.st_mtime_ns)


def _unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        path.unlink()


def _scan(path: Path, directory: str, prefix: str) -> tuple[list[ObjectInfo], list[str]]:
    """The objects in one directory, and the directories in it, that the prefix allows."""
    files: list[ObjectInfo] = []
    directories: list[str] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
        for entry in entries:
            key = f"{directory}/{entry.name}" if directory else entry.name
            if not is_key(key):
                continue
            if entry.is_dir():
                if f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/"):
                    directories.append(key)
            elif key.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):
                    files.append(_stat(Path(entry.path), key))
    return files, directories


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(temporary: Path, path: Path) -> None:
    """Gives the file its name unless something has it: the one atomic way that POSIX offers."""
    try:
        os.link(temporary, path)
    except OSError as failure:
        if failure.errno in _NO_LINKS:
            what = "the file system has no hard links, so an object cannot be made only if absent"
            raise ContractBroken(f"{path}: {what}") from failure
        raise
