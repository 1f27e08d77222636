"""``objfs umount``: take the mount away, with everything in the buckets or saying what is not."""

from __future__ import annotations

from pathlib import Path

import click

from objfs.app.client import ControlClient
from objfs.app.home import dead_mount, dead_places, mounted_at, names_volume
from objfs.app.mountpoint import find_mount, unmount
from objfs.app.wire import Message
from objfs.cli.bars import draining
from objfs.cli.context import home, say, size
from objfs.errors import NotMounted, ObjfsError, Unclean
from objfs.volume.local import VolumeHome


@click.command()
@click.argument("place", metavar="NAME_OR_DIR")
@click.option("--no-wait", is_flag=True, help="Unmount at once; what is left drains in the background.")
@click.option(
    "--lazy", is_flag=True, help="Unmount also while programs use it; they keep what they have open."
)
def umount(place: str, no_wait: bool, lazy: bool) -> None:
    """Drain into the buckets and unmount a volume, or a snapshot (NAME@SNAPSHOT), by its name or directory.

    Returns when everything is recoverable from the buckets and the mount's process is gone.
    """
    volume, directory = _meant(place)
    if no_wait:
        left = int(str(_ask(volume, wait=False, lazy=lazy).get("left_bytes", 0)))
        if left:
            say(f"{directory} is unmounted; {size(left)} left, draining (see objfs status {volume.name})")
    else:
        drain_and_unmount(volume, directory, lazy=lazy)


def _meant(word: str) -> tuple[VolumeHome, Path]:
    """The volume, and where it is mounted.  Raises NotMounted; Unclean where its process had died and the
    mount is taken away."""
    named = VolumeHome(home(), word) if names_volume(home(), word) else None
    try:
        if named is None:
            return mounted_at(home(), Path(word)), Path(word)
        with ControlClient(named.control_path) as mount:
            return named, Path(str(mount.ask("ping")["directory"]))
    except NotMounted:
        for directory in [Path(word)] if named is None else dead_places(named):
            take_dead_away(directory)
        raise


def drain_and_unmount(volume: VolumeHome, directory: Path, *, lazy: bool) -> None:
    """Returns when the mount's process is gone.  Raises Unclean where it left something in the local state,
    ObjfsError when interrupted."""
    try:
        answer = _ask(volume, wait=True, lazy=lazy)
    except KeyboardInterrupt:
        raise _interrupted(volume, directory) from None
    if answer.get("error"):
        raise Unclean(f"{directory} is unmounted, and {answer['error']}")


def _ask(volume: VolumeHome, *, wait: bool, lazy: bool) -> Message:
    with ControlClient(volume.control_path) as mount, draining("draining") as progress:
        pid = int(str(mount.ask("ping")["pid"]))
        answer = mount.ask("umount", progress, timeout_s=None, wait=wait, lazy=lazy)
        if wait:
            mount.wait_ended(pid)
    return answer


def _interrupted(volume: VolumeHome, directory: Path) -> ObjfsError:
    """How far it came: what was unmounted drains without us, what was not stays mounted."""
    with ControlClient(volume.control_path) as mount:
        status = mount.ask("status")
    left = size(int(str(status["dirty_bytes"])))
    if find_mount(directory) is not None:
        return ObjfsError(f"interrupted: {directory} is still mounted, {left} not yet in the buckets")
    return ObjfsError(
        f"interrupted: {directory} is unmounted; {left} left, draining (see objfs status {volume.name})"
    )


def take_dead_away(directory: Path) -> None:
    """A mount whose process died has nobody to drain it.  Raises Unclean when there was one."""
    name = dead_mount(home(), directory)
    if name is not None:
        unmount(directory, lazy=True)
        raise Unclean(
            f"{directory} is unmounted; its process had died, and what it had not uploaded is in the local"
            f" state: mount {name} again to go on"
        )
