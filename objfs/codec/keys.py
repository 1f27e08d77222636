"""Volume keys, what is derived from them, and the slots that wrap them.

Owns the key hierarchy: secret of a slot -> key-encryption key -> ring of volume keys -> subkeys.
Promises that a forged slot costs at most 1 GiB of memory and 16 passes, and that no secret shows
in a repr.  Does not know where slots are kept (``volume.header``) nor who asks for secrets.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from objfs.errors import Corrupt, NewerFormat, UnknownKey, UsageError, WrongPassphrase

KEY_SIZE = 32
SALT_SIZE = 16
MIN_SECRET = 16
"""Least bytes of a key file: it is not stretched, so it must be random and long enough."""

MAX_KEYS = 1024
SlotKind = Literal["passphrase", "keyfile", "recovery"]

_KIND_NUMBER: dict[SlotKind, int] = {"passphrase": 1, "keyfile": 2, "recovery": 3}
_ZERO_NONCE = bytes(12)
_WRAPPED_KEY = struct.Struct(">I32s")


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """32 bytes of HKDF-SHA256 (RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=KEY_SIZE, salt=salt, info=info).derive(secret)


@dataclass(frozen=True)
class VolumeKey:
    """One 32-byte key of a volume and the keys derived from it; ``volume`` is its 16-byte UUID."""

    key_id: int
    secret: bytes = field(repr=False)
    volume: bytes

    @cached_property
    def tag_key(self) -> bytes:
        """For the BLAKE3 tags of shard headers and blocks."""
        return hkdf(self.secret, self.volume, b"objfs tag")

    @cached_property
    def identity_key(self) -> bytes:
        """For the identities of chunks."""
        return hkdf(self.secret, self.volume, b"objfs identity")

    @cached_property
    def pages_key(self) -> bytes:
        """For the incremental hash over the inode table's pages."""
        return hkdf(self.secret, self.volume, b"objfs pages")

    def segment_key(self, uuid: bytes) -> bytes:
        """The AES-256 key of one segment's frames."""
        return hkdf(self.secret, uuid, b"objfs segment")

    def object_key(self, salt: bytes) -> bytes:
        """The AES-256 key of one sealed object."""
        return hkdf(self.secret, salt, b"objfs object")


class KeyRing:
    """All keys of a volume: the current one seals, every one opens."""

    def __init__(self, volume: bytes, keys: Mapping[int, bytes], current: int) -> None:
        self.volume = volume
        self._keys = {key_id: VolumeKey(key_id, secret, volume) for key_id, secret in keys.items()}
        self._current = self.get(current)

    @property
    def current(self) -> VolumeKey:
        return self._current

    @property
    def oldest(self) -> VolumeKey:
        """For what a mount must be able to read that was opened before the key was rotated: leases, pins."""
        return self._keys[min(self._keys)]

    def get(self, key_id: int) -> VolumeKey:
        """Raises UnknownKey."""
        try:
            return self._keys[key_id]
        except KeyError:
            raise UnknownKey(
                f"volume key {key_id} is not in the ring (it holds {sorted(self._keys)}): open the volume "
                "with a slot that was made or renewed after that key was added"
            ) from None

    def rotated(self) -> KeyRing:
        """A ring with one key more, drawn at random, which seals from now on."""
        new = max(self._keys) + 1
        return KeyRing(self.volume, {**self.secrets(), new: secrets.token_bytes(KEY_SIZE)}, new)

    def secrets(self) -> dict[int, bytes]:
        """Key id to raw key, for wrapping in another slot."""
        return {key_id: key.secret for key_id, key in self._keys.items()}


@dataclass(frozen=True, slots=True)
class Cost:
    """What Argon2id may take: memory in KiB, passes over it, parallel lanes."""

    memory_kib: int = 64 * 1024
    passes: int = 3
    lanes: int = 1

    def check(self) -> None:
        """Raises Corrupt beyond 1 GiB, 16 passes or 16 lanes: a forged header must not stall us."""
        fits = 1 <= self.passes <= 16 and 1 <= self.lanes <= 16
        if not fits or not 8 * self.lanes <= self.memory_kib <= 1024 * 1024:
            raise Corrupt(f"key slot asks for absurd Argon2id costs ({self}): forged or damaged header")


DEFAULT_COST = Cost()


