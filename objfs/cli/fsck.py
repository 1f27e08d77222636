"""``objfs fsck``: check a volume, mounted or not; mend one that is not."""

from __future__ import annotations

from functools import partial

import click

from objfs.app.fsck import fsck as run_fsck
from objfs.app.home import volume_of
from objfs.cli.context import home, json_option, notes, show, show_json
from objfs.cli.secret import SecretFiles, read_secret, secret_options
from objfs.volume.fsck_report import lines


@click.command()
@click.argument("volume", metavar="NAME_OR_DIR")
@click.option("--repair", is_flag=True, help="Mend what can be mended; the volume must not be mounted here.")
@click.option("--data", is_flag=True, help="Read every object and open every chunk, too.")
@click.option("--take-over", is_flag=True, help="For --repair: take the volume from a machine that is gone.")
@click.option("--force", is_flag=True, help="For --repair: go on although too few buckets answer.")
@json_option
@secret_options
def fsck(
    volume: str,
    repair: bool,
    data: bool,
    take_over: bool,
    force: bool,
    as_json: bool,
    secrets: SecretFiles,
) -> int:
    """Check the whole volume: inode table, block map, segments, buckets, manifests, cache.

    One line for each finding, then a summary.  Exit code 0: clean; 16: mended; 17: damage is left; 15: a
    bucket did not answer, and what could be seen is well.
    """
    found = volume_of(home(), volume)
    secret = partial(read_secret, found.name, secrets)
    report, left_out = run_fsck(
        found,
        secret,
        repair=repair,
        data=data,
        take_over=take_over,
        force=force,
        note=notes(),
    )
    if as_json:
        show_json(report.to_json() | {"volume": found.name, "left_out": left_out})
        return int(report.exit_code)
    show(*lines(report, left_out))
    return int(report.exit_code)
