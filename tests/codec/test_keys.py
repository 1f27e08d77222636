"""Slots open with their secret only; forged slots cost nothing; recovery keys forgive a typist."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objfs.codec import (
    Cost,
    KeyRing,
    Slot,
    SlotKind,
    VolumeKey,
    make_slot,
    new_recovery_key,
    open_slot,
    parse_recovery_key,
)
from objfs.errors import CodecError, Corrupt, NewerFormat, UnknownKey, UsageError, WrongPassphrase
from tests.codec.conftest import SECRET, VOLUME

CHEAP = Cost(memory_kib=64, passes=1, lanes=1)
KEYS = {3: SECRET, 9: bytes(32)}
PHRASE = b"a passphrase that is long"


def slot_of(kind: SlotKind = "passphrase", secret: bytes = PHRASE) -> Slot:
    return make_slot(1, kind, secret, KEYS, VOLUME, cost=CHEAP, label="laptop", now_ns=1_700_000_000)


@pytest.mark.parametrize("kind", get_args(SlotKind))
def test_a_slot_opens_with_its_secret_after_json(kind: SlotKind) -> None:
    again = Slot.from_json(json.loads(json.dumps(slot_of(kind).to_json())))
    assert again == slot_of_same(again)
    assert open_slot(again, PHRASE, VOLUME) == KEYS


def slot_of_same(slot: Slot) -> Slot:
    """A slot is a pure function of its inputs and salt."""
    salt = bytes.fromhex(str(slot.kdf["salt"]))
    return make_slot(
        slot.slot_id,
        slot.kind,
        PHRASE,
        KEYS,
        VOLUME,
        cost=CHEAP,
        label=slot.label,
        now_ns=slot.created_ns,
        salt=salt,
    )


def test_another_secret_volume_or_slot_number_does_not_open() -> None:
    slot = slot_of()
    for attempt, secret, volume in (
        (slot, b"another", VOLUME),
        (slot, PHRASE, bytes(16)),
        (replace(slot, slot_id=2), PHRASE, VOLUME),
        (replace(slot, created_ns=0), PHRASE, VOLUME),
        (replace(slot, wrapped=slot.wrapped[:-1]), PHRASE, VOLUME),
        (replace(slot, wrapped=b""), PHRASE, VOLUME),
    ):
        with pytest.raises(WrongPassphrase):
            open_slot(attempt, secret, volume)


def test_two_slots_of_one_secret_share_nothing() -> None:
    assert slot_of().wrapped != slot_of().wrapped


@pytest.mark.parametrize(
    "forged",
    [
        {"memory_kib": 1024 * 1024 + 1},
        {"memory_kib": 0},
        {"passes": 17},
        {"passes": 0},
        {"lanes": 17},
        {"lanes": 0},
        {"passes": -1},
        {"passes": True},
        {"memory_kib": "64"},
        {"salt": ""},
        {"salt": "00" * 15},
        {"salt": "zz"},
    ],
)
def test_forged_costs_are_refused_before_any_work(forged: dict[str, object]) -> None:
    data = slot_of().to_json()
    data["kdf"] = {**slot_of().kdf, **forged}
    with pytest.raises(Corrupt):
        Slot.from_json(data)


def test_absurd_costs_are_refused_also_when_opening() -> None:
    slot = slot_of()
    slot.kdf["memory_kib"] = 2**31
    with pytest.raises(Corrupt, match="absurd"):
        open_slot(slot, PHRASE, VOLUME)


def test_unknown_kinds_and_derivations_are_newer() -> None:
    data = slot_of().to_json()
    with pytest.raises(NewerFormat):
        Slot.from_json({**data, "kind": "kms"})
    with pytest.raises(NewerFormat):
        Slot.from_json({**data, "kdf": {"name": "scrypt", "salt": "00" * 16}})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.dictionaries(
        st.sampled_from(["slot", "kind", "created_ns", "label", "kdf", "wrapped", "name", "salt"]), inner
    ),
    max_leaves=12,
)


@given(JSON)
def test_whatever_json_raises_only_codec_errors(data: object) -> None:
    with pytest.raises(CodecError):
        Slot.from_json(data)


def test_weak_secrets_are_refused() -> None:
    with pytest.raises(UsageError):
        slot_of("keyfile", b"short")
    with pytest.raises(UsageError):
        slot_of("passphrase", b"")


def test_a_ring_names_the_key_it_lacks(ring: KeyRing) -> None:
    assert ring.current.key_id == 3
    assert ring.get(4).secret == bytes(32)
    with pytest.raises(UnknownKey, match="volume key 5"):
        ring.get(5)
    assert ring.secrets() == {3: SECRET, 4: bytes(32)}


def test_subkeys_differ_and_no_secret_shows(key: VolumeKey) -> None:
    subkeys = {key.tag_key, key.identity_key, key.pages_key, key.segment_key(VOLUME), key.object_key(VOLUME)}
    assert len(subkeys | {key.secret}) == 6
    assert repr(SECRET) not in repr(key)
    assert SECRET.hex() not in repr(key)


def test_a_recovery_key_forgives_case_spaces_and_look_alikes() -> None:
    printed = new_recovery_key()
    assert len(printed.split("-")) == 8
    secret = parse_recovery_key(printed)
    assert len(secret) == 20
    sloppy = " " + printed.lower().replace("-", " ").replace("0", "o").replace("1", "l") + "\n"
    assert parse_recovery_key(sloppy) == secret
    assert new_recovery_key() != printed


@given(st.integers(0, 39), st.integers(1, 31))
def test_a_mistyped_letter_is_noticed(position: int, shift: int) -> None:
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    letters = list("".join(new_recovery_key().split("-")))
    letters[position] = alphabet[(alphabet.index(letters[position]) + shift) % 32]
    with pytest.raises(WrongPassphrase):
        parse_recovery_key("".join(letters))


@given(st.text(max_size=60))
def test_any_text_is_no_recovery_key(text: str) -> None:
    with pytest.raises(WrongPassphrase):
        parse_recovery_key(text)
