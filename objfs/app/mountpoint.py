"""The place to mount on, and what the kernel says is mounted where.

Owns the checks before a mount, the reading of ``/proc/self/mountinfo`` and the unmounting.  A mount point
that objfs makes for root has mode 000: when nothing is mounted there, nobody can write below it by mistake,
and an ``rsync --delete`` fails and does not empty the other side.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from objfs.errors import MountError, MountPointUnusable, NotMounted

FSTYPE = "fuse.objfs"
MNT_DETACH = 2
LINKS_MAX = 40
"""As many as the kernel follows."""
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of mountinfo: ``source`` is the volume's name for a mount of ours."""

    directory: Path
    fstype: str
    source: str
    options: tuple[str, ...] = ()


def mounts(path: Path = Path("/proc/self/mountinfo")) -> Iterator[Mounted]:
    """All mounts that this process sees, oldest first."""
    for line in path.read_bytes().splitlines():
        fields = line.split(b" ")
        dash = fields.index(b"-")
        fstype, source = fields[dash + 1].decode("ascii", "replace"), os.fsdecode(_unescape(fields[dash + 2]))
        options = tuple(fields[5].decode("ascii", "replace").split(","))
        yield Mounted(Path(os.fsdecode(_unescape(fields[4]))), fstype, source, options)


def _unescape(field: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)


def find_mount(directory: Path) -> Mounted | None:
    """What is mounted on exactly this directory, on top.  Never touches what is mounted."""
    wanted = resolve(directory)
    found = [mount for mount in mounts() if mount.directory == wanted]
    return found[-1] if found else None


def resolve(directory: Path) -> Path:
    """The absolute path with symlinks followed.

    The last part is only asked whether it is a link: that is the one question which the kernel answers for
    a mount without its process, and a dead mount blocks or fails at any other.
    """
    absolute = Path(os.path.abspath(directory))  # resolve() would touch the mount
    for _ in range(LINKS_MAX):
        absolute = absolute.parent.resolve() / absolute.name if absolute.name else absolute
        try:
            absolute = Path(os.path.abspath(absolute.parent / absolute.readlink()))
        except OSError:
            return absolute
    raise MountPointUnusable(f"{directory}: too many symbolic links")


def holder_of(path: Path) -> Mounted | None:
    """The objfs mount that holds ``path``, or None."""
    wanted = resolve(path)
    above = [mount for mount in mounts() if wanted == mount.directory or mount.directory in wanted.parents]
    deepest = max(above, key=lambda mount: len(mount.directory.parts), default=None)
    return deepest if deepest is not None and deepest.fstype == FSTYPE else None


def is_dead(directory: Path) -> bool:
    """Whether the mount there has lost its process; waits for as long as a process there hangs."""
    try:
        os.statvfs(directory)  # attributes may still be answered from the kernel's memory
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def prepare(directory: Path, *, make: bool) -> Path:
    """Checks the place, makes it (mode 000) where asked.  Raises MountPointUnusable."""
    place = resolve(directory)
    there = find_mount(place)
    if there is not None and there.fstype.startswith("fuse"):
        raise MountPointUnusable(
            f"{place} is a mount point already ({there.fstype} {there.source}); unmount it first"
        )
    try:
        kind = place.stat().st_mode
    except FileNotFoundError:
        if not make:
            raise MountPointUnusable(f"{place} does not exist; make an empty directory there") from None
        return _make(place)
    except OSError as error:
        raise MountPointUnusable(f"{place}: {error.strerror}") from None
    if not stat.S_ISDIR(kind):
        raise MountPointUnusable(f"{place} is not a directory")
    _require_empty(place, kind)
    return place.resolve()


def _make(place: Path) -> Path:
    """Root's has mode 000: nobody writes below it while nothing is mounted.  Others mount by fusermount3,
    which wants a directory that its caller may enter and write to."""
    try:
        place.mkdir(mode=0o000 if os.geteuid() == 0 else 0o700, parents=True)
    except OSError as error:
        raise MountPointUnusable(f"{place} cannot be made: {error.strerror}") from None
    return place


def _require_empty(place: Path, mode: int) -> None:
    try:
        with os.scandir(place) as entries:
            first = next(entries, None)
    except PermissionError:
        if stat.S_IMODE(mode) == 0:
            return  # one of ours: made with mode 000, and nobody but root can put anything there
        raise MountPointUnusable(f"{place} cannot be read") from None
    if first is not None:
        raise MountPointUnusable(
            f"{place} is not empty (it holds {first.name!r}); mount on an empty directory"
        )


def remount(directory: Path, options: set[str]) -> None:
    """Changes the options of a running mount, in the kernel alone.  Raises NotMounted, MountError."""
    there = find_mount(directory)
    if there is None or there.fstype != FSTYPE:
        raise NotMounted(f"no objfs mount at {directory} to change the options of")
    wanted = ",".join(sorted(options & _REMOUNTABLE | {"remount"}))
    command = ["mount", "-i", "-o", wanted, str(there.directory)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise MountError(f"{directory} cannot be remounted: {done.stderr.strip()}")


_REMOUNTABLE = frozenset(
    ["ro", "rw", "dev", "nodev", "suid", "nosuid", "exec", "noexec", "noatime", "sync", "async"]
)

# --- unmounting ----------------------------------------------------------------------------


def unmount(directory: Path, *, lazy: bool = False) -> None:
    """Unmounts; blocks while the kernel hands back what it holds, so never call it on the event loop.

    Raises MountError naming the reason (busy), NotMounted when nothing is mounted there.
    """
    if find_mount(directory) is None:
        raise NotMounted(f"nothing is mounted at {directory}")
    if os.geteuid() == 0:
        _unmount_by_call(directory, MNT_DETACH if lazy else 0)
    else:
        _unmount_by_helper(directory, ["-z"] if lazy else [])


def _unmount_by_call(directory: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(directory), flags) != 0:
        number = ctypes.get_errno()
        raise MountError(f"{directory} cannot be unmounted: {os.strerror(number)}{_hint(number)}")


def _unmount_by_helper(directory: Path, flags: list[str]) -> None:
    done = subprocess.run(["fusermount3", "-u", *flags, "--", str(directory)], capture_output=True, text=True)
    if done.returncode != 0:
        reason = done.stderr.strip().rpartition(": ")[2]
        raise MountError(f"{directory} cannot be unmounted: {reason}{_hint(16 if 'busy' in reason else 0)}")


def _hint(number: int) -> str:
    return " (a program has a file open there or stands in it; see fuser -vm)" if number == 16 else ""
