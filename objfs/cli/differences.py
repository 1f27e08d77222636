"""``objfs snapshot diff`` and ``restore``, ``objfs versions``: what was, beside what is."""

from __future__ import annotations

import os
import sys
import time

import click

from objfs.app.differences import DifferenceCommands
from objfs.cli.context import json_option, say, show, show_json, show_table, size, table
from objfs.cli.secret import SecretFiles, secret_options
from objfs.cli.volume import Volume, place_and_path
from objfs.volume.fields import JSON, Fields

LETTERS = {"added": "A", "removed": "D", "renamed": "R", "modified": "M", "metadata": "P"}
VOLUME = click.argument("volume", metavar="NAME_OR_DIR")


@click.command()
@VOLUME
@click.argument("older", metavar="SNAPSHOT")
@click.argument("newer", metavar="[NEWER]", required=False, default="")
@click.argument("path", metavar="[PATH]", required=False, default="")
@click.option("-0", "--null", "null", is_flag=True, help="End each field with a zero byte, for programs.")
@json_option
@secret_options
def diff(
    volume: str, older: str, newer: str, path: str, null: bool, as_json: bool, secrets: SecretFiles
) -> None:
    """Show what differs between SNAPSHOT and NEWER, or the present.

    A word with a slash is a PATH, below DIR or in volume NAME: only what lies there is shown.  Letters: A
    added, D removed, R renamed, M changed in content, P changed in attributes.
    """
    if "/" in newer and not path:
        newer, path = "", newer
    found = _items(open_volume(volume, secrets), "snapshot-diff", path, since=older, until=newer)
    if as_json:
        show_json([one.value for one in found])
    else:
        _show(found, null=null)


@click.command()
@VOLUME
@click.argument("name", metavar="SNAPSHOT")
@click.argument("path", metavar="[PATH]", required=False, default="")
@click.option("--dry-run", is_flag=True, help="Show what would be undone, and change nothing.")
@click.option("--no-undo", is_flag=True, help="Take no snapshot of what is there now.")
@json_option
@secret_options
def restore(
    volume: str,
    name: str,
    path: str,
    dry_run: bool,
    no_undo: bool,
    as_json: bool,
    secrets: SecretFiles,
) -> None:
    """Make the volume, or what is below PATH, what it was in SNAPSHOT, in place and at once.

    A snapshot of what is there now is taken first: restoring that undoes it.  Files that are open answer an
    error (ESTALE) where they were replaced.
    """
    asked = open_volume(volume, secrets)
    if dry_run:
        found = _items(asked, "snapshot-diff", path, since=name, until="", exists=True)
        if as_json:
            show_json([one.value for one in found])
            return
        _show(found, null=False)
        say(f"{len(found)} changes since {name} would be undone")
        return
    done = asked.ask("snapshot-restore", writes=True, name=name, path=asked.path(path), undo=not no_undo)
    answer = Fields(done, "restore")
    if as_json:
        show_json(answer.value)
        return
    rewritten, lost = answer.integer("rewritten"), answer.integer("lost")
    say(f"restored {name}: {rewritten} inodes as they were, {lost} removed")
    if answer.text("undo", 1024):
        say(f"to undo it: objfs snapshot restore {volume} {answer.text('undo', 1024)}")


@click.command()
@click.argument("words", metavar="[NAME_OR_DIR] PATH", nargs=-1, required=True)
@json_option
@secret_options
def versions(words: tuple[str, ...], as_json: bool, secrets: SecretFiles) -> None:
    """List the snapshots in which the file at PATH differs, newest first, with size and time.

    PATH is a path on a mount, or a path in volume NAME, mounted or not.
    """
    place, path = place_and_path(words)
    found = _items(open_volume(place, secrets), "versions", path)
    if as_json:
        show_json([one.value for one in found])
        return
    rows = table("SNAPSHOT", "IN", "SIZE", "MODIFIED")
    for one in found:
        name = one.text("snapshot", 1024) if one.value["snapshot"] is not None else "(now)"
        modified = time.strftime(
            "%Y-%m-%d %H:%M:%S", time.localtime(one.integer("mtime_ns", -(2**63)) // 10**9)
        )
        rows.add_row(name, str(one.integer("moments")), size(one.integer("size")), modified)
    show_table(rows)


# --- asking and showing ----------------------------------------------------------------------


def open_volume(word: str, secrets: SecretFiles) -> Volume:
    """To be asked about what was."""
    return Volume(word, secrets, lambda engine: DifferenceCommands(engine).table())


def _items(volume: Volume, command: str, path: str, **arguments: JSON) -> list[Fields]:
    """What a command that changes nothing tells of."""
    return volume.listed(command, "items", writes=False, path=volume.path(path), **arguments)[1]


def _show(found: list[Fields], *, null: bool) -> None:
    for one in found:
        change, path = one.text("change"), one.text("path", 2**20)
        old = one.text("old_path", 2**20) if one.value["old_path"] is not None else ""
        words = [LETTERS[change], *([old] if change == "renamed" else []), path]
        if null:
            sys.stdout.buffer.write(b"".join(os.fsencode(word) + b"\0" for word in words))
        else:
            show(_line(one, words))
    sys.stdout.buffer.flush()


def _line(one: Fields, words: list[str]) -> str:
    slash = "/" if one.text("type") == "directory" else ""
    fields = ", ".join(str(field) for field in one.items("fields", 16))
    names = " -> ".join(word + slash for word in words[1:])
    return f"{words[0]} {names}" + (f"  ({fields})" if fields else "")
