"""``objfs cat``: a file as it was in a snapshot, read where the mount shows it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from objfs.app.client import ControlClient
from objfs.app.home import mounted_at
from objfs.cli.context import home
from objfs.cli.differences import mount_of, path_in
from objfs.errors import UsageError


@click.command()
@click.argument("word", metavar="PATH@SNAPSHOT")
def cat(word: str) -> None:
    """Write the file at PATH, as it was in SNAPSHOT, to standard output."""
    path, at, name = word.rpartition("@")
    if not at or not path or not name:
        raise UsageError(f"{word} is not of the form PATH@SNAPSHOT")
    directory = mount_of(Path(path))
    with ControlClient(mounted_at(home(), directory).control_path) as mount:
        shown = mount.ask("snapshot-directory", name=name)["directory"]
    source = directory / str(shown) / name / path_in(directory, os.path.abspath(path)).lstrip("/")
    with source.open("rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()
