"""One mount: the connection to the kernel, from mount(2) to its end.

Owns the options that every mount has, the limits of the process that a server of files needs, and the
life of pyfuse3's one session per process.  Promises that a mount that fails raises MountPointUnusable
with a reason, and never uses ``auto_unmount``: a dead file system must answer with errors and must not
look like an empty directory.  Knows neither volumes nor daemons.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pyfuse3
import trio

from objfs.errors import BadSetting, MountPointUnusable
from objfs.fuse import kernel
from objfs.fuse.operations import Operations
from objfs.model import Ino


class Changes(Protocol):
    """What differs from what the kernel was told."""

    def inodes(self) -> Iterable[Ino]:
        """Those with other attributes, or that came or went."""
        ...

    def rewritten(self) -> Iterable[Ino]:
        """Files with other content that their size and time may not tell of."""
        ...

    def names(self) -> Iterable[tuple[Ino, bytes]]:
        """(directory, name) of what came, went or leads elsewhere."""
        ...


MAX_TASKS = 128
"""Requests that are served at the same time.  Each task that has received a request keeps a buffer of
1 MiB, so this also bounds memory; requests that wait for a bucket occupy a task each."""

IDLE_TASKS = 4
"""Tasks that stay when there is nothing to do."""


def fuse_options(source: str, flags: Iterable[str] = (), *, allow_other: bool = False) -> frozenset[str]:
    """libfuse's options: ``source`` is shown in /proc/mounts; ``flags`` are the kernel's (``ro``,
    ``dev``, ``suid``, ``noexec``, ...).  Raises BadSetting for a source that is not ASCII.

    The largest request is libfuse's, 1 MiB in both directions.  ``max_read`` must not be given: libfuse
    compares it with what the init handler says, which pyfuse3 does not let us say, and ends the mount.
    """
    if not source.isascii():
        raise BadSetting(f"source {source!r}: only ASCII can be shown in /proc/mounts")
    escaped = source.replace("\\", "\\\\").replace(",", "\\,")
    options = {f"fsname={escaped}", "subtype=objfs", "default_permissions", *flags}
    if allow_other:
        options.add("allow_other")
    if "auto_unmount" in options:
        raise BadSetting("option auto_unmount: a dead mount must not look like an empty directory")
    if any(option.startswith("max_read") for option in options):
        raise BadSetting("option max_read: the size of requests is fixed at 1 MiB")
    return frozenset(options)


def raise_file_limit() -> None:
    """As many descriptors as the hard limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Session:
    """A mount of ``operations``; pyfuse3 allows one at a time in a process.

    ``mount()``, then ``await serve()`` until somebody unmounts or calls ``stop()``, then ``close()``.
    """

    def __init__(self, operations: Operations, mountpoint: Path, options: Iterable[str]) -> None:
        self._operations = operations
        self._mountpoint = mountpoint
        self._options = set(options)
        self._device: int | None = None

    def mount(self) -> None:
        """Raises MountPointUnusable.  libfuse says more on standard error."""
        if not self._mountpoint.is_dir():
            raise MountPointUnusable(f"{self._mountpoint}: not a directory; make it first")
        raise_file_limit()
        self._operations.outdated = _forget_attributes
        try:
            self._connect()
        except (RuntimeError, OSError) as error:
            raise MountPointUnusable(f"{self._mountpoint}: cannot mount there: {error}") from error

    def _connect(self) -> None:
        where = str(self._mountpoint)
        with suppress(PermissionError):  # then libfuse's helper may
            self._device = kernel.mount(self._mountpoint, self._options)
            where = f"/dev/fd/{self._device}"  # libfuse's name for a mount that was made
        try:
            pyfuse3.init(self._operations, where, self._options)
        except BaseException:
            if self._device is not None:
                kernel.unmount(self._mountpoint)
                os.close(self._device)
            raise

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answers requests until the mount ends."""
        task_status.started()
        await pyfuse3.main(min_tasks=IDLE_TASKS, max_tasks=MAX_TASKS)

    def stop(self) -> None:
        """Makes ``serve`` return when the running requests are answered.  Only on the event loop."""
        pyfuse3.terminate()

    def close(self, *, unmount: bool = True) -> None:
        """Ends the connection; with ``unmount`` the mount point is freed where it still is taken."""
        if self._device is None:
            pyfuse3.close(unmount=unmount)
            return
        taken = kernel.is_connected(self._device)
        pyfuse3.close(unmount=False)  # first: unmounting may wait for an answer that nobody would give
        if unmount and taken:
            with suppress(OSError):  # taken away meanwhile
                kernel.unmount(self._mountpoint)

    async def forget(self, changes: Changes, *, slot: int = 0) -> None:
        """The kernel drops what it remembers of the attributes of inodes that changed, and of names that
        came, went or lead elsewhere.  To be called after a change that did not pass through this mount.

        Pages go without being asked: with the next attributes the kernel sees another size or time and drops
        them in the program that reads.  Naming them here would wait, in the kernel and past any signal, for
        reads that a bucket may hold up.  Files that changed under the same size and time lose their
        pages at their next open.  Names wait for requests in the same directory, so this runs in a worker
        while requests are answered.
        """
        self._operations.distrust(await trio.to_thread.run_sync(lambda: list(changes.rewritten())), slot)
        encode = self._operations.views.encode

        def tell() -> None:
            for ino in changes.inodes():
                _forget_attributes(encode(slot, ino))
            for parent, name in changes.names():
                _forget_name(encode(slot, parent), name)

        await trio.to_thread.run_sync(tell)


def _forget_attributes(number: int) -> None:
    """The kernel waits for nobody then: also for the event loop."""
    with suppress(OSError):  # the kernel does not know it, or is about to go
        pyfuse3.invalidate_inode(number, attr_only=True)


def _forget_name(number: int, name: bytes) -> None:
    with suppress(FileNotFoundError):
        pyfuse3.invalidate_entry(number, name)
