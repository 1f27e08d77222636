"""``mount -o remount``: the kernel and the mount's process change together, or nothing does.

Owns the order of the two.  Promises that the kernel never takes a mount for a writing one whose process may
not write, and that what was written before is on the local disk when a mount has become read-only.
"""

from __future__ import annotations

from pathlib import Path

from objfs.app import mountpoint
from objfs.app.client import ControlClient
from objfs.app.home import mounted_at
from objfs.app.options import MountOptions, kernel_arguments
from objfs.errors import MountError


def remount(home: Path, directory: Path, options: MountOptions, source: str) -> None:
    """Changes a running mount; without ``ro`` it is to write, as mount(8) means it.

    Raises NotMounted where no process answers for it, MountError where it cannot write or is busy.
    """
    volume = mounted_at(home, directory)
    wanted = kernel_arguments(options, source) | {"ro" if options.read_only else "rw"}
    with ControlClient(volume.control_path) as mount:
        if options.read_only:
            mountpoint.remount(directory, wanted)
            mount.ask("remount", timeout_s=None, writes=False)
            return
        was_read_only = mount.ask("remount", writes=True)["was_read_only"] is True
        try:
            mountpoint.remount(directory, wanted)
        except MountError:
            mount.ask("remount", timeout_s=None, writes=not was_read_only)
            raise
