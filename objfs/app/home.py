"""Where volumes are known on this machine, and which one a name or a directory means.

Owns ``OBJFS_HOME``.  A word with a slash, ``.`` or ``..`` is a path, anything else the name of a volume.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from objfs.app.client import ControlClient
from objfs.app.mountpoint import FSTYPE, find_mount, holder_of, is_dead, mounts, resolve
from objfs.errors import HeldElsewhere, NotMounted, ObjfsError
from objfs.volume.local import VolumeHome


def objfs_home(environment: Mapping[str, str]) -> Path:
    """``$OBJFS_HOME``, else /var/lib/objfs for root, else ``$XDG_STATE_HOME/objfs``."""
    if environment.get("OBJFS_HOME"):
        return Path(environment["OBJFS_HOME"]).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/objfs")
    state = environment.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "objfs"


def known_volumes(home: Path) -> list[VolumeHome]:
    """The volumes that have a volume.toml here, by name."""
    if not home.is_dir():
        return []
    return [VolumeHome(home, path.parent.name) for path in sorted(home.glob("*/volume.toml"))]


def is_path(word: str) -> bool:
    return "/" in word or word in (".", "..")


def names_volume(home: Path, word: str) -> bool:
    """Whether ``word`` is the name of a volume that is known here."""
    return not is_path(word) and (home / word / "volume.toml").exists()


def volume_of(home: Path, word: str) -> VolumeHome:
    """The volume meant by a name, or by a path on its mount.  Raises NotMounted, NoSuchVolume, UsageError."""
    place = Path(word)
    if is_path(word) or (not names_volume(home, word) and _is_directory(place)):
        return mounted_at(home, place)
    volume = VolumeHome(home, word)
    volume.require()
    return volume


def _is_directory(place: Path) -> bool:
    """Without asking a mount, which may be dead."""
    return find_mount(place) is not None or place.is_dir()


def mounted_at(home: Path, path: Path) -> VolumeHome:
    """The volume mounted at, or above, ``path``; also one whose mount was taken away and still drains."""
    mount = holder_of(path)
    wanted = mount.directory if mount is not None else resolve(path)
    volumes = known_volumes(home)
    if mount is not None:
        volumes.sort(key=lambda volume: volume.name != mount.source)  # the likely one first
    for volume in volumes:
        if directory_of(volume) == wanted:
            return volume
    if find_mount(wanted) is not None and mount is not None:
        raise NotMounted(f"{wanted} is an objfs mount ({mount.source}) whose process does not answer")
    raise NotMounted(f"no volume of objfs is mounted at {wanted}")


def dead_mount(home: Path, directory: Path) -> str | None:
    """The volume whose mount is still at exactly ``directory`` though its process died."""
    mount = find_mount(directory)
    volume = next((known for known in known_volumes(home) if mount and known.name == mount.source), None)
    if mount is None or volume is None or mount.directory not in dead_places(volume):
        return None
    return volume.name


def dead_places(volume: VolumeHome) -> list[Path]:
    """Where mounts of a volume still are though their processes died."""
    places = [mount.directory for mount in mounts() if (mount.fstype, mount.source) == (FSTYPE, volume.name)]
    # No directory is asked while a process of ours uses the volume: one that hangs would hang us.
    if not places or _in_use(volume):
        return []
    return [place for place in places if is_dead(place)]


def _in_use(volume: VolumeHome) -> bool:
    try:
        volume.lock().release()
    except HeldElsewhere:
        return True
    return False


def has_changes(volume: VolumeHome) -> bool:
    """Whether the local state of a volume may have what the buckets have not, and no process brings it."""
    if not volume.database_path.exists() or volume.clean_path.exists() or volume.is_mirror():
        return False
    return not _in_use(volume)


def directory_of(volume: VolumeHome) -> Path | None:
    """Where the running mount of a volume is, or was; None when none runs."""
    try:
        with ControlClient(volume.control_path) as mount:
            answer = mount.ask("ping", timeout_s=10)
    except ObjfsError:
        return None
    directory = answer.get("directory")
    return Path(directory) if isinstance(directory, str) else None
