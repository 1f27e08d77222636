"""The program ``objfs``: its commands, and the one place where an error becomes a line and an exit code.

Owns the entry point.  Called as ``mount.fuse.objfs``, or with arguments as mount(8) gives them to a
helper (``SRC DIR -o OPTIONS``), it mounts; called as ``umount.fuse.objfs``, it unmounts as umount(8) asks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

import objfs
from objfs.cli.attach import attach
from objfs.cli.bench import bench
from objfs.cli.bucket import bucket
from objfs.cli.bucket_change import CHANGES
from objfs.cli.cat import cat
from objfs.cli.clone import clone
from objfs.cli.context import say, show
from objfs.cli.cost import cost
from objfs.cli.differences import diff, versions
from objfs.cli.differences import restore as restore_in_place
from objfs.cli.export import export, import_archive
from objfs.cli.flush import flush
from objfs.cli.fsck import fsck
from objfs.cli.gc import gc
from objfs.cli.info import info
from objfs.cli.key import key
from objfs.cli.log import log
from objfs.cli.mkfs import mkfs
from objfs.cli.mount import mount
from objfs.cli.mount_helper import mount_helper
from objfs.cli.recode import recode
from objfs.cli.recover import recover
from objfs.cli.repair import repair
from objfs.cli.restore import restore
from objfs.cli.salvage import salvage
from objfs.cli.scrub import scrub
from objfs.cli.snapshot import snapshot
from objfs.cli.status import status
from objfs.cli.umount import umount
from objfs.cli.umount_helper import umount_helper
from objfs.cli.undelete import undelete
from objfs.cli.usage import usage
from objfs.errors import ExitCode, ObjfsError

HELPERS = {"mount.fuse.objfs": "mount-helper", "umount.fuse.objfs": "umount-helper"}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(objfs.__version__, prog_name="objfs")
def cli() -> None:
    """A directory that outlives its disks: files as encrypted, erasure-coded objects in several buckets."""


@cli.command()
def version() -> None:
    """Print the version."""
    show(f"objfs {objfs.__version__}")


_COMMANDS = (
    mkfs,
    attach,
    mount,
    umount,
    status,
    flush,
    snapshot,
    clone,
    usage,
    fsck,
    gc,
    cost,
    scrub,
    repair,
    recode,
    recover,
    restore,
    export,
    import_archive,
    salvage,
    info,
    versions,
    undelete,
    cat,
    key,
    bucket,
    bench,
    log,
    mount_helper,
    umount_helper,
)

for _command in _COMMANDS:
    cli.add_command(_command)
for _command in CHANGES:
    bucket.add_command(_command)
for _command in (diff, restore_in_place):
    snapshot.add_command(_command)


def main() -> None:
    """The console script."""
    sys.exit(run(Path(sys.argv[0]).name, sys.argv[1:]))


def run(program: str, arguments: Sequence[str]) -> int:
    """Runs one command and gives its exit code; every failure is one line on standard error."""
    if program in HELPERS:
        arguments = [HELPERS[program], *arguments]
    elif _like_a_helper(arguments):
        arguments = ["mount-helper", *arguments]
    try:
        result = cli.main(args=list(arguments), prog_name="objfs", standalone_mode=False)
    except ObjfsError as error:
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        return _misused(error)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", ExitCode.FAILURE)
    except OSError as error:
        return _fail(f"{error.filename or 'input or output'}: {error.strerror}", ExitCode.FAILURE)
    return result if isinstance(result, int) else ExitCode.OK


def _misused(error: click.ClickException) -> int:
    message, context = error.format_message(), getattr(error, "ctx", None)
    if context is not None and message == context.get_help():
        error.show()  # what a group says of itself where no command is named
        return ExitCode.USAGE
    hint = "" if context is None else f" (see {context.command_path} --help)"
    return _fail(message.rstrip(".") + hint, ExitCode.USAGE)


def _fail(message: str, code: int) -> int:
    say("objfs: " + " ".join(message.split()))
    return int(code)


def _like_a_helper(arguments: Sequence[str]) -> bool:
    """mount(8) without a helper of ours runs ``objfs SRC DIR -o OPTIONS``; no command has that form."""
    return len(arguments) >= 3 and arguments[0] not in cli.commands and "-o" in arguments[2:]
