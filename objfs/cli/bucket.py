"""``objfs bucket``: the places of a volume."""

from __future__ import annotations

import click

from objfs.app.home import volume_of
from objfs.cli.context import home, json_option, show_json, show_table, size, table
from objfs.cli.status import ask_status
from objfs.volume.fields import Fields


@click.group()
def bucket() -> None:
    """The buckets of a volume."""


@bucket.command("list")
@click.argument("volume", metavar="NAME_OR_DIR")
@json_option
def list_buckets(volume: str, as_json: bool) -> None:
    """List the buckets, with their health while the volume is mounted."""
    document = Fields(ask_status(volume_of(home(), volume)), "status")
    if as_json:
        show_json(document.items("buckets", 256))
        return
    rows = table("SLOT", "HEALTH", "VOTES", "DATA", "DOMAIN", "WRITTEN", "READ", "URL", "UUID")
    for item in document.objects("buckets", 256):
        rows.add_row(*_row(item))
    show_table(rows)


def _row(item: Fields) -> tuple[str, ...]:
    if not item.has("health"):
        return ("", "", "", "", "", "", "", item.text("url", 8192), item.text("uuid"))
    return (
        str(item.integer("slot")),
        item.text("health"),
        "yes" if item.flag("voter") else "no",
        "yes" if item.flag("shards") else "no",
        item.text("domain"),
        size(item.integer("bytes_out")),
        size(item.integer("bytes_in")),
        item.text("url", 8192),
        item.text("uuid"),
    )
