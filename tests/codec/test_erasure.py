"""I3 at its root: both engines are reedsolo, and any k shards rebuild the rest."""

from __future__ import annotations

import random

import pytest
import reedsolo
from hypothesis import given, settings
from hypothesis import strategies as st

from objfs.codec import (
    Engine,
    IsaEngine,
    TableEngine,
    decode,
    default_engine,
    encode,
    gf256,
    parity_matrix,
    rebuild,
)
from objfs.codec.gf256 import Buffer
from objfs.errors import CodecError
from tests.codec.conftest import noise


def engines() -> list[Engine]:
    found: list[Engine] = [TableEngine()]
    if default_engine().name == "isa-l":
        found.append(IsaEngine())
    return found


ENGINES = engines()


@pytest.fixture(params=ENGINES, ids=[engine.name for engine in ENGINES])
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.param
    return found


def oracle(k: int, m: int, shards: list[bytes]) -> list[bytes]:
    """Parity by reedsolo itself, byte column by byte column; copies for k=1."""
    if k == 1 or m == 0:
        return shards * m
    codec = reedsolo.RSCodec(m, nsize=k + m)
    columns = [bytes(codec.encode(bytes(column))[k:]) for column in zip(*shards, strict=True)]
    return [bytes(column[j] for column in columns) for j in range(m)]


codes = st.tuples(st.integers(1, 32), st.integers(0, 16))


@settings(max_examples=60, deadline=None)
@given(codes, st.integers(1, 40), st.randoms(use_true_random=False))
def test_every_engine_yields_what_reedsolo_yields(
    code: tuple[int, int], size: int, rng: random.Random
) -> None:
    k, m = code
    data = [rng.randbytes(size) for _ in range(k)]
    expected = oracle(k, m, data)
    for each in ENGINES:
        assert encode(k, m, data, engine=each) == expected


@settings(max_examples=60, deadline=None)
@given(codes, st.integers(0, 70), st.randoms(use_true_random=False))
def test_any_k_shards_rebuild_all(code: tuple[int, int], size: int, rng: random.Random) -> None:
    k, m = code
    data = [rng.randbytes(size) for _ in range(k)]
    whole = data + encode(k, m, data)
    kept = rng.sample(range(k + m), k)
    for each in ENGINES:
        assert decode(k, m, {i: whole[i] for i in kept}, engine=each) == data
        assert rebuild(k, m, {i: whole[i] for i in kept}, range(k + m), engine=each) == whole


@pytest.mark.parametrize("lengths", [(100_000, 99_999, 70_000), (5, 0, 70_000), (40_000, 40_000, 40_000)])
def test_ragged_shards_count_as_padded(engine: Engine, lengths: tuple[int, ...]) -> None:
    shards = [noise(length, bytes([i])) for i, length in enumerate(lengths)]
    longest = max(lengths)
    padded = [shard.ljust(longest, b"\0") for shard in shards]
    rows = parity_matrix(3, 4)
    views = [memoryview(b"x" + shard)[1:] for shard in shards]
    assert engine.apply(rows, views, longest) == engine.apply(rows, padded, longest)
    assert [bytes(p) for p in engine.apply(rows, views, longest)] == encode(
        3, 4, padded, engine=TableEngine()
    )


def test_mutable_and_read_only_inputs_are_taken(engine: Engine) -> None:
    data: list[Buffer] = [noise(500, b"a"), bytearray(noise(500, b"b")), memoryview(noise(1000, b"c"))[500:]]
    assert encode(3, 2, data, engine=engine) == encode(3, 2, [bytes(d) for d in data], engine=engine)


def test_one_data_shard_means_copies() -> None:
    assert encode(1, 3, [b"abc"]) == [b"abc"] * 3
    assert decode(1, 3, {2: b"abc"}) == [b"abc"]


@pytest.mark.parametrize("code", [(0, 1), (33, 1), (4, 17), (4, -1)])
def test_codes_outside_the_format_are_refused(code: tuple[int, int]) -> None:
    with pytest.raises(CodecError):
        parity_matrix(*code)


def test_impossible_rebuilds_are_refused() -> None:
    for shards in ({0: b"aa"}, {0: b"aa", 1: b"a"}, {0: b"aa", 9: b"aa"}, {}):
        with pytest.raises(CodecError):
            decode(2, 2, shards)
    with pytest.raises(CodecError):
        encode(2, 2, [b"a"])


def test_without_the_library_tables_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IsaEngine, "LIBRARIES", ("libisal-that-is-not-there.so",))
    default_engine.cache_clear()
    try:
        assert default_engine().name == "tables"
    finally:
        default_engine.cache_clear()


def test_field_arithmetic() -> None:
    assert all(gf256.multiply(a, gf256.inverse(a)) == 1 for a in range(1, 256))
    with pytest.raises(ValueError, match="inverse"):
        gf256.invert([b"\x01\x02", b"\x01\x02"])
