"""What buckets cost: a small table that people edit.

Owns the form of ``prices.toml`` and which entry counts for a bucket.  Promises that an unknown or missing
key, or a value that is no amount, is refused with the file's name.  Knows no provider: the table that is
shipped has examples.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path

from objfs.backends.wrappers.metrics import MetricsSnapshot
from objfs.errors import BadSetting

GB = 1_000_000_000
DAYS_PER_MONTH = 30
FILE = "prices.toml"


@dataclass(frozen=True, slots=True)
class Price:
    """One entry, in the table's currency; ``example``: it is one of those that are shipped, and not free."""

    match: str
    storage_gb_month: float
    put_per_1000: float
    get_per_1000: float
    egress_gb: float
    minimum_days: float
    example: bool = False

    def storage_month(self, nbytes: float) -> float:
        """What so many bytes cost a month."""
        return nbytes / GB * self.storage_gb_month

    def requests(self, puts: float, gets: float, bytes_in: float) -> float:
        """What requests cost; ``bytes_in`` came from the bucket."""
        return (puts * self.put_per_1000 + gets * self.get_per_1000) / 1000 + bytes_in / GB * self.egress_gb

    def early(self, age_days: float, nbytes: float) -> float:
        """What is still to be paid for objects of that age that are deleted now."""
        left = max(0.0, self.minimum_days - age_days)
        return self.storage_month(nbytes) * left / DAYS_PER_MONTH


@dataclass(frozen=True, slots=True)
class PriceTable:
    """All entries in the order in which they are asked."""

    currency: str
    entries: tuple[Price, ...]

    def of(self, url: str, uuid: str) -> Price:
        """The price of one bucket."""
        return next(one for one in self.entries if one.match == uuid or fnmatchcase(url, one.match))


def read_prices(home: Path) -> PriceTable:
    """The table of this machine, over the one that is shipped.  Raises BadSetting."""
    shipped = _parse(files("objfs.app").joinpath(FILE).read_text(encoding="utf-8"), FILE, example=True)
    own = home / FILE
    try:
        text = own.read_text(encoding="utf-8")
    except FileNotFoundError:
        return shipped
    except UnicodeDecodeError:
        raise BadSetting(f"{own}: is not UTF-8") from None
    table = _parse(text, str(own), example=False)
    return PriceTable(table.currency, table.entries + shipped.entries)


def puts_and_gets(seen: MetricsSnapshot) -> tuple[int, int]:
    """Requests by how they are priced; deletes are free."""
    puts = sum(seen[name].requests for name in ("put", "put_if_absent", "list"))
    return puts, seen["get"].requests + seen["stat"].requests


def _parse(text: str, where: str, *, example: bool) -> PriceTable:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSetting(f"{where}: {error}") from None
    unknown = sorted(document.keys() - {"currency", "bucket"})
    currency, buckets = document.get("currency"), document.get("bucket", [])
    if unknown or not isinstance(currency, str) or not isinstance(buckets, list):
        what = unknown[0] if unknown else "currency is a text, bucket a list of tables"
        raise BadSetting(f"{where}: {what}: see docs/user/cost.md")
    return PriceTable(currency, tuple(_entry(one, where, example) for one in buckets))


_AMOUNTS = tuple(one.name for one in fields(Price) if one.name not in ("match", "example"))


def _entry(value: object, where: str, example: bool) -> Price:
    if not isinstance(value, Mapping) or not isinstance(value.get("match"), str):
        raise BadSetting(f"{where}: each [[bucket]] needs a match")
    match = str(value["match"])
    if value.keys() != {"match", *_AMOUNTS}:
        wrong = ", ".join(sorted(value.keys() ^ {"match", *_AMOUNTS}))
        raise BadSetting(f"{where}: the entry for {match} has too much or lacks something: {wrong}")
    amounts = {name: value[name] for name in _AMOUNTS}
    for name, amount in amounts.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < 1e9:
            raise BadSetting(f"{where}: {name} of {match} must be a number of at least 0")
    return Price(match, **amounts, example=example and any(amounts.values()))
