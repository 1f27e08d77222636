"""The state directory of a mount that shows one snapshot: made for it, and gone with it.

Owns ``$OBJFS_HOME/NAME@SNAPSHOT``.  Such a mount is a reader like one on another machine: it has a table, a
cache and a control socket of its own, so the volume itself may be mounted here at the same time.  All that is
in the directory is in the buckets too; what a killed process left is taken up, or replaced, by the next
mount.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from objfs.app.mountpoint import find_mount
from objfs.volume.local import VolumeHome, make_directory


def snapshot_home(volume: VolumeHome, snapshot: str) -> VolumeHome:
    """The directory, with the buckets and settings of the volume.  Raises NoSuchVolume, BadSetting."""
    home = volume.of_snapshot(snapshot)
    config = volume.read_config()
    make_directory(home.path)
    home.write_config(config)
    return home


@asynccontextmanager
async def removed_afterwards(home: VolumeHome, directory: Path) -> AsyncIterator[None]:
    """Removes a snapshot's state directory; not where ``directory`` is still taken by a mount that failed,
    which must be found until somebody has taken it away.  Other state directories stay."""
    try:
        yield
    finally:
        if home.shows_snapshot and find_mount(directory) is None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(lambda: shutil.rmtree(home.path, ignore_errors=True))