@dataclass(frozen=True, slots=True)
class Slot:
    """One way to open a volume: ``wrapped`` is the ring of keys sealed under a secret's key.

    ``kdf`` says how the secret becomes that key, ``created_ns`` is wall time since 1970.
    """

    slot_id: int
    kind: SlotKind
    created_ns: int
    label: str
    kdf: dict[str, str | int]
    wrapped: bytes = field(repr=False)

    def to_json(self) -> dict[str, object]:
        """A JSON object; bytes as lower-case hex."""
        return {
            "slot": self.slot_id,
            "kind": self.kind,
            "created_ns": self.created_ns,
            "label": self.label,
            "kdf": dict(self.kdf),
            "wrapped": self.wrapped.hex(),
        }

    @classmethod
    def from_json(cls, data: object) -> Slot:
        """Raises Corrupt for what is no slot, NewerFormat for an unknown kind or derivation."""
        if not isinstance(data, dict):
            raise Corrupt("key slot is not a JSON object: damaged header")
        kind = _text(data, "kind")
        if kind not in _KIND_NUMBER:
            raise NewerFormat(f"key slot of kind {kind!r} is unknown to this objfs: upgrade")
        return cls(
            slot_id=_number(data, "slot", 2**32),
            kind=kind,
            created_ns=_number(data, "created_ns", 2**63),
            label=_text(data, "label"),
            kdf=_read_kdf(data.get("kdf")),
            wrapped=_hex(data, "wrapped"),
        )


def make_slot(
    slot_id: int,
    kind: SlotKind,
    secret: bytes,
    ring_secrets: Mapping[int, bytes],
    volume: bytes,
    *,
    cost: Cost = DEFAULT_COST,
    label: str = "",
    now_ns: int,
    salt: bytes | None = None,
) -> Slot:
    """Wraps all keys of a ring under a secret.

    ``salt`` is drawn at random; give one only to make test vectors.

    Raises UsageError for an empty passphrase or a key file under 16 bytes.
    """
    if len(secret) < (1 if kind == "passphrase" else MIN_SECRET):
        raise UsageError(f"the {kind} is too short: a key file needs at least {MIN_SECRET} random bytes")
    kdf: dict[str, str | int] = {
        "name": "hkdf-sha256",
        "salt": (salt or secrets.token_bytes(SALT_SIZE)).hex(),
    }
    if kind == "passphrase":
        cost.check()
        kdf["name"] = "argon2id"
        kdf |= {"memory_kib": cost.memory_kib, "passes": cost.passes, "lanes": cost.lanes}
    plain = b"".join(_WRAPPED_KEY.pack(key_id, ring_secrets[key_id]) for key_id in sorted(ring_secrets))
    sealing = AESGCM(_slot_key(kdf, secret))
    wrapped = sealing.encrypt(_ZERO_NONCE, plain, _slot_aad(slot_id, kind, created_ns=now_ns, volume=volume))
    return Slot(slot_id, kind, now_ns, label, kdf, wrapped)


def rewrap(slot: Slot, secret: bytes, ring_secrets: Mapping[int, bytes], volume: bytes) -> Slot:
    """The same slot with the keys of another ring, under the same secret and costs."""
    cost = DEFAULT_COST
    if slot.kind == "passphrase":
        cost = Cost(*(int(slot.kdf[name]) for name in ("memory_kib", "passes", "lanes")))
    return make_slot(
        slot.slot_id,
        slot.kind,
        secret,
        ring_secrets,
        volume,
        cost=cost,
        label=slot.label,
        now_ns=slot.created_ns,
    )


def open_slot(slot: Slot, secret: bytes, volume: bytes) -> dict[int, bytes]:
    """The ring of keys, key id to 32 bytes.  Raises WrongPassphrase, Corrupt."""
    aad = _slot_aad(slot.slot_id, slot.kind, created_ns=slot.created_ns, volume=volume)
    try:
        plain = AESGCM(_slot_key(slot.kdf, secret)).decrypt(_ZERO_NONCE, slot.wrapped, aad)
    except InvalidTag:
        raise WrongPassphrase(
            f"key slot {slot.slot_id} ({slot.kind}) does not open with this secret"
        ) from None
    if not plain or len(plain) % _WRAPPED_KEY.size or len(plain) > MAX_KEYS * _WRAPPED_KEY.size:
        raise Corrupt(f"key slot {slot.slot_id} opens, but does not hold a ring of keys")
    return dict(cast("list[tuple[int, bytes]]", list(_WRAPPED_KEY.iter_unpack(plain))))


