"""``objfs bucket add|replace|remove|rebalance|label``: the places of a volume, changed while it is in use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from objfs.app.home import volume_of
from objfs.app.rehouse import Wish, rehouse
from objfs.backends.registry import parse_url
from objfs.cli.bars import moving
from objfs.cli.context import home, json_option, say, show_json, show_table, size, table
from objfs.cli.secret import SecretFiles, read_secret, secret_options
from objfs.volume.fields import Fields
from objfs.volume.table import check_domain

_NAME = click.argument("volume", metavar="NAME_OR_DIR")
_BUCKET = click.argument("which", metavar="BUCKET")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what it would take, and change nothing.")
_DOMAIN = click.option("--domain", metavar="D", help="What the bucket fails together with.")


def _common(command: Callable[..., object]) -> Callable[..., object]:
    return _NAME(secret_options(json_option(command)))


@click.command("add")
@_common
@click.argument("url", metavar="URL")
@_DOMAIN
@click.option("--witness", is_flag=True, help="It only votes, and holds no data.")
@_DRY_RUN
def add(
    volume: str,
    url: str,
    domain: str | None,
    witness: bool,
    dry_run: bool,
    as_json: bool,
    secrets: SecretFiles,
) -> None:
    """Add the bucket at URL to a volume, and move its share of the shards there."""
    wish = Wish("add", url=_url(url), domain=_domain(domain), witness=witness, dry_run=dry_run)
    _do(volume, wish, secrets, as_json)


@click.command("replace")
@_common
@_BUCKET
@click.argument("url", metavar="URL")
@_DOMAIN
@click.option("--force", is_flag=True, help="Also where segments that cannot be rebuilt still name it.")
@_DRY_RUN
def replace(
    volume: str,
    which: str,
    url: str,
    domain: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
    secrets: SecretFiles,
) -> None:
    """Put the bucket at URL in the place of BUCKET (slot, uuid or URL), which may be gone."""
    wish = Wish("replace", which, _url(url), _domain(domain), force=force, dry_run=dry_run)
    _do(volume, wish, secrets, as_json)


@click.command("remove")
@_common
@_BUCKET
@click.option("--force", is_flag=True, help="Also where the volume then bears the loss of fewer buckets.")
@_DRY_RUN
def remove(volume: str, which: str, force: bool, dry_run: bool, as_json: bool, secrets: SecretFiles) -> None:
    """Move the shards of BUCKET (slot, uuid or URL) to the others and take it out of the volume."""
    _do(volume, Wish("remove", which, force=force, dry_run=dry_run), secrets, as_json)


@click.command("rebalance")
@_common
@_DRY_RUN
def rebalance(volume: str, dry_run: bool, as_json: bool, secrets: SecretFiles) -> None:
    """Move shards to where load and domains want them, as few as that takes."""
    _do(volume, Wish("rebalance", dry_run=dry_run), secrets, as_json)


@click.command("label")
@_common
@_BUCKET
@click.option("--domain", metavar="D", required=True, help="What it fails together with; empty: nothing.")
def label(volume: str, which: str, domain: str, as_json: bool, secrets: SecretFiles) -> None:
    """Say what BUCKET (slot, uuid or URL) fails together with."""
    _do(volume, Wish("label", which, domain=check_domain(domain)), secrets, as_json)


CHANGES = (add, replace, remove, rebalance, label)


def _url(text: str) -> str:
    """As the mount's process will read it, which has another working directory.  Raises MalformedURL."""
    parsed = parse_url(text)
    return f"file://{Path(text).absolute()}" if parsed.scheme == "file" and "://" not in text else text


def _domain(text: str | None) -> str | None:
    return None if text is None else check_domain(text)


def _do(volume: str, wish: Wish, secrets: SecretFiles, as_json: bool) -> None:
    found = volume_of(home(), volume)
    secret = partial(read_secret, found.name, secrets)
    with moving(wish.action) as update:
        done = rehouse(found, secret, wish, update)
    if as_json:
        show_json(done)
    else:
        _tell(wish, Fields(done, "bucket"))


def _tell(wish: Wish, done: Fields) -> None:
    if not wish.dry_run:
        rebuilt = done.integer("rebuilt")
        healed = f", {rebuilt} of them rebuilt from others" if rebuilt else ""
        say(f"moved {done.integer('moved')} shards, {size(done.integer('moved_bytes'))}{healed}")
        say(f"the volume has {done.integer('buckets')} buckets")
        return
    say(f"would move {done.integer('shards')} shards, {size(done.integer('bytes'))}")
    rows = table("SLOT", "REQUESTS", "READ", "WRITTEN")
    for one in done.objects("traffic", 256):
        rows.add_row(
            str(one.integer("slot")),
            str(one.integer("requests")),
            size(one.integer("read")),
            size(one.integer("written")),
        )
    show_table(rows)
