"""Inputs made from valid ones: deterministic, so that a number names an input.

Owns the mutations.  Knows no format, but that many are JSON or text, where a changed value goes deeper than a
changed byte.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

LONGEST = 64 * 1024
"""Bytes of an input."""
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
_TOKENS = re.compile(rb'"[^"]*"|-?\d+(?:\.\d+)?|true|false|null|[\[\]{}]')
_VALUES = (
    *(b"null", b"true", b"0", b"-1", b"1e400", b"NaN", b"-Infinity", b"1.5", b"[]", b"{}", b'""', b"1" * 400),
    *(b'"\xc3\xa9"', b'"\\ud800"', b"9223372036854775808", b"[" * 3000, b'{"a":' * 500, b"'", b"\xff", b"\0"),
)

Mutation = Callable[[random.Random, bytearray], bytes]


def mutant(seeds: Sequence[bytes], number: int) -> bytes:
    """The input of that number: one seed, changed one to four times."""
    generator = random.Random(number)
    data = generator.choice(seeds)
    for _ in range(generator.choice((1, 1, 2, 4))):
        data = generator.choice(_MUTATIONS)(generator, bytearray(data))[:LONGEST]
    return data


def _flip(generator: random.Random, data: bytearray) -> bytes:
    if data:
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    return bytes(data)


def _byte(generator: random.Random, data: bytearray) -> bytes:
    if data:
        value = generator.choice((0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)))
        data[generator.randrange(len(data))] = value
    return bytes(data)


def _number(generator: random.Random, data: bytearray) -> bytes:
    """An extreme number of 1 to 8 bytes over what is there."""
    width = generator.choice((1, 2, 4, 8))
    value = generator.choice(_NUMBERS) & ((1 << 8 * width) - 1)
    at = generator.randrange(len(data) + 1)
    data[at : at + width] = value.to_bytes(width, "big")
    return bytes(data)


def _cut(generator: random.Random, data: bytearray) -> bytes:
    return bytes(data[: generator.randrange(len(data) + 1)])


def _remove(generator: random.Random, data: bytearray) -> bytes:
    at = generator.randrange(len(data) + 1)
    del data[at : at + generator.choice((1, 2, 8, 64))]
    return bytes(data)


def _repeat(generator: random.Random, data: bytearray) -> bytes:
    at = generator.randrange(len(data) + 1)
    piece = data[at : at + generator.choice((1, 4, 24, 256))]
    return bytes(data[:at] + piece * generator.choice((1, 2, 100)) + data[at:])


def _noise(generator: random.Random, data: bytearray) -> bytes:
    at = generator.randrange(len(data) + 1)
    return bytes(data[:at] + generator.randbytes(generator.choice((1, 4, 33))) + data[at:])


def _value(generator: random.Random, data: bytearray) -> bytes:
    """A token of a text, such as a value in JSON, becomes another."""
    tokens = list(_TOKENS.finditer(data))
    if not tokens:
        return _byte(generator, data)
    token = generator.choice(tokens)
    data[token.start() : token.end()] = generator.choice((*_VALUES, generator.choice(tokens)[0]))
    return bytes(data)


_MUTATIONS: Sequence[Mutation] = (_flip, _byte, _number, _cut, _remove, _repeat, _noise, *[_value] * 3)
