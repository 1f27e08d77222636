"""The header: what is written is read, what is changed is refused, the newest genuine one wins."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from objfs.codec.envelope import ENVELOPE_SIZE, Kind, pack_envelope
from objfs.codec.keys import KeyRing, new_recovery_key
from objfs.errors import Corrupt, NewerFormat, NoSuchVolume, UsageError, WrongPassphrase
from objfs.model import Slot
from objfs.volume.features import Features
from objfs.volume.fields import Fields, canonical
from objfs.volume.header import Secret, VolumeHeader, decode, encode, newest, read_clear, unlock
from objfs.volume.table import URL_MAX, BucketEntry, hint
from tests.volume.support import PASSPHRASE, header, ring


def rewritten(data: bytes, **changes: object) -> bytes:
    """The header's bytes with fields of the clear half replaced, as a forger would."""
    document = json.loads(data[ENVELOPE_SIZE:]) | changes
    payload = canonical(document)
    return pack_envelope(Kind.HEADER, 1, len(payload)) + payload


def read(data: bytes) -> VolumeHeader:
    clear = read_clear(data)
    return decode(clear, unlock(clear, PASSPHRASE))


def test_what_is_written_is_read() -> None:
    wanted = header(ring())
    assert read(encode(wanted, ring())) == wanted


def test_urls_are_read_where_they_were_noted_and_never_in_the_clear() -> None:
    plain = header(ring())
    first, *others = plain.buckets
    wanted = replace(plain, buckets=(replace(first, url="s3://one/some/prefix"), *others))
    data = encode(wanted, ring())
    assert read(data) == wanted
    assert b"s3://" not in data
    assert not others[0].url


def test_a_url_that_is_too_long_is_not_noted() -> None:
    """The header is read again, whatever somebody wrote into volume.toml."""
    plain = header(ring())
    first, *others = plain.buckets
    entries = (replace(first, url="s3://one?kms_key=" + "x" * URL_MAX), *others)
    assert read(encode(replace(plain, buckets=entries), ring())) == plain


def test_a_header_that_nobody_would_read_is_not_written() -> None:
    entry = header(ring()).buckets[0]
    many = tuple(replace(entry, slot=Slot(number), url="\u00e9" * URL_MAX) for number in range(256))
    with pytest.raises(UsageError, match="shorten"):
        encode(replace(header(ring()), buckets=many), ring())


def test_a_url_that_needs_options_of_this_machine_is_no_hint() -> None:
    assert hint("s3://one", {"endpoint": "http://localhost:9000"}) == ""
    assert hint("s3://one", {}) == "s3://one"


@pytest.mark.parametrize("url", ["x" * (URL_MAX + 1), 7])
def test_a_url_that_cannot_be_one_is_corrupt(url: object) -> None:
    document = header(ring()).buckets[0].to_json() | {"url": url}
    with pytest.raises(Corrupt, match="url"):
        BucketEntry.from_json(Fields(document, "entry"))  # type: ignore[arg-type]  # on purpose


def test_the_ring_comes_out_of_the_slot() -> None:
    opened = unlock(read_clear(encode(header(ring()), ring())), PASSPHRASE)
    assert opened.secrets() == ring().secrets()
    assert opened.current.key_id == 1


def test_a_recovery_key_opens_its_slot() -> None:
    secret = Secret.recovery(new_recovery_key())
    clear = read_clear(encode(header(ring(), secret=secret), ring()))
    assert unlock(clear, secret).secrets() == ring().secrets()
    with pytest.raises(WrongPassphrase):
        unlock(clear, PASSPHRASE)


@pytest.mark.parametrize(
    "change",
    [{"generation": 9}, {"slots": []}, {"features": {"compat": ["x"], "ro_compat": [], "incompat": []}}],
)
def test_a_changed_clear_half_is_noticed(change: dict[str, object]) -> None:
    forged = rewritten(encode(header(ring()), ring()), **change)
    with pytest.raises(Corrupt, match="changed"):
        decode(read_clear(forged), ring())


