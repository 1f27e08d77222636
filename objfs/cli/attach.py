"""``objfs attach``: on a new machine, learn a volume and its other buckets from any one of them."""

from __future__ import annotations

from collections.abc import Iterable

import click

from objfs.app.places import with_urls
from objfs.app.promises import remarks_of
from objfs.app.reach import reached
from objfs.cli.context import home, say
from objfs.cli.secret import SecretFiles, read_secret, secret_options
from objfs.volume.attach import Attached, Offered, add_places, require_new
from objfs.volume.attach import attach as attach_volume
from objfs.volume.local import VolumeHome


async def remarks(offered: Iterable[Offered]) -> list[str]:
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
    """Learn volume NAME from any one of its buckets, which says where the others are; then it can be mounted
    here."""
    volume = VolumeHome(home(), name)
    if add:
        volume.require()
    else:
        require_new(volume)
    secret = read_secret(name, secrets)

    async def job(offered: list[Offered]) -> tuple[Attached, list[str]]:
        known = {place.uuid for place in volume.read_config().buckets} if add else ()
        async with reached(offered, secret, known) as seen:
            said = [*await remarks(seen.offered), *seen.silent]
            # At the end, so that an interrupted command has not learned a part.
            return (add_places if add else attach_volume)(volume, seen.learned), said

    learned, said = with_urls(urls, job)
    header, missing = learned.header, len(learned.missing)
    say(f"volume {name} ({header.volume.hex()}) is known: code {header.code}, {len(header.buckets)} buckets")
    for line in said:
        say(line)
    if missing:
        say(
            f"{missing} of its buckets were not found and count as missing here; "
            f"add them with: objfs attach {name} --add --bucket URL"
        )
