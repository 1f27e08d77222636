"""``objfs cat``: a file as it was in a snapshot, read where the mount shows it, or out of the volume."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from objfs.app.cat import cat as read_alone
from objfs.app.client import ControlClient
from objfs.cli.differences import open_volume
from objfs.cli.secret import SecretFiles, secret_options
from objfs.cli.volume import Volume, place_and_path
from objfs.errors import NotMounted, UsageError


@click.command()
@click.argument("words", metavar="[NAME_OR_DIR] PATH@SNAPSHOT", nargs=-1, required=True)
@secret_options
def cat(words: tuple[str, ...], secrets: SecretFiles) -> None:
    """Write the file at PATH, as it was in SNAPSHOT, to standard output.

    PATH is a path on a mount, or a path in volume NAME, mounted or not.
    """
    whole, at, name = words[-1].rpartition("@")
    if not at or not whole or not name:
        raise UsageError(f"{words[-1]} is not of the form PATH@SNAPSHOT")
    place, path = place_and_path((*words[:-1], whole))
    volume = open_volume(place, secrets)
    try:
        source = _shown(volume, name) / volume.path(path).lstrip("/")
    except NotMounted:
        order = (volume.home, volume.secret(), name, os.fsencode(volume.path(path)))
        read_alone(*order, sys.stdout.buffer)
    else:
        with source.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def _shown(volume: Volume, name: str) -> Path:
    """The directory of a snapshot on the running mount.  Raises NotMounted, NoSuchSnapshot."""
    with ControlClient(volume.home.control_path) as mount:
        directory = mount.ask("snapshot-directory", name=name)["directory"]
        return Path(str(mount.ask("ping")["directory"]), str(directory), name)
