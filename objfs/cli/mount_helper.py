"""``objfs mount-helper``: what mount(8) runs for ``mount -t fuse.objfs NAME DIR`` and for fstab.

Owns that calling convention: ``SRC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]``.  Returns
when the mount is live, with errors on standard error.
"""

from __future__ import annotations

from pathlib import Path

import click

from objfs.app.options import parse
from objfs.cli.mount import run


@click.command("mount-helper", hidden=True)
@click.argument("source")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-o", "options", multiple=True, help="Mount options, separated by commas.")
@click.option("-t", "fstype", default="", help="The type that mount(8) was given.")
@click.option("-N", "namespace", default="", help="Accepted; the mount is made in this namespace.")
@click.option("-s", "sloppy", is_flag=True, help="Accepted; unknown options are refused all the same.")
@click.option("-f", "fake", is_flag=True, help="Check the options and mount nothing.")
@click.option("-n", "no_mtab", is_flag=True, help="Accepted without effect.")
@click.option("-v", "verbose", is_flag=True, help="Accepted without effect.")
def mount_helper(
    source: str,
    directory: Path,
    options: tuple[str, ...],
    fstype: str,
    namespace: str,
    sloppy: bool,
    fake: bool,
    no_mtab: bool,
    verbose: bool,
) -> int:
    """Mount SOURCE at DIRECTORY as mount(8) asks."""
    asked = parse(options)
    return 0 if fake else run(source, directory, asked)
