"""``objfs recover``: a volume whose inode table and checkpoints are gone, from the segments alone."""

from __future__ import annotations

from pathlib import Path

import click

from objfs.app.recover import Rescued, rescue
from objfs.cli.context import home, json_option, notes, show, show_json, show_table, size, table
from objfs.cli.secret import SecretFiles, read_secret, secret_options
from objfs.errors import UsageError
from objfs.volume.local import VolumeHome


@click.command()
@click.argument("name")
@click.argument("destination", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--scan", is_flag=True, help="Read the segments' own indexes (there is no other way).")
@click.option("--publish", is_flag=True, help="Make what was found the volume's newest moment.")
@click.option("--take-over", is_flag=True, help="For --publish: take the volume from a machine that is gone.")
@click.option("--force", is_flag=True, help="For --publish: go on although too few buckets answer.")
@json_option
@secret_options
def recover(
    name: str,
    destination: Path | None,
    scan: bool,
    publish: bool,
    take_over: bool,
    force: bool,
    as_json: bool,
    secrets: SecretFiles,
) -> int:
    """Rebuild volume NAME from its segments, when its inode table and every checkpoint are gone.

    Says what could be rebuilt; copies the files into DESTINATION, and makes them the volume's newest moment,
    only where that is asked for.  Files are named by their inode numbers: no index knows more.
    """
    if not scan:
        raise UsageError("a volume with checkpoints is recovered by mounting it; without any, say --scan")
    volume = VolumeHome(home(), name)
    volume.require()
    secret = read_secret(name, secrets)
    if destination is not None:
        destination.mkdir(parents=True, exist_ok=True)
    done = rescue(
        volume,
        secret,
        destination,
        publish=publish,
        take_over=take_over,
        force=force,
        note=notes(),
    )
    if as_json:
        show_json(done.to_json() | {"volume": name})
    else:
        _show(done, destination)
    return int(done.exit_code)


def _show(done: Rescued, destination: Path | None) -> None:
    found = done.found
    rows = table("FILE", "SIZE", "CHUNKS", "NOTHING IS KNOWN OF CHUNKS")
    for ino in sorted(found.files):
        holes = " ".join(map(str, found.holes(ino)))
        rows.add_row(f"#{ino}", size(found.size(ino)), str(len(found.files[ino])), holes)
    show_table(rows)
    for uuid, why in sorted(found.unreadable.items()):
        show(f"segment {uuid.hex()} cannot be read: {why}")
    for slot, why in sorted(found.silent.items()):
        show(f"bucket {slot} was not seen: {why}")
    for ino, whys in sorted(done.failures.items()):
        show(f"#{ino} is incomplete: {'; '.join(whys)}")
    total = sum(found.size(ino) for ino in found.files)
    show(f"{len(found.files)} files, {size(total)}, from {found.seen} segments: {_what(done, destination)}")


def _what(done: Rescued, destination: Path | None) -> str:
    said = [f"copied to {destination}"] if destination is not None else []
    said += [f"published as moment {done.sequence}, in lost+found"] if done.sequence else []
    return " and ".join(said) or "nothing was written (give a directory, or --publish)"
