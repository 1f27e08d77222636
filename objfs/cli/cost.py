"""``objfs cost``: what a volume keeps and asks for, by bucket, and what that comes to."""

from __future__ import annotations

import click

from objfs.app.cost import cost as cost_of
from objfs.app.home import volume_of
from objfs.cli.context import age, home, json_option, show, show_json, show_table, size, table
from objfs.volume.fields import Fields


@click.command()
@click.argument("volume", metavar="NAME_OR_DIR")
@json_option
def cost(volume: str, as_json: bool) -> None:
    """Estimate what a volume costs a month, from prices.toml: storage, requests, traffic.

    Requests are those of the running mount; without one only what is stored is told.
    """
    found = volume_of(home(), volume)
    document = cost_of(found)
    if as_json:
        show_json(document | {"volume": found.name})
        return
    _show(Fields(document, "cost"))


def _show(document: Fields) -> None:
    """A table, and the sum."""
    rows = table(
        "STORED", "PUTS", "GETS", "DELETES", "WRITTEN", "READ", "STORAGE", "REQUESTS", "PRICE", "URL"
    )
    for item in document.objects("buckets", 256):
        rows.add_row(
            size(item.integer("stored_bytes")) if item.has("stored_bytes") else "?",
            *(str(item.integer(name)) for name in ("puts", "gets", "deletes")),
            size(item.integer("bytes_out")),
            size(item.integer("bytes_in")),
            amount(item, "storage"),
            amount(item, "requests"),
            item.text("match") + (" (example)" if item.flag("example") else ""),
            item.text("url", 8192),
        )
    show_table(rows)
    show(*summary(document))


def summary(document: Fields) -> list[str]:
    """What the table comes to, and how much it is worth."""
    lines = [f"stored in all buckets: {size(document.integer('stored_bytes'))}"]
    if document.has("month"):
        lines.append(f"estimated: {amount(document, 'month')} {document.text('currency')} a month")
    if document.has("since_s"):
        lines.append(f"requests are those of the last {age(document.number('since_s', 0, 1e12))}")
    else:
        lines.append("not mounted: no requests are counted")
    if document.flag("example"):
        lines.append("prices are the examples that objfs brings: put your own into prices.toml")
    return lines


def amount(item: Fields, key: str) -> str:
    return f"{item.number(key, -1e15, 1e15):.2f}" if item.has(key) else "?"
