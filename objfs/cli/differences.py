"""``objfs snapshot diff`` and ``restore``, ``objfs versions``: what was, beside what is."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from objfs.app.client import ControlClient
from objfs.app.home import mounted_at
from objfs.app.mountpoint import holder_of, resolve
from objfs.app.wire import Message
from objfs.cli.context import home, json_option, say, show_json, show_table, size, table
from objfs.errors import NotMounted, UsageError
from objfs.volume.fields import JSON, Fields

LETTERS = {"added": "A", "removed": "D", "renamed": "R", "modified": "M", "metadata": "P"}
DIRECTORY = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
MOST = 10_000


@click.command()
@DIRECTORY
@click.argument("older", metavar="SNAPSHOT")
@click.argument("newer", metavar="[NEWER]", required=False, default="")
@click.argument("path", metavar="[PATH]", required=False, default="")
@click.option("-0", "--null", "null", is_flag=True, help="End each field with a zero byte, for programs.")
@json_option
def diff(directory: Path, older: str, newer: str, path: str, null: bool, as_json: bool) -> None:
    """Show what differs between SNAPSHOT and NEWER, or the present.

    A word with a slash is a PATH, below DIR: only what lies there is shown.  Letters: A added, D removed,
    R renamed, M changed in content, P changed in attributes.
    """
    if "/" in newer and not path:
        newer, path = "", newer
    where = path_in(directory, path)
    found = asked(directory, "snapshot-diff", since=older, until=newer, path=where)[1]
    if as_json:
        show_json([one.value for one in found])
    else:
        _show(found, null=null)


@click.command()
@DIRECTORY
@click.argument("name", metavar="SNAPSHOT")
@click.argument("path", metavar="[PATH]", required=False, default="")
@click.option("--dry-run", is_flag=True, help="Show what would be undone, and change nothing.")
@click.option("--no-undo", is_flag=True, help="Take no snapshot of what is there now.")
@json_option
def restore(directory: Path, name: str, path: str, dry_run: bool, no_undo: bool, as_json: bool) -> None:
    """Make the volume, or what is below PATH, what it was in SNAPSHOT, in place and at once.

    A snapshot of what is there now is taken first: restoring that undoes it.  Files that are open answer an
    error (ESTALE) where they were replaced.
    """
    where = path_in(directory, path)
    if dry_run:
        found = asked(directory, "snapshot-diff", since=name, until="", path=where, exists=True)[1]
        if as_json:
            show_json([one.value for one in found])
            return
        _show(found, null=False)
        say(f"{len(found)} changes since {name} would be undone")
        return
    answer = Fields(
        asked(directory, "snapshot-restore", name=name, path=where, undo=not no_undo)[0], "restore"
    )
    if as_json:
        show_json(answer.value)
        return
    rewritten, lost = answer.integer("rewritten"), answer.integer("lost")
    say(f"restored {name}: {rewritten} inodes as they were, {lost} removed")
    if answer.text("undo", 1024):
        say(f"to undo it: objfs snapshot restore {directory} {answer.text('undo', 1024)}")


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@json_option
def versions(path: Path, as_json: bool) -> None:
    """List the snapshots in which the file at PATH differs, newest first, with size and time."""
    directory = mount_of(path)
    where = path_in(directory, os.path.abspath(path))
    found = asked(directory, "versions", path=where)[1]
    if as_json:
        show_json([one.value for one in found])
        return
    rows = table("SNAPSHOT", "IN", "SIZE", "MODIFIED")
    for one in found:
        name = printable(one.text("snapshot", 1024)) if one.value["snapshot"] is not None else "(now)"
        modified = time.strftime(
            "%Y-%m-%d %H:%M:%S", time.localtime(one.integer("mtime_ns", -(2**63)) // 10**9)
        )
        rows.add_row(name, str(one.integer("moments")), size(one.integer("size")), modified)
    show_table(rows)


# --- paths -----------------------------------------------------------------------------------


def mount_of(path: Path) -> Path:
    """The directory at which the mount above a path is.  Raises NotMounted."""
    mount = holder_of(path)
    if mount is None:
        raise NotMounted(f"{path} is not below a mount of objfs")
    return mount.directory


def path_in(directory: Path, path: str) -> str:
    """From the root of the mount.  What does not begin with a slash is below the directory; the last name is
    not followed where it is a link.  Raises UsageError."""
    if not path:
        return "/"
    top = mount_of(directory)
    word = os.path.normpath(os.path.join(resolve(directory), path))
    parent, name = os.path.split(word)
    full = os.path.join(os.path.realpath(parent), name)
    if full != str(top) and not full.startswith(f"{top}/"):
        raise UsageError(f"{path} is not below {directory}")
    return "/" + full[len(str(top)) :].strip("/")


# --- asking and showing ----------------------------------------------------------------------


def asked(directory: Path, command: str, **arguments: JSON) -> tuple[Message, list[Fields]]:
    """What the mount at a directory answers, and the items that it told of before."""
    found: list[Fields] = []

    def collect(message: Message) -> None:
        found.extend(Fields(message, command).objects("items", MOST))

    volume = mounted_at(home(), directory)
    with ControlClient(volume.control_path) as mount:
        return mount.ask(command, collect, timeout_s=None, **arguments), found


def _show(found: list[Fields], *, null: bool) -> None:
    for one in found:
        change, path = one.text("change"), one.text("path", 2**20)
        old = one.text("old_path", 2**20) if one.value["old_path"] is not None else ""
        words = [LETTERS[change], *([old] if change == "renamed" else []), path]
        if null:
            sys.stdout.buffer.write(b"".join(os.fsencode(word) + b"\0" for word in words))
        else:
            click.echo(_line(one, words))
    sys.stdout.buffer.flush()


def _line(one: Fields, words: list[str]) -> str:
    slash = "/" if one.text("type") == "directory" else ""
    fields = ", ".join(str(field) for field in one.items("fields", 16))
    names = " -> ".join(printable(word) + slash for word in words[1:])
    return f"{words[0]} {names}" + (f"  ({fields})" if fields else "")


def printable(name: str) -> str:
    """A name for people."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
