"""``objfs restore``: a tree of a volume into a directory, without mounting it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from objfs.app.restore import RestoreOrder, look
from objfs.app.restore import restore as run_restore
from objfs.app.visit import Visitor
from objfs.cli.bars import copying
from objfs.cli.context import home, json_option, name_and_snapshot, notes, say, show, show_json
from objfs.cli.copied import show_failures, summary
from objfs.cli.secret import SecretFiles, read_secret, secret_options
from objfs.volume.restore import RestoreOptions
from objfs.volume.restored import said
from objfs.volume.selection import Selection


@click.command()
@click.argument("volume", metavar="NAME[@SNAPSHOT]")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.argument("destination", type=click.Path(path_type=Path, file_okay=False), metavar="DEST")
@click.option("--resume", is_flag=True, help="Go on: what is in DEST already and looks right stays.")
@click.option("--verify", is_flag=True, help="Read back what is written, and what stays, and compare it.")
@click.option("--include", multiple=True, metavar="GLOB", help="Only what matches; may be given again.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="All but what matches; may be given again.")
@click.option("--dry-run", is_flag=True, help="Print the paths that would be restored, and write nothing.")
@click.option("--bucket", "urls", multiple=True, metavar="URL", help="A bucket of it; the others are found.")
@json_option
@secret_options
def restore(
    volume: str,
    paths: tuple[str, ...],
    destination: Path,
    resume: bool,
    verify: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    dry_run: bool,
    urls: tuple[str, ...],
    as_json: bool,
    secrets: SecretFiles,
) -> int:
    """Restore volume NAME as it is, or as it was at SNAPSHOT, or PATHs of it, into the directory DEST.

    Nothing is mounted and no lease is taken: it works beside a mount, here or elsewhere.  A PATH keeps its
    place: /a/b becomes DEST/a/b.  Exit code 17: files could not be read, and are named.
    """
    selection = Selection(*(map(os.fsencode, words) for words in (paths, include, exclude)))
    name, snapshot = name_and_snapshot(volume)
    order = RestoreOrder(destination, selection, snapshot, RestoreOptions(resume, verify))
    visitor = Visitor(home(), name, urls, say)
    secret = read_secret(name, secrets)
    if dry_run:
        done = visitor.run(
            secret, notes(), lambda seen: look(seen, order, lambda found: _print(found.path, as_json))
        )
    else:
        with copying() as report:
            done = visitor.run(secret, notes(), lambda seen: run_restore(seen, order, report))
    if as_json:
        show_json(done.to_json() | {"volume": name})
    elif not dry_run:
        show_failures(done)
        show(summary(done, f"in {destination} ({done.kept} names were there)"))
    return int(done.exit_code)


def _print(path: bytes, as_json: bool) -> None:
    if not as_json:
        show(said(path))
