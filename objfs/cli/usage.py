"""``objfs usage``: where the bytes go."""

from __future__ import annotations

import os

import click

from objfs.app.home import names_volume
from objfs.app.snapshots import SnapshotCommands
from objfs.cli.context import home, json_option, show, show_json, size
from objfs.cli.secret import SecretFiles, secret_options
from objfs.cli.volume import Volume
from objfs.model import ROOT
from objfs.volume.fields import Fields


@click.command()
@click.argument("place", metavar="[NAME_OR_PATH]", default=".")
@click.argument("path", metavar="[PATH]", default="")
@json_option
@secret_options
def usage(place: str, path: str, as_json: bool, secrets: SecretFiles) -> None:
    """Show the bytes of a volume, or of the tree at PATH on its mount: live, kept by snapshots alone,
    shared, compressed, in the buckets, and unused there.

    A second PATH is one in the volume, mounted or not.
    """
    volume = Volume(place, secrets, lambda engine: SnapshotCommands(engine).table())
    if path:
        answer = volume.ask("usage", writes=False, path=volume.path(path))
    else:
        answer = volume.ask("usage", writes=False, ino=_inode(place))
    if as_json:
        show_json(answer | {"volume": volume.home.name, "path": path or place})
        return
    show(*_lines(Fields(answer, "usage")))


def _trash(kept: int) -> list[str]:
    return [f"  trash only    {size(kept)} of that"] if kept else []


def _inode(place: str) -> int:
    return ROOT if names_volume(home(), place) else os.lstat(place).st_ino


def _lines(answer: Fields) -> list[str]:
    unique, compressed = answer.integer("unique"), answer.integer("compressed")
    ratio = f", ratio {unique / compressed:.2f}" if compressed else ""
    lines = [
        f"live            {size(answer.integer('live'))} in {answer.integer('inodes')} inodes",
        f"snapshots only  {size(answer.integer('snapshot_only'))}",
        *_trash(answer.integer("trash_only")),
        f"deduplicated    {size(answer.integer('deduplicated'))} lie where equal bytes were",
        f"compressed      {size(compressed)} for {size(unique)}{ratio}",
        f"coded           {size(answer.integer('coded'))} in all buckets together",
    ]
    if answer.value.get("garbage") is not None:
        lines.append(f"garbage         {size(answer.integer('garbage'))} in the buckets that nothing needs")
    return lines
