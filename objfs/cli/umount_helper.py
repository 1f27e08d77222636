"""``objfs umount-helper``: what umount(8) runs for ``umount DIR`` where DIR is a mount of type fuse.objfs.

Owns that calling convention: ``DIR [-flnrv] [-N NAMESPACE] [-t TYPE]``.  Promises that the plain call returns
when everything is recoverable from the buckets, and that what no process of this home answers for is
unmounted all the same: a shutdown must not be held up by it.
"""

from __future__ import annotations

from pathlib import Path

import click

from objfs.app.home import mounted_at
from objfs.app.mountpoint import unmount
from objfs.cli.context import home, say
from objfs.cli.umount import drain_and_unmount, take_dead_away
from objfs.errors import NotMounted, UsageError


@click.command("umount-helper", hidden=True)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-f", "force", is_flag=True, help="Do not ask the mount's process; it drains by itself.")
@click.option("-l", "lazy", is_flag=True, help="Unmount also while programs use it.")
@click.option("-t", "fstype", default="", help="The type of the mount.")
@click.option("-N", "namespace", default="", help="Refused: umount -i -N does it, without waiting.")
@click.option("-n", "no_mtab", is_flag=True, help="Accepted without effect.")
@click.option("-r", "read_only", is_flag=True, help="Accepted; a busy mount stays as it is.")
@click.option("-v", "verbose", is_flag=True, help="Accepted without effect.")
def umount_helper(
    directory: Path,
    force: bool,
    lazy: bool,
    fstype: str,
    namespace: str,
    no_mtab: bool,
    read_only: bool,
    verbose: bool,
) -> None:
    """Unmount DIRECTORY as umount(8) asks."""
    if namespace:
        raise UsageError(f"namespace {namespace}: use umount -i -N, and objfs status to see the drain")
    if force:
        unmount(directory, lazy=lazy)
        return
    try:
        volume = mounted_at(home(), directory)
    except NotMounted as error:
        take_dead_away(directory)
        unmount(directory, lazy=lazy)
        say(f"objfs: {error}: unmounted without waiting; a process with another OBJFS_HOME drains by itself")
        return
    drain_and_unmount(volume, directory, lazy=lazy)
