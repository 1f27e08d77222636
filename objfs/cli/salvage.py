"""``objfs salvage``: what was written here and never reached the buckets, copied out."""

from __future__ import annotations

from pathlib import Path

import click

from objfs.app.salvage import salvage as run_salvage
from objfs.cli.context import home, json_option, notes, show, show_json, size
from objfs.cli.secret import SecretFiles, read_secret, secret_options
from objfs.errors import UsageError
from objfs.volume.local import VolumeHome
from objfs.volume.salvage import Salvaged


@click.command()
@click.argument("name")
@click.argument("destination", type=click.Path(path_type=Path, file_okay=False))
@click.option("--from", "wanted", default="", metavar="STATE", help="salvage-..., or current.")
@click.option("--local", is_flag=True, help="Ask no bucket: what is only there is missing in the copy.")
@json_option
@secret_options
def salvage(
    name: str,
    destination: Path,
    wanted: str,
    local: bool,
    as_json: bool,
    secrets: SecretFiles,
) -> int:
    """Copy into DESTINATION what was written to volume NAME here and is not in the buckets.

    For a state that was set aside because another machine went on, or because it was damaged.  Nothing of
    the state, and nothing in the buckets, is changed.
    """
    volume = VolumeHome(home(), name)
    volume.require()
    if destination.exists() and any(destination.iterdir()):
        raise UsageError(f"{destination} is not empty: give a directory that is, or a new one")
    done = run_salvage(volume, None if local else read_secret(name, secrets), destination, wanted, notes())
    if as_json:
        show_json(done.to_json() | {"volume": name})
    else:
        _show(done, destination)
    return int(done.exit_code)


def _show(done: Salvaged, destination: Path) -> None:
    for path, nbytes in done.files:
        show(f"copied     {path} ({size(nbytes)})")
    for path in done.others:
        show(f"made       {path}")
    for path, why in done.incomplete.items():
        for line in why:
            show(f"missing    {path}: {line}")
    for path, reason in done.left_out.items():
        show(f"left out   {path}: {reason}")
    for remark in done.remarks:
        show(f"remark     {remark}")
    whole = len(done.files) - len(done.incomplete)
    show(
        f"{whole} files copied whole, {len(done.incomplete)} incomplete, {len(done.left_out)} left out, "
        f"from {done.source} to {destination}"
    )
