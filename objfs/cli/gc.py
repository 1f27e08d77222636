"""``objfs gc``: what lies in the buckets and is not needed, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import click

from objfs.app.gc import Wish
from objfs.app.gc import gc as run_gc
from objfs.app.home import volume_of
from objfs.cli.context import age, home, json_option, notes, show, show_json, size
from objfs.cli.cost import amount
from objfs.cli.secret import SecretFiles, read_secret, secret_options
from objfs.errors import ExitCode
from objfs.volume.fields import Fields

WHY = {
    "grace": "wait for the grace",
    "moments": "wait until kept checkpoints that may need them are gone",
    "unpublished": "wait for the next checkpoint",
    "due": "go with the next round",
}


@click.command()
@click.argument("volume", metavar="NAME_OR_DIR")
@click.option("--run", is_flag=True, help="Condemn and compact now, and delete what may go now.")
@click.option("--old-keys", is_flag=True, help="With --run: rewrite all that is sealed under an older key.")
@click.option("--delete", is_flag=True, help="Delete objects that nothing names, those that are old enough.")
@json_option
@secret_options
def gc(
    volume: str,
    run: bool,
    old_keys: bool,
    delete: bool,
    as_json: bool,
    secrets: SecretFiles,
) -> int:
    """Say what could be freed, and why it is still there; change nothing unless told.

    Works on a mounted volume, and alone on one that is not.  Exit code 15: a bucket could not be looked at.
    """
    if old_keys and not run:
        raise click.UsageError("--old-keys goes with --run")
    found = volume_of(home(), volume)
    secret = partial(read_secret, found.name, secrets)
    report = run_gc(found, Wish(run, old_keys, delete), secret, notes())
    if as_json:
        show_json(report | {"volume": found.name})
    else:
        show(*describe(Fields(report, "gc")))
    return ExitCode.DEGRADED if report["silent"] else ExitCode.OK


def describe(report: Fields) -> list[str]:
    """The report for a person, one fact a line."""
    return [
        *_done(report.object("done")),
        f"segments     {_pile(report.object('segments'))}, {size(report.integer('alive_bytes'))} of their "
        "content in use",
        f"checkpoints  {report.integer('checkpoints')} kept",
        f"empty        {_pile(report.object('empty'))}: condemned by --run, or within ten minutes of a mount",
        *_waiting(report),
        *_compactable(report),
        *(f"owed         {where}: {count} objects to delete" for where, count in _counts(report, "owed")),
        *_unknown(report),
        *_cost(report),
        *(f"foreign      {where}: {count} objects of others" for where, count in _counts(report, "foreign")),
        *(f"not seen     {where}: {why}" for where, why in report.raw("silent").items()),
    ]


def _done(done: Fields) -> Iterator[str]:
    count = done.integer
    if count("condemned") or count("emptied") or count("checkpoints") or count("deleted"):
        yield (
            f"done         {count('condemned')} segments condemned, {count('emptied')} rewritten into "
            f"{count('written')}, {count('deleted')} deleted, {count('checkpoints')} checkpoints deleted"
        )
    if count("unreadable"):
        yield f"done         {count('unreadable')} segments could not be rewritten: run objfs fsck"
    if count("unknown_objects"):
        yield f"done         {count('unknown_objects')} unknown objects deleted"


def _waiting(report: Fields) -> Iterator[str]:
    waiting = report.object("waiting")
    for why, said in WHY.items():
        if waiting.has(why):
            left = f", the last for {age(report.number('grace_left_s', 0, 1e12))}" if why == "grace" else ""
            yield f"condemned    {_pile(waiting.object(why))}: {said}{left}"


def _compactable(report: Fields) -> Iterator[str]:
    sparse, alive = report.object("sparse"), report.integer("sparse_alive_bytes")
    if sparse.integer("segments"):
        yield f"sparse       {_pile(sparse)}, {size(alive)} of their content in use: would be rewritten"
    if report.object("small").integer("segments"):
        yield f"small        {_pile(report.object('small'))}: joined when there are enough of a size"
    if report.object("old_keys").integer("segments"):
        yield f"old keys     {_pile(report.object('old_keys'))}: rewritten by --run --old-keys"
    if report.integer("units"):
        yield f"compaction   would write {report.integer('units')} segments"
    if report.text("unfit", 65536):
        yield f"compaction   waits: {report.text('unfit', 65536)}"


def _unknown(report: Fields) -> Iterator[str]:
    if not report.object("unknown_pile").integer("segments"):
        return
    pile = _pile(report.object("unknown_pile"))
    yield f"unknown      {pile}: left by a crash, by another machine, or under way"
    for one in report.objects("unknown", 100_000):
        old = "" if one.flag("old") else ", too young to be deleted"
        objects, nbytes = one.integer("objects"), size(one.integer("nbytes"))
        seconds = age(one.number("age_s", -1e12, 1e12))
        yield f"             {one.text('uuid')}: {objects} objects, {nbytes}, {seconds} old{old}"
    if report.text("unsure", 65536):
        yield f"             none is deleted: {report.text('unsure', 65536)}"
    elif report.object("unknown_old").integer("segments"):
        yield f"             --delete removes {_pile(report.object('unknown_old'))}"


def _cost(report: Fields) -> Iterator[str]:
    cost = report.object("cost")
    if not cost.integer("freed_bytes"):
        return
    puts, gets = cost.integer("puts"), cost.integer("gets")
    read, written = size(cost.integer("bytes_in")), size(cost.integer("bytes_out"))
    yield f"cost         frees {size(cost.integer('freed_bytes'))} in all"
    yield f"             compaction takes about {puts} puts, {gets} gets, {read} read, {written} written"
    once, early, saved = (amount(cost, name) for name in ("once", "early", "saved_month"))
    example = " (example prices, see objfs cost)" if cost.flag("example") else ""
    yield (
        f"             {once} {cost.text('currency')} once, {early} for what is deleted early, "
        f"{saved} saved a month{example}"
    )


def _counts(report: Fields, key: str) -> list[tuple[str, int]]:
    counts = report.object(key)
    return [(name, counts.integer(name)) for name in counts.value]


def _pile(pile: Fields) -> str:
    count = pile.integer("segments")
    return f"{count} segment{'' if count == 1 else 's'}, {size(pile.integer('nbytes'))}"
