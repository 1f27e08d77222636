"""``objfs mount``: from the command line to a plan, and the plan to ``app``."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import click

from objfs.app import mountpoint
from objfs.app.mount import MountPlan, start
from objfs.app.options import MountOptions, of_snapshot, parse
from objfs.app.remount import remount
from objfs.app.snapshot_home import snapshot_home
from objfs.cli.context import home, say
from objfs.cli.secret import SecretFiles, read_secret, secret_options
from objfs.volume.local import VolumeHome


@click.command()
@click.argument("name")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-o", "options", multiple=True, metavar="OPTIONS", help="Mount options, separated by commas.")
@click.option("--foreground", is_flag=True, help="Stay in the foreground and log to standard error.")
@click.option("--read-only", is_flag=True, help="Take no lease and write nothing (the same as -o ro).")
@click.option("--follow", is_flag=True, help="Read only, and go on to newer moments (the same as -o follow).")
@click.option("--snapshot", default="", metavar="SNAPSHOT", help="Mount this snapshot, read only.")
@click.option("--subdir", default="", metavar="PATH", help="Mount only this directory of the volume.")
@click.option("--make-dir", is_flag=True, help="Make DIRECTORY (mode 000) when it is missing.")
@click.option("--take-over", is_flag=True, help="Take the volume from a machine that is gone.")
@click.option("--force", is_flag=True, help="Mount although fewer than a majority of the buckets answer.")
@secret_options
def mount(
    name: str,
    directory: Path,
    options: tuple[str, ...],
    foreground: bool,
    read_only: bool,
    follow: bool,
    snapshot: str,
    subdir: str,
    make_dir: bool,
    take_over: bool,
    force: bool,
    secrets: SecretFiles,
) -> int:
    """Mount volume NAME at DIRECTORY; returns when it is mounted."""
    extra = [word for word, given in (("ro", read_only), ("follow", follow)) if given]
    asked = of_snapshot(parse([*options, *extra]), snapshot)
    asked = replace(
        asked,
        subdir=subdir.strip("/") or asked.subdir,
        take_over=take_over or asked.take_over,
        force=force or asked.force,
        passphrase_file=secrets.passphrase or asked.passphrase_file,
        key_file=secrets.key or asked.key_file,
    )
    return run(name, directory, asked, secrets.recovery, foreground=foreground, make_dir=make_dir)


def run(
    name: str,
    directory: Path,
    options: MountOptions,
    recovery: Path | None = None,
    *,
    foreground: bool = False,
    make_dir: bool = False,
) -> int:
    """What the command and the helper of mount(8) share: check, ask for the secret, start."""
    if options.remount:
        remount(home(), directory, options, name)
        return 0
    name, _, snapshot = name.partition("@")
    options = of_snapshot(options, snapshot)
    volume = VolumeHome(home(), name)
    volume.require()
    place = mountpoint.prepare(directory, make=make_dir)
    secret = read_secret(name, SecretFiles(options.passphrase_file, options.key_file, recovery))
    if options.snapshot:
        volume = snapshot_home(volume, options.snapshot)
    plan = MountPlan(volume, place, options, secret, dict(os.environ))
    return start(plan, foreground=foreground, say=say)
