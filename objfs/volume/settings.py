"""The settings of a volume on this machine: one table from which code, checks and documents follow.

Owns ``SETTINGS`` (name, type, range, default, meaning) and ``VolumeSettings``, the record with one field
per row.  Promises that an unknown name or a value out of range raises BadSetting with the full name.
Sizes are bytes, or a text such as ``"10 GiB"``; times are seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from objfs.errors import BadSetting

Value: TypeAlias = "int | float | str"
MIB = 1024 * 1024
GIB = 1024 * MIB
_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
_UNITS |= {"KIB": 1024, "MIB": MIB, "GIB": GIB, "TIB": 1024 * GIB}


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: ``low`` and ``high`` bound numbers and sizes, ``choices`` lists the texts allowed."""

    name: str
    type: Literal["size", "count", "seconds", "share", "choice"]
    default: Value
    meaning: str
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        """The allowed values, for documents and messages."""
        if self.type == "choice":
            return " or ".join(f'"{choice}"' for choice in self.choices)
        return f"{self._number(self.low)} to {self._number(self.high)}"

    def _number(self, value: float) -> str:
        """A size in the largest unit that divides it, anything else as it is."""
        units = (("TiB", 1024 * GIB), ("GiB", GIB), ("MiB", MIB)) if self.type == "size" else ()
        for unit, factor in units:
            if value and value % factor == 0:
                return f"{value / factor:,.0f} {unit}"
        return f"{value:,g}"


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "cache_size",
        "size",
        10 * GIB,
        "Bytes of local disk for the cache, with the inode table, its log and its replica.",
        8 * MIB,
        2**60,
    ),
    Setting("cache_reserve", "size", GIB, "Bytes of the host's disk that the cache leaves free.", 0, 2**60),
    Setting(
        "full_timeout",
        "seconds",
        3600.0,
        "Time for which a writer waits for room in a cache that is full while nothing can be uploaded; "
        "then it gets ENOSPC.",
        1,
        31536000,
    ),
    Setting(
        "checkpoint_interval",
        "seconds",
        10.0,
        "Time between checkpoints while something changes; what a lost machine loses is at most this old, "
        "plus the upload.",
        1,
        86400,
    ),
    Setting(
        "fsync",
        "choice",
        "local",
        'What fsync waits for: "local" this machine\'s disk, "bucket" a recoverable moment in the buckets.',
        choices=("local", "bucket"),
    ),
    Setting(
        "follow_interval",
        "seconds",
        60.0,
        "Time between two looks for newer moments where a read-only mount follows; a look is one request to "
        "one bucket, each in turn.",
        1,
        86400,
    ),
    Setting("lease_interval", "seconds", 60.0, "Time between renewals of the lease.", 1, 3600),
    Setting("request_timeout", "seconds", 30.0, "Time allowed for one request to a bucket.", 0.1, 3600),
    Setting("connections", "count", 16, "Requests to one bucket at a time.", 1, 1024),
    Setting("retries", "count", 5, "Retries of a request that failed and may succeed later.", 0, 100),
    Setting(
        "hedge",
        "count",
        5,
        "Requests, in percent of those that reads need, that may be made besides to other buckets where one "
        "is slower than it mostly is; 0 is none.",
        0,
        100,
    ),
    Setting("bandwidth", "size", 0, "Bytes a second to one bucket; 0 is without limit.", 0, 2**40),
    Setting(
        "min_placed",
        "count",
        0,
        "Shards of a segment in buckets that make it stored, at least k and at most k+m; 0 means k. A "
        "segment of copies needs one, and as many more as this is above k.",
        0,
        255,
    ),
    Setting(
        "heal_rate",
        "size",
        32 * MIB,
        "Bytes a second that healing of what is short of shards reads and writes; 0 is without limit.",
        0,
        2**40,
    ),
    Setting(
        "recovery_window", "seconds", 3600.0, "Age up to which superseded checkpoints are kept.", 0, 31536000
    ),
    Setting("recovery_keep", "count", 8, "Checkpoints kept whatever their age.", 1, 10000),
    Setting(
        "delete_grace", "seconds", 86400.0, "Time for which an unused segment is still kept.", 0, 31536000
    ),
    Setting(
        "compact_below",
        "share",
        0.5,
        "Share in use under which a segment is rewritten in the background; 0 switches compaction off.",
        0,
        0.9,
    ),
    Setting(
        "compact_rate",
        "size",
        8 * MIB,
        "Bytes a second that compaction and a change of the code read and write in the background; 0 is "
        "without limit.",
        0,
        2**40,
    ),
    *(
        Setting(
            f"snapshot_keep_{rule}",
            "count",
            default,
            f"Scheduled snapshots: {meaning} are kept. Others are never pruned by a timer.",
            0,
            1000000,
        )
        for rule, default, meaning in (
            ("last", 0, "so many of the newest"),
            ("hourly", 24, "the newest of so many hours"),
            ("daily", 7, "the newest of so many days"),
            ("weekly", 5, "the newest of so many weeks"),
            ("monthly", 12, "the newest of so many months"),
            ("yearly", 0, "the newest of so many years"),
        )
    ),
    Setting(
        "trash_days",
        "count",
        0,
        "Days for which what is deleted can be brought back (objfs undelete); 0 is no trash.",
        0,
        3650,
    ),
)

BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class VolumeSettings:
    """One value per row of ``SETTINGS``; sizes in bytes, times in seconds."""

    cache_size: int = 10 * GIB
    cache_reserve: int = GIB
    full_timeout: float = 3600.0
    checkpoint_interval: float = 10.0
    fsync: str = "local"
    follow_interval: float = 60.0
    lease_interval: float = 60.0
    request_timeout: float = 30.0
    connections: int = 16
    retries: int = 5
    hedge: int = 5
    bandwidth: int = 0
    min_placed: int = 0
    heal_rate: int = 32 * MIB
    recovery_window: float = 3600.0
    recovery_keep: int = 8
    delete_grace: float = 86400.0
    compact_below: float = 0.5
    compact_rate: int = 8 * MIB
    snapshot_keep_last: int = 0
    snapshot_keep_hourly: int = 24
    snapshot_keep_daily: int = 7
    snapshot_keep_weekly: int = 5
    snapshot_keep_monthly: int = 12
    snapshot_keep_yearly: int = 0
    trash_days: int = 0

    @classmethod
    def read(cls, values: Mapping[str, object], where: str = "settings") -> VolumeSettings:
        """Raises BadSetting naming ``where.key`` for an unknown key or a bad value."""
        return cls(**{name: parse_value(f"{where}.{name}", name, value) for name, value in values.items()})  # type: ignore[arg-type]

    def changed(self) -> dict[str, Value]:
        """The values that differ from the defaults, in the table's order."""
        present = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in present.items() if value != BY_NAME[name].default}


def parse_value(full_name: str, name: str, value: object) -> Value:
    """One value, checked against its row.  Raises BadSetting."""
    setting = BY_NAME.get(name)
    if setting is None:
        raise BadSetting(f"{full_name}: no such setting")
    if setting.type == "choice":
        if value not in setting.choices:
            raise BadSetting(f"{full_name}: must be {setting.range}")
        return str(value)
    number = _number(setting, value)
    if number is None or not setting.low <= number <= setting.high:
        raise BadSetting(f"{full_name}: must be {_TYPE_NAMES[setting.type]} from {setting.range}")
    return float(number) if setting.type in _FRACTIONS else int(number)


_FRACTIONS = ("seconds", "share")
_TYPE_NAMES = {
    "size": 'bytes (or a text such as "10 GiB")',
    "count": "a whole number",
    "seconds": "seconds",
    "share": "a share",
}


def _number(setting: Setting, value: object) -> float | int | None:
    """The number meant, or None.  A text is a number from ``-o``, with a unit where it is a size."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", value.strip())
        if match is None or (match[2] and setting.type != "size"):
            return None
        unit = _UNITS.get(match[2].upper())
        if unit is None:
            return None
        number = float(match[1]) * unit if "." in match[1] else int(match[1]) * unit
        return int(number) if setting.type == "size" else number
    if isinstance(value, int):
        return value
    return value if isinstance(value, float) and setting.type in _FRACTIONS else None
