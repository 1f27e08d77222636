"""Decoders of what the volume layer keeps in buckets: header, label, lease, pin, manifest, pages, patch,
names."""

from __future__ import annotations

import hashlib

import zstandard

from objfs.codec.envelope import ENVELOPE_SIZE, Kind, pack_envelope
from objfs.codec.seal import open_object
from objfs.model import ChunkId, Location, Placed, SegmentNo, Slot
from objfs.store import layout
from objfs.volume import epochs, header, label, manifest, pages, patch, readers
from objfs.volume.epochs import Holder, LeaseRecord
from objfs.volume.header import ClearHeader
from objfs.volume.label import Label
from objfs.volume.manifest import Condemned, Delta, Manifest
from objfs.volume.patch import Patch
from objfs.volume.readers import Pin
from tests.fuzz.target import RING, UUID, Target, pair, sealed
from tests.volume.support import START_NS, VOLUME, blob
from tests.volume.support import header as make_header

PAGE = 512
DIGEST = hashlib.sha256(b"clear").digest()


def _content(kind: Kind, name: str, data: bytes) -> bytes:
    return open_object(RING, kind, name, data)


def _lease() -> list[bytes]:
    record = LeaseRecord(3, Holder(UUID, "host", 7), START_NS, 60.0, 2, True, True)
    return [_content(Kind.LEASE, layout.lease_name(3), epochs.encode(record, RING))]


def _pin() -> list[bytes]:
    data = readers.encode(Pin(UUID, 5, "host", 7, 60.0, 2), RING)
    return [_content(Kind.READER, layout.reader_name(UUID), data)]


def _label() -> list[bytes]:
    return [_content(Kind.LABEL, "label", label.encode(Label(VOLUME, UUID, Slot(1)), RING))]


# --- header --------------------------------------------------------------------------------


def _clear(payload: bytes) -> ClearHeader:
    """The clear half, which nothing protects, behind an envelope that fits."""
    return header.read_clear(pack_envelope(Kind.HEADER, 1, len(payload)) + payload)


def _clear_payloads() -> list[bytes]:
    return [header.encode(make_header(RING), RING)[ENVELOPE_SIZE:]]


def _body(content: bytes) -> object:
    clear = ClearHeader(VOLUME, 1, make_header(RING).features, (), _sealed_body(content), DIGEST)
    return header.decode(clear, RING)


def _sealed_body(content: bytes) -> bytes:
    return sealed(Kind.HEADER, header.NAME, content)


def _bodies() -> list[bytes]:
    clear = header.read_clear(header.encode(make_header(RING), RING))
    plain = _content(Kind.HEADER, header.NAME, clear.sealed)
    return [plain.replace(clear.digest.hex().encode(), DIGEST.hex().encode())]


# --- moments -------------------------------------------------------------------------------


def _manifests() -> list[Manifest]:
    plain = Manifest(VOLUME, 2, 9, bytes(32), UUID, START_NS, 4096, 10, 12345, (blob(1),))
    full = Manifest(
        VOLUME,
        2,
        9,
        b"p" * 32,
        UUID,
        START_NS,
        4096,
        10,
        2**255,
        (blob(1),),
        (Delta(1, 3, (blob(2), blob(3))),),
        (),
        b"inline",
        copy_of=b"c" * 32,
        condemned=(Condemned(UUID, 4, START_NS),),
    )
    return [plain, full]


MANIFEST = layout.manifest_name(9)


def _packed() -> list[bytes]:
    return [_content(Kind.MANIFEST, MANIFEST, manifest.encode(one, RING)) for one in _manifests()]


def _manifest_json(body: bytes) -> object:
    packed = zstandard.ZstdCompressor(level=1).compress(body)
    return manifest.decode(sealed(Kind.MANIFEST, MANIFEST, packed), 9, RING)


def _bodies_of_manifests() -> list[bytes]:
    return [zstandard.ZstdDecompressor().decompress(packed) for packed in _packed()]


def _patches() -> list[bytes]:
    segment = blob(1).segment
    placed = [
        Placed(ChunkId(number), Location(SegmentNo(1), 100 * number, number, (60, 40), 5000, bytes(32)))
        for number in (1, 2)
    ]
    return patch.encode(Patch({SegmentNo(1): segment}, placed))


# --- names ---------------------------------------------------------------------------------


def _names(data: bytes) -> None:
    """A bucket lists any keys; none of them may raise anything."""
    name = data.decode("utf-8", "replace")
    layout.parse_lease(name)
    layout.parse_manifest(name)
    layout.parse_shard(name)
    layout.parse_reader(name)
    layout.parse_probe(name)


def _valid_names() -> list[bytes]:
    names = [
        layout.lease_name(3),
        layout.manifest_name(9),
        layout.shard_name(UUID, 2),
        layout.reader_name(UUID),
        layout.probe_name(UUID),
    ]
    return [name.encode("ascii") for name in names]


_lease_object, _lease_content = pair(
    Kind.LEASE, layout.lease_name(3), lambda data: epochs.decode(data, 3, RING), _lease
)
_pin_object, _pin_content = pair(
    Kind.READER, layout.reader_name(UUID), lambda data: readers.decode(data, UUID, RING), _pin
)
_label_object, _label_content = pair(Kind.LABEL, "label", lambda data: label.decode(data, RING), _label)
_manifest_object, _manifest_content = pair(
    Kind.MANIFEST, MANIFEST, lambda data: manifest.decode(data, 9, RING), _packed
)

TARGETS = {
    "header": Target(
        lambda data: header.decode(header.read_clear(data), RING),
        lambda: [pack_envelope(Kind.HEADER, 1, len(one)) + one for one in _clear_payloads()],
    ),
    "header_clear": Target(_clear, _clear_payloads),
    "header_content": Target(_body, _bodies),
    "label": _label_object,
    "label_content": _label_content,
    "lease": _lease_object,
    "lease_content": _lease_content,
    "pin": _pin_object,
    "pin_content": _pin_content,
    "manifest": _manifest_object,
    "manifest_packed": _manifest_content,
    "manifest_content": Target(_manifest_json, _bodies_of_manifests),
    "pages": Target(
        lambda data: pages.decode(data, PAGE),
        lambda: [pages.encode(PAGE, [(1, bytes(PAGE)), (7, b"x" * PAGE)]), pages.encode(PAGE, [])],
    ),
    "patch": Target(lambda data: patch.decode([data]), _patches),
    "names": Target(_names, _valid_names, ()),
}
