"""``objfs undelete``: what lies in the trash, and the way back."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from objfs.app.client import ControlClient
from objfs.app.home import mounted_at
from objfs.app.wire import Message
from objfs.cli.context import home, json_option, say, show_json, show_table, size, table
from objfs.cli.volume import MOST, mount_of, path_in
from objfs.errors import UsageError
from objfs.volume.fields import JSON, Fields


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--to", "to", metavar="DEST", default="", help="Bring it back as DEST, or into that directory.")
@click.option("--from", "name", metavar="SNAPSHOT", default="", help="As this snapshot shows it.")
@click.option("--empty", is_flag=True, help="Forget all that is in the trash of the mount at PATH, at once.")
@json_option
def undelete(paths: tuple[str, ...], to: str, name: str, empty: bool, as_json: bool) -> None:
    """List what was deleted below PATH, a directory; or bring back what was deleted at each PATH.

    A directory comes back with all that was deleted with it.  Nothing that is there now is changed.
    """
    if empty:
        _empty(_only(paths, "--empty"), as_json=as_json)
    elif len(paths) == 1 and not to and not name and os.path.isdir(paths[0]):
        _list(Path(paths[0]), as_json=as_json)
    else:
        if to and not os.path.isdir(to):
            _only(paths, "--to a name")
        _bring_back(paths, to, name, as_json=as_json)


def _only(paths: tuple[str, ...], option: str) -> Path:
    """Raises UsageError."""
    if len(paths) > 1:
        raise UsageError(f"{option} takes one PATH, not {len(paths)}")
    return Path(paths[0])


def _list(directory: Path, *, as_json: bool) -> None:
    answer, found = _asked(directory, "trash-list", path=path_in(str(directory), "."))
    if as_json:
        show_json([one.value for one in found])
        return
    rows = table("PATH", "SIZE", "NAMES", "AS OF", "SNAPSHOT", "")
    for one in found:
        rows.add_row(
            one.text("path", 2**20) + ("/" if one.text("type") == "directory" else ""),
            size(one.integer("size")),
            str(one.integer("names")),
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.integer("taken_ns") // 10**9)),
            one.text("snapshot", 1024),
            "name is taken" if one.flag("in_the_way") else "",
        )
    if found:
        show_table(rows)
    else:
        say("nothing in the trash here")
    if not answer["days"] and not answer.get("read_only"):
        say("trash_days is 0: what is deleted now is not kept")


def _bring_back(paths: tuple[str, ...], to: str, name: str, *, as_json: bool) -> None:
    done = []
    for path in paths:
        directory = mount_of(Path(path))
        target = path_in(str(directory), os.path.abspath(to)) if to else ""
        where = path_in(str(directory), os.path.abspath(path))
        back = _back(path, to)
        answer = Fields(_asked(directory, "trash-undelete", path=where, to=target, name=name)[0], "undelete")
        done.append(answer.value | {"path": path})
        if not as_json:
            say(f"{back} as of {answer.text('snapshot', 1024)}: {answer.integer('names')} names")
    if as_json:
        show_json(done)


def _back(path: str, to: str) -> str:
    """To be asked before: DEST may be a directory afterwards because it came back as that."""
    place = os.path.join(to, os.path.basename(os.path.abspath(path))) if os.path.isdir(to) else to
    return f"{path} is back as {place}," if to else f"{path} is back"


def _empty(directory: Path, *, as_json: bool) -> None:
    answer = _asked(mount_of(directory), "trash-empty")[0]
    if as_json:
        show_json(answer)
    else:
        say(f"the trash is empty; snapshots of it deleted: {answer['deleted']}")


def _asked(directory: Path, command: str, **arguments: JSON) -> tuple[Message, list[Fields]]:
    """What the mount at a directory answers, and the items that it told of before."""
    found: list[Fields] = []

    def collect(message: Message) -> None:
        found.extend(Fields(message, command).objects("items", MOST))

    with ControlClient(mounted_at(home(), directory).control_path) as mount:
        return mount.ask(command, collect, timeout_s=None, **arguments), found
