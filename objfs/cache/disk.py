"""The files of chunk versions in the cache directory.

Owns ``cache/<2 hex>/<16 hex>``: one sparse file per version, bytes at their offset in the chunk, and
a bounded set of open descriptors.  Promises that its ``*_nowait`` reads never wait for a disk.  Knows
no states, tables or stores; which bytes of a file mean something is the caller's knowledge.

Neighbouring version numbers share a directory (bits 8 to 15 of the number name it), so that one
directory sync covers the many new files of one large write.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from objfs.durable import sync_directory
from objfs.model import ChunkId

log = logging.getLogger(__name__)

_NAME = re.compile(r"[0-9a-f]{16}")
_SYNC_FILE_RANGE_WRITE = 2
_libc = ctypes.CDLL(None, use_errno=True)


class VersionFiles:
    """Opens, reads, writes, syncs and removes versions' files.  One thread (the loop's) uses the
    descriptors kept here; functions for worker threads open their own."""

    def __init__(self, directory: Path, most_open: int) -> None:
        self.directory = directory
        self._most_open = most_open
        self._open: OrderedDict[ChunkId, int] = OrderedDict()
        self._scratch = bytearray(1024 * 1024)
        self._nowait = os.RWF_NOWAIT
        self._made: set[int] = set()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A file that is synced survives a power cut only if the directories above it do.
        sync_directory(directory.parent)

    def path(self, chunk: ChunkId) -> Path:
        return version_path(self.directory, chunk)

    def _descriptor(self, chunk: ChunkId, *, create: bool = False) -> int:
        known = self._open.get(chunk)
        if known is not None:
            self._open.move_to_end(chunk)
            return known
        if create and (chunk >> 8 & 0xFF) not in self._made:
            self.path(chunk).parent.mkdir(mode=0o700, exist_ok=True)
            self._made.add(chunk >> 8 & 0xFF)
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        descriptor = os.open(self.path(chunk), flags, 0o600)
        self._open[chunk] = descriptor
        while len(self._open) > self._most_open:
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def write(self, chunk: ChunkId, offset: int, data: bytes) -> None:
        """Writes into the page cache.  Raises OSError."""
        descriptor = self._descriptor(chunk, create=True)
        view, done = memoryview(data), 0
        while done < len(data):
            done += os.pwrite(descriptor, view[done:], offset + done)

    def check_length(self, chunk: ChunkId, length: int) -> None:
        """Raises OSError when a version's file is gone, or shorter than it was."""
        found = os.fstat(self._descriptor(chunk))
        if not found.st_nlink or found.st_size < length:
            raise OSError(
                errno.EIO, f"was removed, or cut to {found.st_size} of {length} bytes", self.path(chunk).name
            )

    def read_nowait(self, chunk: ChunkId, offset: int, length: int) -> bytes | None:
        """The bytes if all of them are in the page cache, else None.  Raises OSError."""
        if len(self._scratch) < length:
            self._scratch = bytearray(length)
        view = memoryview(self._scratch)[:length]
        try:
            got = os.preadv(self._descriptor(chunk), [view], offset, self._nowait)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP or not self._nowait:
                raise
            # This file system cannot say; its reads are taken to be from memory (tmpfs, overlays).
            self._nowait = 0
            return self.read_nowait(chunk, offset, length)
        return bytes(view) if got == length else None

    def read(self, chunk: ChunkId, offset: int, length: int) -> bytes:
        """The bytes, from the disk if need be; for worker threads.  Raises OSError (EIO when the
        file is shorter than it should be)."""
        return read_at(self.path(chunk), offset, length)

    def remove(self, chunk: ChunkId) -> None:
        """Removes a version's file; one that is not there is fine."""
        self.close_file(chunk)
        self.unlink_files([chunk])

    def close_file(self, chunk: ChunkId) -> None:
        """Gives back the descriptor of a version, where there is one."""
        descriptor = self._open.pop(chunk, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        for chunk in list(self._open):
            self.close_file(chunk)

    def walk(self) -> Iterator[tuple[os.DirEntry[str], ChunkId | None]]:
        """All files below the directory with the version each belongs to (None: not one of ours)."""
        return walk_versions(self.directory)

    def disk_bytes(self, chunk: ChunkId) -> int:
        """What a version's file takes on the disk; 0 when there is none."""
        try:
            return os.stat(self.path(chunk)).st_blocks * 512
        except FileNotFoundError:
            return 0

    def free_bytes(self) -> int:
        """What an unprivileged user may still write on this file system."""
        state = os.statvfs(self.directory)
        return state.f_bavail * state.f_frsize

    # --- for worker threads ---

    def length(self, chunk: ChunkId) -> int:
        """Of a version's file in bytes; 0 where there is none."""
        return length_of(self.directory, chunk)

    def put_back(self, chunk: ChunkId, offset: int, data: bytes) -> None:
        """Bytes of a version whose file may be gone.  Raises OSError."""
        self.path(chunk).parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(self.path(chunk), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, data, offset)
        finally:
            os.close(descriptor)

    def unlink_files(self, chunks: Iterable[ChunkId]) -> None:
        """Removes versions' files; those that are not there are fine.  May wait for the disk's journal."""
        for chunk in chunks:
            try:
                self.path(chunk).unlink()
            except FileNotFoundError:
                log.debug("chunk=%x has no file", chunk)

    def absent(self, chunks: Iterable[ChunkId]) -> list[ChunkId]:
        """Those that have no file."""
        return [chunk for chunk in chunks if not self.path(chunk).exists()]

    def sync_files(self, chunks: Iterable[ChunkId]) -> None:
        """Waits until the files' data are on the disk.  Files removed meanwhile are skipped."""
        for chunk in chunks:
            try:
                descriptor = os.open(self.path(chunk), os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)

    def sync_directories(self, chunks: Iterable[ChunkId]) -> None:
        """Waits until the names of these versions' files are on the disk."""
        folders = {self.path(chunk).parent for chunk in chunks}
        for folder in [*sorted(folders), self.directory]:
            with suppress(FileNotFoundError):  # nothing is left in it
                sync_directory(folder)

    def sync_everything(self) -> None:
        """Waits until all of the cache's file system is on the disk: cheaper than very many files."""
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.syncfs(descriptor) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), os.fspath(self.directory))
        finally:
            os.close(descriptor)

    def start_writeback(self, chunks: Sequence[ChunkId]) -> None:
        """Asks the kernel to begin writing the files; waits for nothing but a full device queue."""
        for chunk in chunks:
            try:
                descriptor = os.open(self.path(chunk), os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                # Only a head start: a file system that refuses loses nothing but time.
                zero = ctypes.c_int64(0)
                _libc.sync_file_range(descriptor, zero, zero, ctypes.c_uint(_SYNC_FILE_RANGE_WRITE))
            finally:
                os.close(descriptor)


def version_path(directory: Path, chunk: ChunkId) -> Path:
    """Where a version's file is."""
    return directory / f"{chunk >> 8 & 0xFF:02x}" / f"{chunk:016x}"


def length_of(directory: Path, chunk: ChunkId) -> int:
    """Of a version's file in bytes; 0 where there is none."""
    try:
        return version_path(directory, chunk).stat().st_size
    except FileNotFoundError:
        return 0


def walk_versions(directory: Path) -> Iterator[tuple[os.DirEntry[str], ChunkId | None]]:
    """See ``VersionFiles.walk``."""
    for folder in sorted(directory.iterdir()):
        if folder.is_dir():
            with os.scandir(folder) as entries:
                for entry in entries:
                    mine = _NAME.fullmatch(entry.name) is not None and entry.name[-4:-2] == folder.name
                    yield entry, ChunkId(int(entry.name, 16)) if mine else None


def read_at(path: Path, offset: int, length: int) -> bytes:
    """Raises OSError (EIO when the file is shorter than it should be)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)
    if len(data) != length:
        raise OSError(errno.EIO, f"holds {len(data)} of {length} bytes at {offset}", path.name)
    return data
