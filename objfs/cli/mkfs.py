"""``objfs mkfs``: make a volume over buckets."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import click

from objfs.app.clock import SystemClock
from objfs.app.places import with_urls
from objfs.cli.context import home, parse_size, say, show
from objfs.cli.secret import new_passphrase, read_key_file
from objfs.codec import check_code
from objfs.errors import CodecError, UsageError
from objfs.model import Code
from objfs.store.placement import describe
from objfs.volume.attach import Offered
from objfs.volume.header import is_chunk_size
from objfs.volume.local import VolumeHome
from objfs.volume.mkfs import CHUNK_SIZE, Created, NewBucket, NewVolume, create_volume
from objfs.volume.table import check_domain


@click.command()
@click.argument("name")
@click.option("--bucket", "urls", multiple=True, required=True, metavar="URL", help="A bucket; repeatable.")
@click.option(
    "--domain",
    "domains",
    multiple=True,
    metavar="D",
    help="What the bucket fails together with; one for each --bucket, in their order.",
)
@click.option("--witness", "witnesses", multiple=True, metavar="URL", help="A bucket that only votes.")
@click.option("--code", metavar="K+M", help="K data and M parity shards (default: one bucket may be lost).")
@click.option("--fewer-buckets", is_flag=True, help="Go on with fewer buckets than K+M, which bear less.")
@click.option("--chunk-size", metavar="SIZE", help="64 KiB to 16 MiB, a power of two (default: 1 MiB).")
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="The passphrase is in this file.")
@click.option("--key-file", type=click.Path(path_type=Path), help="The volume opens with this key file.")
def mkfs(
    name: str,
    urls: tuple[str, ...],
    domains: tuple[str, ...],
    witnesses: tuple[str, ...],
    code: str | None,
    fewer_buckets: bool,
    chunk_size: str | None,
    passphrase_file: Path | None,
    key_file: Path | None,
) -> None:
    """Make volume NAME over the given buckets, after checking that each keeps its promises."""
    volume = VolumeHome(home(), name)
    if volume.config_path.exists():
        volume.create()  # says that the name is taken
    wanted = parse_code(code, len(urls))
    named = [*name_domains(urls, domains), *[""] * len(witnesses)]
    require_buckets(wanted, len(urls), fewer=fewer_buckets)
    size = parse_chunk_size(chunk_size) if chunk_size else CHUNK_SIZE
    secret = read_key_file(key_file) if key_file else new_passphrase(name, passphrase_file)
    new = NewVolume(secret, wanted, size, os.getuid(), os.getgid())

    async def job(offered: list[Offered]) -> Created:
        places = [
            NewBucket(item.url, item.options, item.bucket, domain, shards=number < len(urls))
            for number, (item, domain) in enumerate(zip(offered, named, strict=True))
        ]
        return await create_volume(volume, places, new, clock=SystemClock())

    _tell(name, with_urls([*urls, *witnesses], job))


def parse_code(text: str | None, buckets: int) -> Code:
    """``K+M``; without one, as many data shards as leave one bucket to lose.  Raises UsageError."""
    if text is None:
        return Code(max(1, buckets - 1), min(1, buckets - 1))
    match = re.fullmatch(r"(\d{1,3})\+(\d{1,3})", text)
    if match is None:
        raise UsageError(f"code {text}: must be K+M, for example 2+1")
    code = Code(int(match[1]), int(match[2]))
    try:
        check_code(code.k, code.m)
    except CodecError as error:
        raise UsageError(str(error)) from None
    return code


def parse_chunk_size(text: str) -> int:
    """Raises UsageError."""
    size = parse_size(text)
    if not is_chunk_size(size):
        raise UsageError(f"chunk size {text}: must be a power of two from 64 KiB to 16 MiB")
    return size


def name_domains(urls: Sequence[str], domains: Sequence[str]) -> list[str]:
    """The domain of each bucket.  Raises UsageError."""
    if domains and len(domains) != len(urls):
        raise UsageError(
            f"{len(urls)} --bucket and {len(domains)} --domain: give one for each bucket, in the same order, "
            "or none"
        )
    return [check_domain(domain) for domain in domains] or [""] * len(urls)


def require_buckets(code: Code, buckets: int, *, fewer: bool) -> None:
    """Raises UsageError where a segment's shards would share buckets, unless that was asked for."""
    if buckets < code.n and not fewer:
        raise UsageError(
            f"{describe(code, buckets)}; give {code.n} buckets, another --code, or --fewer-buckets "
            "if that is meant"
        )


def _too_few_votes(made: Created) -> str:
    """Fewer than 2M+1 voters: what is borne by reading is not borne by the vote about who writes."""
    needed = made.voters - made.writes_with_losses
    more = 2 * made.tolerance + 1 - made.voters
    witnesses = "one more --witness bucket" if more == 1 else f"{more} more --witness buckets"
    return (
        f"after the loss of {made.tolerance} reading goes on; a new mount that writes needs {needed} of "
        f"{made.voters} voting buckets, or --force; {witnesses} would mend that"
    )


def _tell(name: str, made: Created) -> None:
    say(f"volume {name} is made: {made.description}")
    if made.domains:
        say(f"over its domains it {made.domains}")
    for probe in made.probes:
        for note in probe.notes:
            say(f"{probe.url}: {note}")
        if not probe.voter:
            say(f"{probe.url}: its put-if-absent is not atomic, so it holds data and does not vote")
    if made.writes_with_losses < made.tolerance:
        say(_too_few_votes(made))
    show("Recovery key, shown only now; it opens the volume without the passphrase:")
    show(f"    {made.recovery_key}")
