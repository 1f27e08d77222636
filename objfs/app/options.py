"""Mount options: the one table of what ``-o`` understands.

Owns the meaning of every option that mount(8), fstab and ``objfs mount -o`` may give.  Promises that an
unknown option, or one with a bad value, raises BadSetting naming it.  Settings of ``volume.toml`` can be
given as options too and hold for this mount alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from objfs.errors import BadSetting
from objfs.fs import AtimeRule
from objfs.model import NAME_MAX
from objfs.volume.settings import BY_NAME, Value, parse_value


class Effect(Enum):
    """What an option does."""

    KERNEL = "handed to the kernel"
    ATIME = "the rule for access times"
    IGNORED = "understood and without effect here"
    OWN = "of objfs"


@dataclass(frozen=True, slots=True)
class Option:
    """One row: ``value`` names what follows the ``=``, empty where nothing may."""

    name: str
    effect: Effect
    meaning: str
    value: str = ""


OPTIONS: tuple[Option, ...] = (
    Option("rw", Effect.KERNEL, "Read and write (the default)."),
    Option("ro", Effect.KERNEL, "Read only: takes no lease, so other machines may go on."),
    Option("dev", Effect.KERNEL, "Device files work."),
    Option("nodev", Effect.KERNEL, "Device files do not work (the default)."),
    Option("suid", Effect.KERNEL, "Set-user-id bits work."),
    Option("nosuid", Effect.KERNEL, "Set-user-id bits do not work (the default)."),
    Option("exec", Effect.KERNEL, "Programs may be run (the default)."),
    Option("noexec", Effect.KERNEL, "Programs may not be run."),
    Option("sync", Effect.KERNEL, "Every write is an fsync."),
    Option("async", Effect.KERNEL, "Writes are asynchronous (the default)."),
    Option("dirsync", Effect.KERNEL, "Every change of a directory is an fsyncdir."),
    Option(
        "relatime", Effect.ATIME, "Reading sets access times behind a change, or a day old (the default)."
    ),
    Option("strictatime", Effect.ATIME, "Reading always sets the access time."),
    Option("noatime", Effect.ATIME, "Reading never sets access times."),
    Option("nodiratime", Effect.OWN, "Reading never sets access times of directories."),
    Option("acl", Effect.OWN, "POSIX ACLs are enforced (the default)."),
    Option("noacl", Effect.OWN, "POSIX ACLs are kept; access is checked by the mode alone."),
    Option("defaults", Effect.IGNORED, "The defaults."),
    Option("auto", Effect.IGNORED, "For mount -a."),
    Option("noauto", Effect.IGNORED, "For mount -a."),
    Option("nofail", Effect.IGNORED, "For mount -a and systemd."),
    Option("user", Effect.IGNORED, "For mount(8): any user may mount."),
    Option("users", Effect.IGNORED, "For mount(8): any user may mount and unmount."),
    Option("nouser", Effect.IGNORED, "For mount(8)."),
    Option("_netdev", Effect.IGNORED, "For mount -a and systemd: wait for the network."),
    Option("default_permissions", Effect.IGNORED, "The kernel checks permissions (always)."),
    Option("user_id", Effect.IGNORED, "What the kernel shows of a mount, and hands back at a remount.", "ID"),
    Option("group_id", Effect.IGNORED, "The same.", "ID"),
    Option("max_read", Effect.IGNORED, "The same.", "BYTES"),
    Option("remount", Effect.OWN, "Change a running mount (see above)."),
    Option("allow_other", Effect.OWN, "Other users may use the mount, as permissions say."),
    Option("follow", Effect.OWN, "Read only, and goes on to newer moments as they are published."),
    Option("writeback", Effect.OWN, "Let the kernel delay writes: faster, and only fsync promises order."),
    Option("subdir", Effect.OWN, "Mount only this directory of the volume.", "PATH"),
    Option("snapshot", Effect.OWN, "Mount this snapshot, read only, instead of the present.", "NAME"),
    Option("snapshot_dir", Effect.OWN, "The directory of snapshots, `.snapshots` if not given.", "NAME"),
    Option("show_snapshots", Effect.OWN, "That directory is listed too."),
    Option("take_over", Effect.OWN, "Take the volume from a machine that is gone."),
    Option("force", Effect.OWN, "Mount although fewer than a majority of the buckets answer."),
    Option("passphrase_file", Effect.OWN, "Read the passphrase from this file.", "FILE"),
    Option("key_file", Effect.OWN, "Open the volume with this key file.", "FILE"),
)
REFUSED: Mapping[str, str] = {
    "auto_unmount": "refused on purpose: where a file system died its directory must not look empty"
}
"""Options of other file systems that people bring along, with what they are told."""
KNOWN: Mapping[str, Option] = {option.name: option for option in OPTIONS}


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What ``-o`` asked for.  ``kernel`` keeps its order; ``settings`` are by name of SETTINGS."""

    kernel: tuple[str, ...] = ()
    read_only: bool = False
    follow: bool = False
    allow_other: bool = False
    acl: bool = True
    atime: AtimeRule = AtimeRule.RELATIME
    diratime: bool = True
    writeback: bool = False
    remount: bool = False
    take_over: bool = False
    force: bool = False
    subdir: str = ""
    snapshot: str = ""
    snapshot_dir: str = ".snapshots"
    show_snapshots: bool = False
    passphrase_file: Path | None = None
    key_file: Path | None = None
    settings: Mapping[str, Value] = field(default_factory=dict)


