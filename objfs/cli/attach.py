"""``objfs attach``: on a new machine, learn a volume from any one of its buckets."""

from __future__ import annotations

from pathlib import Path

import click

from objfs.app.places import with_urls
from objfs.cli.context import home, say
from objfs.cli.secret import SecretFiles, read_secret, secret_options
from objfs.volume.attach import Attached, Offered, add_places
from objfs.volume.attach import attach as attach_volume
from objfs.volume.local import VolumeHome


@click.command()
@click.argument("name")
@click.option("--bucket", "urls", multiple=True, required=True, metavar="URL", help="A bucket of the volume.")
@click.option("--add", is_flag=True, help="NAME is known here: add these buckets, or change their URLs.")
@secret_options
def attach(
    name: str,
    urls: tuple[str, ...],
    add: bool,
    passphrase_file: Path | None,
    key_file: Path | None,
    recovery_key_file: Path | None,
) -> None:
    """Learn volume NAME from its buckets; then it can be mounted here."""
    volume = VolumeHome(home(), name)
    if add:
        volume.require()
    secret = read_secret(name, SecretFiles(passphrase_file, key_file, recovery_key_file))

    async def job(offered: list[Offered]) -> Attached:
        if add:
            return await add_places(volume, secret, offered)
        return await attach_volume(volume, secret, offered)

    learned = with_urls(urls, job)
    header, missing = learned.header, len(learned.missing)
    say(f"volume {name} ({header.volume.hex()}) is known: code {header.code}, {len(header.buckets)} buckets")
    if missing:
        say(
            f"{missing} of its buckets have no URL here and count as missing; "
            f"add them with: objfs attach {name} --add --bucket URL"
        )
