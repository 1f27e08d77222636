"""``objfs usage``: where the bytes go."""

from __future__ import annotations

import os
from pathlib import Path

import click

from objfs.app.home import is_path, volume_of
from objfs.app.offline import ask
from objfs.app.snapshots import SnapshotCommands
from objfs.cli.context import home, json_option, show_json, size
from objfs.cli.secret import SecretFiles, read_secret, secret_options
from objfs.model import ROOT
from objfs.volume.fields import Fields


@click.command()
@click.argument("place", metavar="[NAME_OR_PATH]", default=".")
@json_option
@secret_options
def usage(
    place: str,
    as_json: bool,
    passphrase_file: Path | None,
    key_file: Path | None,
    recovery_key_file: Path | None,
) -> None:
    """Show the bytes of a volume, or of the tree at PATH on its mount: live, kept by snapshots alone,
    shared, compressed, in the buckets, and unused there."""
    volume = volume_of(home(), place)
    files = SecretFiles(passphrase_file, key_file, recovery_key_file)
    inode = os.lstat(place).st_ino if is_path(place) or not (home() / place).exists() else ROOT
    answer = ask(
        volume,
        lambda: read_secret(volume.name, files),
        lambda engine: SnapshotCommands(engine).table(),
        "usage",
        writes=False,
        ino=inode,
    )
    if as_json:
        show_json(answer | {"volume": volume.name, "path": place})
        return
    for line in _lines(Fields(answer, "usage")):
        click.echo(line)


def _trash(kept: int) -> list[str]:
    return [f"  trash only    {size(kept)} of that"] if kept else []


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
