"""``objfs snapshot``: named moments of a volume, mounted or not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import click

from objfs.app.snapshots import RULES, SnapshotCommands
from objfs.cli.context import json_option, say, show_json, show_table, size, table
from objfs.cli.secret import SecretFiles, secret_options
from objfs.cli.volume import Volume
from objfs.errors import UsageError
from objfs.volume.fields import Fields
from objfs.volume.retention import parse_span

F = TypeVar("F", bound=Callable[..., object])
VOLUME = click.argument("volume", metavar="NAME_OR_DIR")
NAME = click.argument("name", metavar="SNAPSHOT")
NO_WAIT = click.option("--no-wait", is_flag=True, help="Return at once, before the buckets have it.")


@click.group()
def snapshot() -> None:
    """Named moments of a volume: taken in an instant, kept until deleted or pruned."""


def _volume(word: str, secrets: SecretFiles) -> Volume:
    return Volume(word, secrets, lambda engine: SnapshotCommands(engine).table())


@snapshot.command()
@VOLUME
@NAME
@click.option("--comment", default="", help="A line to know it by.")
@NO_WAIT
@secret_options
def create(volume: str, name: str, comment: str, no_wait: bool, secrets: SecretFiles) -> None:
    """Take a snapshot: all that was written before, as one moment.

    Returns when it is recoverable from the buckets.
    """
    answer = _volume(volume, secrets).ask(
        "snapshot-create", writes=True, name=name, comment=comment, wait=not no_wait
    )
    say(f"snapshot {name} is taken: {answer['inodes']} inodes, {size(int(str(answer['bytes'])))}")
    if answer.get("writeback"):
        say("the mount has -o writeback: what programs wrote and did not fsync may be missing in it")


@snapshot.command("list")
@VOLUME
@click.option("--trash", is_flag=True, help="Those of the trash, and no others.")
@json_option
@secret_options
def list_snapshots(volume: str, trash: bool, as_json: bool, secrets: SecretFiles) -> None:
    """List the snapshots, oldest first: what each refers to, and what it alone keeps."""
    _, found = _volume(volume, secrets).listed("snapshot-list", "snapshots", writes=False, trash=trash)
    if as_json:
        show_json([one.value for one in found])
        return
    rows = table("SNAPSHOT", "CREATED", "REFERS TO", "ALONE KEEPS", "HELD", "COMMENT")
    for one in found:
        rows.add_row(*_row(one), size(one.integer("own_bytes")), _held(one), one.text("comment", 8192))
    show_table(rows)


def _row(one: Fields) -> tuple[str, str, str]:
    created = time.localtime(one.integer("created_ns") // 10**9)
    return one.text("name", 1024), time.strftime("%Y-%m-%d %H:%M:%S", created), size(one.integer("bytes"))


def _held(one: Fields) -> str:
    return "held" if one.flag("held") else ""


@snapshot.command()
@VOLUME
@click.argument("names", metavar="SNAPSHOT...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Also what is held.")
@NO_WAIT
@secret_options
def delete(volume: str, names: tuple[str, ...], force: bool, no_wait: bool, secrets: SecretFiles) -> None:
    """Delete snapshots.  What they alone keep is freed afterwards, in the background."""
    found = _volume(volume, secrets)
    for name in names:
        found.ask(
            "snapshot-delete", writes=True, name=name, force=force, wait=not no_wait and name == names[-1]
        )
        say(f"snapshot {name} is deleted")


@snapshot.command()
@VOLUME
@NAME
@secret_options
def hold(volume: str, name: str, secrets: SecretFiles) -> None:
    """Keep a snapshot: pruning leaves it, and deleting it needs --force."""
    _volume(volume, secrets).ask("snapshot-hold", writes=True, name=name, held=True)
    say(f"snapshot {name} is held")


@snapshot.command()
@VOLUME
@NAME
@secret_options
def release(volume: str, name: str, secrets: SecretFiles) -> None:
    """Let a snapshot that is held be pruned and deleted."""
    _volume(volume, secrets).ask("snapshot-hold", writes=True, name=name, held=False)
    say(f"snapshot {name} is released")


def _keep_options(command: F) -> F:
    for rule in reversed(RULES):
        meaning = (
            "Keep so many of the newest" if rule == "last" else f"Keep the newest of so many {rule} periods"
        )
        command = click.option(
            f"--keep-{rule}", rule, type=click.IntRange(min=-1), default=0, help=f"{meaning}; -1 is all."
        )(command)
    within = "Keep what is younger than such a span before the newest: 1y5m7d3h."
    return click.option("--keep-within", "within", metavar="SPAN", default="", help=within)(command)


@snapshot.command()
@VOLUME
@_keep_options
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@json_option
@secret_options
def prune(
    volume: str,
    within: str,
    last: int,
    hourly: int,
    daily: int,
    weekly: int,
    monthly: int,
    yearly: int,
    dry_run: bool,
    as_json: bool,
    secrets: SecretFiles,
) -> None:
    """Delete the snapshots that no rule keeps; those that are held stay.

    The rules mean what they mean to restic: each counts the newest of an hour, day, week, month or year that
    has one, and one with counts left keeps the oldest of all.
    """
    counts = dict(zip(RULES, (last, hourly, daily, weekly, monthly, yearly), strict=True))
    if within:
        parse_span(within)
    if not within and not any(counts.values()):
        raise UsageError("say what to keep, such as --keep-daily 7: without a rule all would be deleted")
    answer, found = _volume(volume, secrets).listed(
        "snapshot-prune", "snapshots", writes=not dry_run, dry_run=dry_run, within=within, **counts
    )
    if as_json:
        show_json([one.value for one in found])
        return
    rows = table("", "SNAPSHOT", "CREATED", "REFERS TO", "WHY")
    for one in found:
        rows.add_row(
            "keep" if one.flag("keep") else "delete",
            *_row(one),
            ", ".join(map(str, one.items("reasons", 16))),
        )
    show_table(rows)
    verb = "would be deleted" if dry_run else "deleted"
    say(f"{verb}: {answer['deleted']}, kept: {answer['kept']}")


@snapshot.command()
@VOLUME
@secret_options
def scheduled(volume: str, secrets: SecretFiles) -> None:
    """Take a snapshot named by the time, and prune such ones by the policy in volume.toml.

    For timers: see contrib/systemd/objfs-snapshot@.timer.  A mount notes a failure in its log and status.
    """
    answer = _volume(volume, secrets).ask("snapshot-scheduled", writes=True)
    say(f"snapshot {answer['name']} is taken; older ones deleted: {answer['deleted']}")
