"""Reading JSON that came from outside: every field is checked for type and range before use.

Owns the one way in which headers, labels, leases, manifests and local state files are parsed.
Promises that a wrong document raises ``Corrupt`` naming the document and the field, never a
KeyError or TypeError.  Fields that are not asked for are ignored: what an older program must not
ignore is announced by a feature bit.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TypeAlias

from objfs.errors import Corrupt

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
INT64 = 2**63 - 1


def canonical(value: Mapping[str, JSON]) -> bytes:
    """The one byte form of a JSON object: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


class Fields:
    """One JSON object under examination; ``where`` names the document in messages."""

    def __init__(self, value: JSON, where: str) -> None:
        if not isinstance(value, dict):
            raise Corrupt(f"{where}: expected a JSON object")
        self._value = value
        self.where = where

    @classmethod
    def parse(cls, data: bytes, where: str) -> Fields:
        """Parses one JSON object; raises Corrupt."""
        try:
            return cls(json.loads(data), where)
        except (ValueError, RecursionError):
            raise Corrupt(f"{where}: not a JSON document") from None

    def wrong(self, key: str, expected: str) -> Corrupt:
        """The error for a field that is not what it must be."""
        return Corrupt(f"{self.where}: field {key!r} is not {expected}")

    def has(self, key: str) -> bool:
        return self._value.get(key) is not None

    def integer(self, key: str, low: int = 0, high: int = INT64) -> int:
        value = self._value.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(key, f"an integer from {low} to {high}")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        value = self._value.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.wrong(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self._value.get(key)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def text(self, key: str, longest: int = 1024) -> str:
        value = self._value.get(key)
        if not isinstance(value, str) or len(value) > longest:
            raise self.wrong(key, f"a text of at most {longest} characters")
        return value

    def hexbytes(self, key: str, length: int) -> bytes:
        """Bytes written as lower-case hexadecimal digits; ``length`` in bytes."""
        value = self._value.get(key)
        if isinstance(value, str) and len(value) == 2 * length and value == value.lower():
            try:
                return bytes.fromhex(value)
            except ValueError:
                pass
        raise self.wrong(key, f"{length} bytes in hexadecimal")

    def base64(self, key: str, longest: int) -> bytes:
        value = self.text(key, longest * 4 // 3 + 4)
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:  # binascii.Error is one; letters beyond ASCII raise the plain one
            raise self.wrong(key, "base64") from None

    def items(self, key: str, longest: int) -> list[JSON]:
        value = self._value.get(key)
        if not isinstance(value, list) or len(value) > longest:
            raise self.wrong(key, f"a list of at most {longest} entries")
        return value

    def integers(self, key: str, longest: int, low: int = 0, high: int = INT64) -> tuple[int, ...]:
        found = []
        for item in self.items(key, longest):
            if isinstance(item, bool) or not isinstance(item, int) or not low <= item <= high:
                raise self.wrong(key, f"a list of integers from {low} to {high}")
            found.append(item)
        return tuple(found)

    def texts(self, key: str, longest: int) -> tuple[str, ...]:
        items = self.items(key, longest)
        if not all(isinstance(item, str) and len(item) <= 256 for item in items):
            raise self.wrong(key, "a list of texts")
        return tuple(str(item) for item in items)

    def object(self, key: str) -> Fields:
        return Fields(self._value.get(key), f"{self.where}: {key}")

    def objects(self, key: str, longest: int) -> list[Fields]:
        return [
            Fields(item, f"{self.where}: {key}[{number}]")
            for number, item in enumerate(self.items(key, longest))
        ]

    def raw(self, key: str) -> dict[str, JSON]:
        value = self._value.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return value

    @property
    def value(self) -> dict[str, JSON]:
        return self._value
