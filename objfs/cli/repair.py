"""``objfs repair``: bring redundancy back after losses, mounted or not."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import click

from objfs.app.home import volume_of
from objfs.app.maintain import RepairOrder, options_here
from objfs.app.maintain import repair as run_repair
from objfs.cli.context import home, json_option, notes, parse_size, say, show, show_json, size
from objfs.cli.secret import SecretFiles, read_secret, secret_options
from objfs.volume.fields import JSON
from objfs.volume.fsck_report import lines


@click.command()
@click.argument("volume", metavar="NAME_OR_DIR")
@click.option("--dry-run", is_flag=True, help="Only say what would be put, and what that costs.")
@click.option("--rate", metavar="BYTES", help="Move at most so many bytes a second, for example 20MiB.")
@click.option("--take-over", is_flag=True, help="Take the volume from a machine that is gone.")
@click.option("--force", is_flag=True, help="Go on although too few buckets answer.")
@json_option
@secret_options
def repair(
    volume: str,
    dry_run: bool,
    rate: str | None,
    take_over: bool,
    force: bool,
    as_json: bool,
    secrets: SecretFiles,
) -> int:
    """Put again the shards that are missing from the buckets, the most endangered segments first.

    Says before it begins what it will move.  Exit code 0: nothing is missing; 16: mended; 17: something is
    left; 15: a bucket did not answer, and what could be seen is well.
    """
    found = volume_of(home(), volume)
    order = RepairOrder(dry_run, parse_size(rate) if rate else 0)
    secret = partial(read_secret, found.name, secrets)

    def told(plan: Mapping[str, JSON]) -> None:
        if not as_json and not dry_run:  # then it is the result
            say(estimate(plan))

    options = options_here(take_over=take_over, force=force)
    outcome = run_repair(found, secret, order, options, notes(), told)
    report = outcome.report
    if as_json:
        document = report.to_json() | {"volume": found.name, "left_out": outcome.left_out}
        show_json(document | {"plan": outcome.plan})
    else:
        show(*lines(report, outcome.left_out))
        if dry_run and outcome.plan:
            show(estimate(outcome.plan))
    return int(report.exit_code)


def estimate(plan: Mapping[str, JSON]) -> str:
    """What a repair moves, in a sentence."""
    numbers = {name: int(str(value or 0)) for name, value in plan.items()}
    if not numbers["segments"]:
        return "repair: nothing to put"
    reserve = plan["reserve"]
    bears = (
        f"the most endangered bears {reserve} more losses" if numbers["reserve"] > 0 else "some bear no loss"
    )
    return (
        f"repair: {numbers['shards']} shards of {numbers['segments']} segments ({bears}): "
        f"{numbers['requests']} requests, {size(numbers['bytes_read'])} read, "
        f"{size(numbers['bytes_written'])} written"
    )
