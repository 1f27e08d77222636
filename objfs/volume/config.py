"""``volume.toml``: where the buckets of a volume are and which settings it has, written by people too.

Owns the text and the record.  Promises to refuse what it does not know at every level, by its full name, and
that what it writes reads back to the same record.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from objfs.errors import BadSetting
from objfs.volume.settings import VolumeSettings

TOML_FORMAT = 1


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """How this machine reaches one bucket.  ``options`` may hold credentials: never log them."""

    uuid: bytes
    url: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class VolumeConfig:
    """``volume.toml`` as a record."""

    volume: bytes
    buckets: tuple[BucketPlace, ...]
    settings: VolumeSettings = field(default_factory=VolumeSettings)


def parse_config(text: str, where: str) -> VolumeConfig:
    """Raises BadSetting naming the file and the full key that is unknown, missing or wrong."""
    try:
        return _config_of(tomllib.loads(text))
    except (ValueError, BadSetting, RecursionError) as error:
        # Not only what is no TOML: a number of more than 4,300 digits is a ValueError of its own.
        raise BadSetting(f"{where}: {error}") from None


def _config_of(document: dict[str, object]) -> VolumeConfig:
    _refuse_unknown(document, {"format", "volume", "settings", "bucket"}, "")
    if document.get("format") != TOML_FORMAT:
        raise BadSetting(f"format must be {TOML_FORMAT}")
    volume = _hex16(document.get("volume"), "volume")
    places = [_place(uuid, table) for uuid, table in _table(document.get("bucket", {}), "bucket").items()]
    settings = VolumeSettings.read(_table(document.get("settings", {}), "settings"))
    return VolumeConfig(volume, tuple(places), settings)


def _place(uuid: str, value: object) -> BucketPlace:
    name = f"bucket.{uuid}"
    table = _table(value, name)
    _refuse_unknown(table, {"url", "options"}, name + ".")
    url = table.get("url")
    if not isinstance(url, str):
        raise BadSetting(f"{name}.url: must be a text")
    options = _table(table.get("options", {}), f"{name}.options")
    for key, item in options.items():
        if not isinstance(item, str):
            raise BadSetting(f"{name}.options.{key}: must be a text")
    return BucketPlace(_hex16(uuid, name), url, {key: str(item) for key, item in options.items()})


def _hex16(value: object, name: str) -> bytes:
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32}", value):
        return bytes.fromhex(value)
    raise BadSetting(f"{name}: must be 32 hexadecimal digits")


def _table(value: object, name: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise BadSetting(f"{name}: must be a table")
    return value


def _refuse_unknown(table: Mapping[str, object], known: Iterable[str], prefix: str) -> None:
    for key in table:
        if key not in set(known):
            raise BadSetting(f"{prefix}{key}: no such key; remove it or correct its name")


def format_config(config: VolumeConfig) -> str:
    """The file's text; what ``parse_config`` reads back to the same record."""
    lines = [f"format = {TOML_FORMAT}", f'volume = "{config.volume.hex()}"', "", "[settings]"]
    lines += [f"{name} = {_toml(value)}" for name, value in config.settings.changed().items()]
    for place in config.buckets:
        lines += ["", f"[bucket.{place.uuid.hex()}]", f"url = {_toml(place.url)}"]
        if place.options:
            lines += [f"[bucket.{place.uuid.hex()}.options]"]
            lines += [f"{_toml(key)} = {_toml(item)}" for key, item in place.options.items()]
    return "\n".join(lines) + "\n"


def _toml(value: int | float | str) -> str:
    """A TOML value: JSON's text form is one of TOML's basic strings, and DEL must be escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
