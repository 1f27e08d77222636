"""``objfs attach``: on a new machine, learn a volume and its other buckets from any one of them."""

from __future__ import annotations

import click

from objfs.app.places import with_urls
from objfs.app.promises import remarks_of
from objfs.app.reach import reached
from objfs.cli.context import home, say
from objfs.cli.secret import SecretFiles, read_secret, secret_options
from objfs.volume.attach import Attached, Offered, add_places, add_reached
from objfs.volume.attach import attach as attach_volume
from objfs.volume.local import VolumeHome


async def remarks(offered: list[Offered]) -> list[str]:
    """What the buckets can tell about themselves, a line for each thing."""
    return [f"{item.url}: {said}" for item in offered for said in await remarks_of(item.bucket)]


@click.command()
@click.argument("name")
@click.option("--bucket", "urls", multiple=True, required=True, metavar="URL", help="A bucket of the volume.")
@click.option("--add", is_flag=True, help="NAME is known here: add these buckets, or change their URLs.")
@secret_options
def attach(
    name: str,
    urls: tuple[str, ...],
    add: bool,
    secrets: SecretFiles,
) -> None:
    """Learn volume NAME from its buckets; then it can be mounted here."""
    volume = VolumeHome(home(), name)
    if add:
        volume.require()
    secret = read_secret(name, secrets)

    async def job(offered: list[Offered]) -> tuple[Attached, list[str]]:
        if add:
            return await add_places(volume, secret, offered), await remarks(offered)
        attached = await attach_volume(volume, secret, offered)
        async with reached(attached.header, attached.ring, attached.missing) as others:
            attached = await add_reached(volume, attached, others.found)
            return attached, [*await remarks([*offered, *others.found]), *others.said()]

    learned, said = with_urls(urls, job)
    header, missing = learned.header, len(learned.missing)
    say(f"volume {name} ({header.volume.hex()}) is known: code {header.code}, {len(header.buckets)} buckets")
    for line in said:
        say(line)
    if missing:
        say(
            f"{missing} of its buckets have no URL here and count as missing; "
            f"add them with: objfs attach {name} --add --bucket URL"
        )
