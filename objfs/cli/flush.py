"""``objfs flush``: return when what was written before is safe."""

from __future__ import annotations

import click

from objfs.app.client import ControlClient
from objfs.app.home import volume_of
from objfs.cli.bars import draining
from objfs.cli.context import home


@click.command()
@click.argument("volume", metavar="NAME_OR_DIR")
@click.option("--local", "where", flag_value="local", help="On this machine's disk is enough.")
@click.option(
    "--bucket", "where", flag_value="bucket", default=True, help="Recoverable from the buckets (the default)."
)
def flush(volume: str, where: str) -> None:
    """Return when all that was written before is recoverable from the buckets."""
    with (
        ControlClient(volume_of(home(), volume).control_path) as mount,
        draining("flushing") as progress,
    ):
        mount.ask("flush", progress, timeout_s=None, where=where)
