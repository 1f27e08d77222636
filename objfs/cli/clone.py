"""``objfs clone``: a copy of a file or a tree that shares its bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from objfs.app.client import ControlClient
from objfs.app.home import mounted_at
from objfs.app.wire import Message
from objfs.cli.context import home, say, size
from objfs.errors import UsageError
from objfs.volume.fields import Fields


@click.command()
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.argument("target", metavar="DST", type=click.Path(path_type=Path))
def clone(source: Path, target: Path) -> None:
    """Copy the file or tree SRC to DST on the same mount, sharing all bytes.

    DST must not exist.  Nobody sees half of it.  Owners, modes, times, attributes and hard links are kept.
    SRC may lie in a snapshot.
    """
    if os.path.lexists(target):
        raise UsageError(f"{target} exists: a clone needs a name that is free")
    with _held(source, os.O_NOFOLLOW) as what, _held(target.parent, os.O_DIRECTORY) as where:
        if what.st_dev != where.st_dev:
            raise UsageError(f"{source} and {target} lie on different mounts: use cp")
        answer = _ask(target, what.st_ino, where.st_ino)
    made = Fields(answer, "clone")
    say(f"{target} is a clone of {source}: {made.integer('inodes')} inodes, {size(made.integer('bytes'))}")
    if answer.get("writeback"):
        say("the mount has -o writeback: what programs wrote and did not fsync may be missing in it")


def _ask(target: Path, source: int, parent: int) -> Message:
    volume = mounted_at(home(), target.parent)
    with ControlClient(volume.control_path) as mount:
        return mount.ask("clone", ino=source, parent=parent, name=target.name)


@contextmanager
def _held(path: Path, flags: int) -> Iterator[os.stat_result]:
    """What is at a path; its number keeps its meaning while the body runs."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | flags)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    try:
        yield os.fstat(descriptor)
    finally:
        os.close(descriptor)