def _slot_aad(slot_id: int, kind: SlotKind, *, created_ns: int, volume: bytes) -> bytes:
    return b"objfs slot" + volume + struct.pack(">IBQ", slot_id, _KIND_NUMBER[kind], created_ns)


def _slot_key(kdf: Mapping[str, str | int], secret: bytes) -> bytes:
    """The key-encryption key: a fresh salt each time, so that its nonce may be zero."""
    salt = bytes.fromhex(str(kdf["salt"]))
    if kdf["name"] == "hkdf-sha256":
        return hkdf(secret, salt, b"objfs slot")
    cost = Cost(int(kdf["memory_kib"]), int(kdf["passes"]), int(kdf["lanes"]))
    cost.check()
    return Argon2id(
        salt=salt, length=KEY_SIZE, iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.memory_kib
    ).derive(secret)


def _read_kdf(data: object) -> dict[str, str | int]:
    if not isinstance(data, dict):
        raise Corrupt("key slot names no key derivation: damaged header")
    name = _text(data, "name")
    salt = _hex(data, "salt")
    if len(salt) != SALT_SIZE:
        raise Corrupt(f"key slot has a salt of {len(salt)} bytes, not {SALT_SIZE}: damaged header")
    kdf: dict[str, str | int] = {"name": name, "salt": salt.hex()}
    if name == "argon2id":
        kdf |= {key: _number(data, key, 2**32) for key in ("memory_kib", "passes", "lanes")}
        Cost(int(kdf["memory_kib"]), int(kdf["passes"]), int(kdf["lanes"])).check()
    elif name != "hkdf-sha256":
        raise NewerFormat(f"key derivation {name!r} is unknown to this objfs: upgrade")
    return kdf


def _text(data: Mapping[object, object], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or len(value) > 65536:
        raise Corrupt(f"key slot has no text {key!r}: damaged header")
    return value


def _number(data: Mapping[object, object], key: str, limit: int) -> int:
    value = data.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
        raise Corrupt(f"key slot has no number {key!r} in its range: damaged header")
    return value


def _hex(data: Mapping[object, object], key: str) -> bytes:
    try:
        return bytes.fromhex(_text(data, key))
    except ValueError:
        raise Corrupt(f"key slot has no hexadecimal {key!r}: damaged header") from None


# --- recovery keys: 160 random bits and a 40-bit check, in eight groups of five ---------------

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base32: no I, L, O, U."""

_RECOVERY_SECRET = 20
_RECOVERY_CHECK = 5


def new_recovery_key() -> str:
    """A fresh recovery key as it is printed: eight groups of five, joined by dashes."""
    secret = secrets.token_bytes(_RECOVERY_SECRET)
    number = int.from_bytes(secret + _recovery_check(secret), "big")
    text = "".join(_ALPHABET[number >> shift & 31] for shift in range(195, -5, -5))
    return "-".join(text[i : i + 5] for i in range(0, 40, 5))


def parse_recovery_key(text: str) -> bytes:
    """The 20 secret bytes of a printed key; case, dashes, spaces, O for 0 and I, L for 1 forgiven.

    Raises WrongPassphrase when the check does not hold: a typing error.
    """
    plain = "".join(text.split()).replace("-", "").upper().translate(str.maketrans("OIL", "011"))
    if len(plain) != 40 or any(letter not in _ALPHABET for letter in plain):
        raise WrongPassphrase("a recovery key is eight groups of five letters and digits: check the typing")
    number = 0
    for letter in plain:
        number = number << 5 | _ALPHABET.index(letter)
    raw = number.to_bytes(_RECOVERY_SECRET + _RECOVERY_CHECK, "big")
    secret, check = raw[:_RECOVERY_SECRET], raw[_RECOVERY_SECRET:]
    if check != _recovery_check(secret):
        raise WrongPassphrase("the recovery key does not pass its own check: a letter is mistyped")
    return secret


def _recovery_check(secret: bytes) -> bytes:
    return hashlib.sha256(b"objfs recovery" + secret).digest()[:_RECOVERY_CHECK]
