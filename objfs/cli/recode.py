"""``objfs recode``: another code for a volume."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import click

from objfs.app.home import volume_of
from objfs.app.recode import Wish
from objfs.app.recode import recode as run_recode
from objfs.cli.bars import encoding
from objfs.cli.context import home, json_option, say, show_json, show_table, size, table
from objfs.cli.cost import amount
from objfs.cli.mkfs import parse_code
from objfs.cli.secret import SecretFiles, read_secret, secret_options
from objfs.errors import ExitCode
from objfs.volume.fields import JSON, Fields


@click.command()
@click.argument("volume", metavar="NAME_OR_DIR")
@click.argument("code", metavar="K+M")
@click.option("--fewer-buckets", is_flag=True, help="Go on with fewer buckets than K+M, which bear less.")
@click.option("--dry-run", is_flag=True, help="Say what it would take, and change nothing.")
@json_option
@secret_options
def recode(
    volume: str,
    code: str,
    fewer_buckets: bool,
    dry_run: bool,
    as_json: bool,
    secrets: SecretFiles,
) -> int:
    """Give a volume the code K+M: what is written from now on, then what it holds.

    A mount goes on in the background when this command is interrupted.  Exit code 15: something has still
    another code.
    """
    found, wanted = volume_of(home(), volume), parse_code(code, 0)
    secret = partial(read_secret, found.name, secrets)
    told: list[Mapping[str, JSON]] = []

    def tell(estimate: Mapping[str, JSON]) -> None:
        told.append(estimate)
        if not as_json:
            _say_estimate(Fields({**estimate}, "recode"), code)

    with encoding("recode") as update:
        done = run_recode(found, secret, Wish(wanted, fewer_buckets, dry_run), tell, update)
    if as_json:
        show_json({**done, "estimate": told[0]})
    elif not dry_run:
        _say_done(Fields(done, "recode"))
    return ExitCode.DEGRADED if done.get("left") or done.get("error") else ExitCode.OK


def _say_estimate(estimate: Fields, code: str) -> None:
    say(estimate.text("bears", 4096))
    if estimate.text("domains", 4096):
        say(f"over its domains it {estimate.text('domains', 4096)}")
    segments, nbytes = estimate.integer("segments"), size(estimate.integer("bytes"))
    say(f"{segments} segments, {nbytes}, have another code than {code}; to encode them anew takes about")
    rows = table("SLOT", "GETS", "PUTS", "READ", "WRITTEN", "FREED IN THE END")
    for one in estimate.objects("traffic", 256):
        counts = [str(one.integer(name)) for name in ("slot", "gets", "puts")]
        rows.add_row(*counts, *(size(one.integer(name)) for name in ("read", "written", "freed")))
    show_table(rows)
    cost = estimate.object("cost")
    example = " (example prices, see objfs cost)" if cost.flag("example") else ""
    say(f"{amount(cost, 'once')} {cost.text('currency')} once, {amount(cost, 'month')} a month{example}")


def _say_done(done: Fields) -> None:
    before, after = size(done.integer("old_bytes")), size(done.integer("new_bytes"))
    say(f"{before} encoded anew, into {done.integer('new_segments')} segments of {after}")
    left, error = done.integer("left"), done.text("error", 65536)
    if left:
        unread = f"{done.integer('failed')} segments could not be rewritten: run objfs scrub"
        why = done.text("waits", 65536) or error or unread
        say(f"{left} segments, {size(done.integer('left_size'))}, have still another code: {why}")
    elif error:
        say(f"the code is {done.text('code')} now, and whether all has it is not known: {error}")
    else:
        say(f"everything has code {done.text('code')} now; what it was goes after the grace")
