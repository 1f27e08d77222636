"""``objfs umount``: take the mount away, with everything in the buckets or saying what is not."""

from __future__ import annotations

from pathlib import Path

import click

from objfs.app.client import ControlClient
from objfs.app.home import dead_mount, mounted_at
from objfs.app.mountpoint import unmount
from objfs.cli.context import drain_progress, home, say, size
from objfs.errors import NotMounted, Unclean


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--no-wait", is_flag=True, help="Unmount at once; what is left drains in the background.")
@click.option(
    "--lazy", is_flag=True, help="Unmount also while programs use it; they keep what they have open."
)
def umount(directory: Path, no_wait: bool, lazy: bool) -> None:
    """Drain into the buckets and unmount DIRECTORY.

    Returns when everything is recoverable from the buckets and the mount's process is gone.
    """
    try:
        volume = mounted_at(home(), directory)
    except NotMounted:
        _take_dead_away(directory)
        raise
    with ControlClient(volume.control_path) as mount, drain_progress("draining") as progress:
        pid = int(str(mount.ask("ping")["pid"]))
        answer = mount.ask("umount", progress, timeout_s=None, wait=not no_wait, lazy=lazy)
        if not no_wait:
            mount.wait_ended(pid)
    left = int(str(answer.get("left_bytes", 0)))
    if no_wait and left:
        say(f"{directory} is unmounted; {size(left)} left, draining (see objfs status {volume.name})")
    elif answer.get("error"):
        raise Unclean(f"{directory} is unmounted, and {answer['error']}")


def _take_dead_away(directory: Path) -> None:
    """A mount whose process died has nobody to drain it.  Raises Unclean when there was one."""
    name = dead_mount(home(), directory)
    if name is not None:
        unmount(directory, lazy=True)
        raise Unclean(
            f"{directory} is unmounted; its process had died, and what it had not uploaded is in the local"
            f" state: mount {name} again to go on"
        )
