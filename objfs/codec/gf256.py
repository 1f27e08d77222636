"""Arithmetic in GF(2^8), polynomial 0x11d, and two engines that multiply a matrix with shards.

Owns the field's tables and the engines: ISA-L through ctypes where the library is found, tables
for ``bytes.translate`` else.  Promises that both yield the same bytes, that inputs shorter than
the asked length count as padded with zeros, and that no engine loops over bytes in Python.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Protocol

log = logging.getLogger(__name__)

POLYNOMIAL = 0x11D

Buffer = bytes | bytearray | memoryview


def _tables() -> tuple[list[int], list[int]]:
    exp, logs, x = [0] * 510, [0] * 256, 1
    for i in range(255):
        exp[i] = exp[i + 255] = x
        logs[x] = i
        x = (x << 1) ^ (POLYNOMIAL if x & 0x80 else 0)
    return exp, logs


_EXP, _LOG = _tables()


def multiply(a: int, b: int) -> int:
    """The product of two field elements."""
    return _EXP[_LOG[a] + _LOG[b]] if a and b else 0


def inverse(a: int) -> int:
    """The multiplicative inverse of a field element other than 0."""
    return _EXP[255 - _LOG[a]]


@lru_cache(maxsize=256)
def multiplication_table(c: int) -> bytes:
    """256 bytes: x to c*x, for ``bytes.translate``."""
    return bytes(multiply(c, x) for x in range(256))


def add_scaled(row: bytes, c: int, other: bytes) -> bytes:
    """row + c*other, both of one length."""
    scaled = int.from_bytes(other.translate(multiplication_table(c)), "little")
    return (int.from_bytes(row, "little") ^ scaled).to_bytes(len(row), "little")


def invert(matrix: Sequence[bytes]) -> list[bytes]:
    """The inverse of a square matrix by Gauss and Jordan.  ValueError when there is none."""
    n = len(matrix)
    rows = [bytes(matrix[i]) + bytes(i) + b"\x01" + bytes(n - 1 - i) for i in range(n)]
    for column in range(n):
        pivot = next((i for i in range(column, n) if rows[i][column]), None)
        if pivot is None:
            raise ValueError("matrix has no inverse")
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = rows[column].translate(multiplication_table(inverse(rows[column][column])))
        for i in range(n):
            if i != column and rows[i][column]:
                rows[i] = add_scaled(rows[i], rows[i][column], rows[column])
    return [row[n:] for row in rows]


class Engine(Protocol):
    """Multiplies matrices with shards."""

    name: str

    def apply(self, rows: Sequence[bytes], shards: Sequence[Buffer], length: int) -> list[bytearray]:
        """For each row the sum of row[i] * shards[i], ``length`` bytes; shorter shards are padded."""
        ...


class TableEngine:
    """``bytes.translate`` for the products, big integers for the sums."""

    name = "tables"

    STRIPE = 32 * 1024
    """Bytes worked on at once: products and sums of a stripe stay in the nearest cache."""

    def apply(self, rows: Sequence[bytes], shards: Sequence[Buffer], length: int) -> list[bytearray]:
        sums = [bytearray() for _ in rows]
        for start in range(0, length, self.STRIPE):
            size = min(self.STRIPE, length - start)
            stripes = [bytes(shard[start : start + size]) for shard in shards]
            for row, total in zip(rows, sums, strict=True):
                total += self._combine(row, stripes).to_bytes(size, "little")
        return sums

    @staticmethod
    def _combine(row: bytes, stripes: Sequence[bytes]) -> int:
        """Little-endian integers make a shorter stripe padded with zeros for free."""
        total = 0
        for coefficient, stripe in zip(row, stripes, strict=True):
            if coefficient:
                product = stripe.translate(multiplication_table(coefficient))
                total ^= int.from_bytes(product, "little")
        return total


class _PyBuffer(ctypes.Structure):
    """CPython's Py_buffer, to reach the address of read-only bytes without a copy."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


@contextmanager
def _address(data: Buffer) -> Iterator[int]:
    """The address of contiguous bytes, valid inside the block."""
    view = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(data), ctypes.byref(view), 0)
    try:
        yield view.buf or 0
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))


class IsaEngine:
    """Intel's ISA-L.  The GIL is released while it computes.  OSError when it is not there."""

    name = "isa-l"

    LIBRARIES = ("libisal.so.2", "libisal.2.dylib")

    def __init__(self) -> None:
        library = _first_library(self.LIBRARIES)
        self._init_tables = library.ec_init_tables
        self._init_tables.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p)
        self._init_tables.restype = None
        self._encode = library.ec_encode_data
        self._encode.argtypes = (
            *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_char_p),
            *(ctypes.c_void_p, ctypes.c_void_p),
        )
        self._encode.restype = None

    def apply(self, rows: Sequence[bytes], shards: Sequence[Buffer], length: int) -> list[bytearray]:
        sums = [bytearray(length) for _ in rows]
        if not rows or not length:
            return sums
        # What all shards have is read in place; only the ragged rest is copied and padded.
        common = min(length, *(len(shard) for shard in shards))
        tables = self._tables(rows, len(shards))
        self._encode_at(tables, shards, sums, 0, common)
        if common < length:
            rests = [bytes(shard[common:length]).ljust(length - common, b"\0") for shard in shards]
            self._encode_at(tables, rests, sums, common, length - common)
        return sums

    def _tables(self, rows: Sequence[bytes], columns: int) -> ctypes.Array[ctypes.c_char]:
        tables = ctypes.create_string_buffer(32 * columns * len(rows))
        self._init_tables(columns, len(rows), b"".join(rows), tables)
        return tables

    def _encode_at(
        self,
        tables: ctypes.Array[ctypes.c_char],
        shards: Sequence[Buffer],
        sums: Sequence[bytearray],
        start: int,
        size: int,
    ) -> None:
        if not size:
            return
        with ExitStack() as stack:
            sources = [stack.enter_context(_address(shard)) for shard in shards]
            targets = [stack.enter_context(_address(total)) + start for total in sums]
            inputs = (ctypes.c_void_p * len(sources))(*sources)
            outputs = (ctypes.c_void_p * len(targets))(*targets)
            self._encode(size, len(sources), len(targets), tables, inputs, outputs)


def _first_library(names: Sequence[str]) -> ctypes.CDLL:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise OSError(f"none of {', '.join(names)} can be loaded")


@lru_cache(maxsize=1)
def default_engine() -> Engine:
    """ISA-L where it can be loaded, tables else; decided once in a process."""
    try:
        return IsaEngine()
    except OSError:
        log.info("erasure_engine=tables reason=libisal2-not-found")
        return TableEngine()