def parse(texts: Iterable[str]) -> MountOptions:
    """Comma-separated options, the later ones win.  Raises BadSetting."""
    options = MountOptions()
    for text in texts:
        for item in filter(None, text.split(",")):
            options = _apply(options, *item.partition("=")[::2])
    return of_snapshot(_kernel(options, "ro") if options.follow else options, options.snapshot)


def of_snapshot(options: MountOptions, snapshot: str) -> MountOptions:
    """The same for a mount of a snapshot, where one is named.  Raises BadSetting."""
    if not snapshot:
        return options
    if options.follow:
        raise BadSetting("options follow and snapshot: a snapshot has no newer moments")
    return replace(_kernel(options, "ro"), snapshot=snapshot)


def _apply(options: MountOptions, name: str, value: str) -> MountOptions:
    if name.startswith(("x-", "X-", "comment")):
        return options  # for mount(8), systemd and people
    if name in BY_NAME:
        parsed = parse_value(f"option {name}", name, value)
        return replace(options, settings={**options.settings, name: parsed})
    option = KNOWN.get(name)
    if option is None:
        raise BadSetting(f"option {name}: {REFUSED.get(name, 'objfs has no such mount option')}")
    if bool(value) != bool(option.value):
        raise BadSetting(f"option {name}: " + (f"needs {option.value}" if option.value else "takes no value"))
    if option.effect is Effect.KERNEL:
        return _kernel(options, name)
    if option.effect is Effect.ATIME:
        return _atime(options, name)
    return options if option.effect is Effect.IGNORED else _own(options, name, value)


def _kernel(options: MountOptions, name: str) -> MountOptions:
    read_only = {"ro": True, "rw": False}.get(name, options.read_only)
    opposite = name[2:] if name.startswith("no") else f"no{name}"
    swapped = {"ro": "rw", "rw": "ro", "sync": "async", "async": "sync"}.get(name, opposite)
    kept = tuple(item for item in options.kernel if item not in (name, swapped))
    return replace(options, kernel=(*kept, name), read_only=read_only)


def _atime(options: MountOptions, name: str) -> MountOptions:
    """The kernel keeps no access times of a FUSE file system; of ``noatime`` it is told to show it."""
    rule = AtimeRule(name)
    kept = tuple(item for item in options.kernel if item != AtimeRule.NOATIME)
    shown = (name,) if rule is AtimeRule.NOATIME else ()
    return replace(options, kernel=(*kept, *shown), atime=rule)


def _own(options: MountOptions, name: str, value: str) -> MountOptions:
    if name == "subdir":
        return replace(options, subdir=value.strip("/"))
    if name == "snapshot":
        return replace(options, snapshot=value)
    if name == "snapshot_dir":
        return replace(options, snapshot_dir=_entry_name(value))
    if name == "passphrase_file":
        return replace(options, passphrase_file=Path(value))
    if name == "key_file":
        return replace(options, key_file=Path(value))
    if name in ("acl", "noacl"):
        return replace(options, acl=name == "acl")
    return replace(options, remount=options.remount or name == "remount",
                   diratime=options.diratime and name != "nodiratime",
                   allow_other=options.allow_other or name == "allow_other",
                   follow=options.follow or name == "follow",
                   show_snapshots=options.show_snapshots or name == "show_snapshots",
                   writeback=options.writeback or name == "writeback",
                   take_over=options.take_over or name == "take_over",
                   force=options.force or name == "force")  # fmt: skip


def _entry_name(value: str) -> str:
    """Raises BadSetting for what no entry of a directory can be called."""
    if value in (".", "..") or "/" in value or len(os.fsencode(value)) > NAME_MAX:
        raise BadSetting(f"option snapshot_dir: {value!r} cannot be the name of a directory")
    return value


def kernel_arguments(options: MountOptions, source: str) -> set[str]:
    """The options for libfuse: what /proc/mounts will show, and who checks permissions."""
    arguments = {f"fsname={_escape(source)}", "subtype=objfs", "default_permissions", *options.kernel}
    if options.read_only:
        arguments.add("ro")
    if options.allow_other:
        arguments.add("allow_other")
    return arguments


def _escape(text: str) -> str:
    """libfuse splits options at commas and reads backslashes as escapes."""
    return text.replace("\\", "\\\\").replace(",", "\\,")