def test_halves_of_two_headers_do_not_match() -> None:
    one, two = header(ring()), header(ring(), generation=2)
    sealed = json.loads(encode(two, ring())[ENVELOPE_SIZE:])["sealed"]
    with pytest.raises(Corrupt):
        decode(read_clear(rewritten(encode(one, ring()), sealed=sealed)), ring())


def test_every_flipped_byte_of_the_sealed_half_is_noticed() -> None:
    data = encode(header(ring()), ring())
    sealed = base64.b64decode(json.loads(data[ENVELOPE_SIZE:])["sealed"])
    for position in range(0, len(sealed), 7):
        broken = sealed[:position] + bytes([sealed[position] ^ 1]) + sealed[position + 1 :]
        forged = rewritten(data, sealed=base64.b64encode(broken).decode())
        with pytest.raises((Corrupt, NewerFormat, WrongPassphrase)):
            read(forged)


@pytest.mark.parametrize("data", [b"", b"x" * 40, encode(header(ring()), ring())[:-1]])
def test_what_is_no_header_is_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        read_clear(data)


def test_an_unknown_incompatible_feature_is_refused() -> None:
    newer = replace(header(ring()), features=Features(incompat=frozenset({"tape"})))
    with pytest.raises(NewerFormat, match="tape"):
        read_clear(encode(newer, ring()))


def test_an_unknown_ro_compat_feature_allows_reading_only() -> None:
    newer = replace(header(ring()), features=Features(ro_compat=frozenset({"quota"})))
    assert read(encode(newer, ring())).features.read_only
    assert not header(ring()).features.read_only


def test_the_highest_generation_wins() -> None:
    found = {f"b{n}": encode(header(ring(), generation=n), ring()) for n in (1, 3, 2)}
    assert newest(found, PASSPHRASE)[0].generation == 3


def test_a_forged_newer_generation_is_skipped() -> None:
    good = encode(header(ring(), generation=2), ring())
    found = {"b1": good, "b2": rewritten(good, generation=99), "b3": b"rubbish", "b4": good}
    assert newest(found, PASSPHRASE)[0].generation == 2


def test_one_bucket_that_claims_a_newer_format_is_outvoted() -> None:
    good = encode(header(ring()), ring())
    liar = rewritten(good, format=2)
    assert newest({"b1": good, "b2": liar, "b3": good}, PASSPHRASE)[0].generation == 1
    with pytest.raises(NewerFormat):
        newest({"b1": good, "b2": liar, "b3": liar}, PASSPHRASE)


def test_a_removed_passphrase_does_not_open_a_stale_copy() -> None:
    """The bucket that missed the rewrite still has the old slot; the genuine newer header says no."""
    other = Secret("passphrase", b"new one")
    found = {
        "b1": encode(header(ring()), ring()),
        "b2": encode(header(ring(), generation=2, secret=other), ring()),
    }
    with pytest.raises(WrongPassphrase, match="removed"):
        newest(found, PASSPHRASE)
    assert newest(found, other)[0].generation == 2


def test_wrong_passphrase_no_volume_and_two_volumes() -> None:
    good = encode(header(ring()), ring())
    with pytest.raises(WrongPassphrase):
        newest({"b1": good}, Secret("passphrase", b"wrong"))
    with pytest.raises(NoSuchVolume):
        newest({"b1": b""}, PASSPHRASE)
    other = KeyRing(b"o" * 16, {1: b"k" * 32}, 1)
    with pytest.raises(UsageError, match="different volumes"):
        newest({"b1": good, "b2": encode(header(other), other)}, PASSPHRASE)


@pytest.mark.parametrize("sealed", ["\u00e9", "AAAAA", "AA=A"])
def test_a_sealed_half_that_is_no_base64_is_corrupt(sealed: str) -> None:
    """The clear half is anybody's: letters beyond ASCII raise another error than other wrong ones."""
    with pytest.raises(Corrupt, match="base64"):
        read_clear(rewritten(encode(header(ring()), ring()), sealed=sealed))
