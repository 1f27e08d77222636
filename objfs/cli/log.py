"""``objfs log``: how much a running mount writes into its log."""

from __future__ import annotations

import click

from objfs.app.client import ControlClient
from objfs.app.home import volume_of
from objfs.cli.context import home


@click.group()
def log() -> None:
    """The log of a running mount."""


@log.command()
@click.argument("volume", metavar="NAME_OR_DIR")
@click.argument("level", type=click.Choice(["debug", "info", "warning", "error"]))
def level(volume: str, level: str) -> None:
    """Set how much is logged until the mount ends."""
    with ControlClient(volume_of(home(), volume).control_path) as mount:
        mount.ask("log-level", level=level)
