"""``objfs export`` and ``objfs import``: a tree as a tar archive, out of a volume and onto a mount."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import click

from objfs.app.export import export as run_export
from objfs.app.export import unpack
from objfs.app.visit import Visitor
from objfs.cli.bars import copying
from objfs.cli.context import home, json_option, name_and_snapshot, notes, say, show, show_json
from objfs.cli.copied import show_failures, summary
from objfs.cli.secret import SecretFiles, read_secret, secret_options
from objfs.errors import UsageError
from objfs.volume.selection import Selection


@click.command()
@click.argument("volume", metavar="NAME[@SNAPSHOT]")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--include", multiple=True, metavar="GLOB", help="Only what matches; may be given again.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="All but what matches; may be given again.")
@click.option("--bucket", "urls", multiple=True, metavar="URL", help="A bucket of it; the others are found.")
@secret_options
def export(
    volume: str,
    paths: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    urls: tuple[str, ...],
    secrets: SecretFiles,
) -> int:
    """Write volume NAME, as it is or was at SNAPSHOT, or PATHs of it, to standard output as a tar archive.

    Nothing is mounted and no lease is taken.  Exit code 17: files could not be read, and are left out.
    """
    if sys.stdout.isatty():
        raise UsageError("an archive is nothing for a terminal: send it to a file or a program")
    name, snapshot = name_and_snapshot(volume)
    selection = Selection(*(map(os.fsencode, words) for words in (paths, include, exclude)))
    visitor = Visitor(home(), name, urls, say)
    secret = read_secret(name, secrets)
    stream = sys.stdout.buffer
    with copying() as report:
        done = visitor.run(
            secret, notes(), lambda seen: run_export(seen, snapshot, selection, stream, report)
        )
    stream.flush()
    show_failures(done)
    say(summary(done, "exported"))
    return int(done.exit_code)


@click.command("import")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="DIR")
@click.argument("archive", required=False, type=click.Path(path_type=Path, dir_okay=False), metavar="[FILE]")
@json_option
def import_archive(directory: Path, archive: Path | None, as_json: bool) -> int:
    """Unpack the tar archive FILE, or standard input, into the directory DIR of a mount.

    With owners, times, extended attributes, access control lists, hard links and special files.  Members that
    lead out of DIR are refused.  Exit code 1: members were refused, and are named.
    """
    if archive is None and sys.stdin.isatty():
        raise UsageError("no archive: name a file, or send one to standard input")
    with ExitStack() as stack:
        stream = sys.stdin.buffer if archive is None else stack.enter_context(archive.open("rb"))
        report = stack.enter_context(copying())
        done = unpack(stream, directory, report)
    if as_json:
        show_json(done.to_json())
        return int(done.exit_code)
    show_failures(done)
    show(summary(done, f"in {directory}"))
    return int(done.exit_code)
