"""``objfs scrub``: read and verify every shard, mounted or not; put right what is wrong."""

from __future__ import annotations

import re
import time
from functools import partial

import click

from objfs.app.home import volume_of
from objfs.app.maintain import options_here
from objfs.app.maintain import scrub as run_scrub
from objfs.cli.context import home, json_option, notes, parse_size, show, show_json
from objfs.cli.secret import SecretFiles, read_secret, secret_options
from objfs.errors import UsageError
from objfs.volume.fsck_report import lines
from objfs.volume.scrub import ScrubOrder

_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@click.command()
@click.argument("volume", metavar="NAME_OR_DIR")
@click.option("--all", "everything", is_flag=True, help="Every segment (the default).")
@click.option("--sample", metavar="P", help="P percent of the segments, others each time.")
@click.option("--since", metavar="T", help="Segments of the last T, for example 36h or 7d.")
@click.option("--repair", is_flag=True, help="Put right what is wrong, and read it again.")
@click.option("--rate", metavar="BYTES", help="Read at most so many bytes a second, for example 20MiB.")
@click.option("--take-over", is_flag=True, help="For --repair: take the volume from a machine that is gone.")
@click.option("--force", is_flag=True, help="For --repair: go on although too few buckets answer.")
@json_option
@secret_options
def scrub(
    volume: str,
    everything: bool,
    sample: str | None,
    since: str | None,
    repair: bool,
    rate: str | None,
    take_over: bool,
    force: bool,
    as_json: bool,
    secrets: SecretFiles,
) -> int:
    """Read and verify the shards of a volume, and the local copies; goes on where a scrub was cut off.

    One line for each finding, then a summary.  Exit code 0: clean; 16: mended; 17: damage is left; 15: a
    bucket did not answer, and what could be seen is well.
    """
    found = volume_of(home(), volume)
    order = parse_order(everything, sample, since, repair=repair, rate=rate)
    secret = partial(read_secret, found.name, secrets)
    outcome = run_scrub(found, secret, order, options_here(take_over=take_over, force=force), notes())
    report = outcome.report
    if as_json:
        show_json(report.to_json() | {"volume": found.name, "left_out": outcome.left_out})
    else:
        show(*lines(report, outcome.left_out))
    return int(report.exit_code)


def parse_order(
    everything: bool, sample: str | None, since: str | None, *, repair: bool, rate: str | None
) -> ScrubOrder:
    """Raises UsageError."""
    if sum((everything, sample is not None, since is not None)) > 1:
        raise UsageError("--all, --sample and --since are three ways to choose: give one")
    bytes_per_s = parse_size(rate) if rate else 0
    if sample is not None:
        percent = _percent(sample)
        return ScrubOrder(f"sample {percent:g}", percent, 0, repair, bytes_per_s)
    if since is not None:
        began_ns = time.time_ns() - _age_s(since) * 10**9
        return ScrubOrder(f"since {since}", 100.0, began_ns, repair, bytes_per_s)
    return ScrubOrder("all", 100.0, 0, repair, bytes_per_s)


def _percent(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%?", text.strip())
    if match is None or not 0 < float(match[1]) <= 100:
        raise UsageError(f"--sample {text}: give percent, above 0 and up to 100")
    return float(match[1])


def _age_s(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([mhdw])", text.strip())
    if match is None:
        raise UsageError(f"--since {text}: give an age, for example 90m, 36h, 7d or 4w")
    return int(match[1]) * _SECONDS[match[2]]
