"""I9: the committed vectors are what today's code makes, and today's code opens them."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from objfs.codec import (
    FORMAT_VERSION,
    FrameSealer,
    KeyRing,
    Kind,
    Slot,
    VolumeKey,
    open_header,
    open_object,
    open_slot,
    parse_recovery_key,
)
from objfs.model import SegmentKind

FORMAT = Path(__file__).parents[2] / "docs" / "format"


def load_script() -> ModuleType:
    spec = spec_from_file_location("make_vectors", FORMAT / "make_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["make_vectors"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()
MADE: dict[str, dict[str, object]] = SCRIPT.build()


def committed(name: str) -> Any:
    return json.loads((FORMAT / "vectors" / name).read_text())


def key_of() -> VolumeKey:
    keys = committed("keys.json")
    return VolumeKey(keys["key_id"], bytes.fromhex(keys["secret"]), bytes.fromhex(keys["volume"]))


def test_there_are_no_other_vectors() -> None:
    assert sorted(p.name for p in (FORMAT / "vectors").iterdir()) == sorted(MADE)


@pytest.mark.parametrize("name", sorted(MADE))
def test_todays_code_reproduces_the_committed_vectors(name: str) -> None:
    made, kept = json.loads(json.dumps(MADE[name])), committed(name)
    if name == "frames.json":
        # The bytes of a zstd body depend on the library's version: it is opened below instead.
        made["zstd"].pop("sealed")
        kept["zstd"].pop("sealed")
    assert made == kept


def test_committed_frames_open() -> None:
    frames = committed("frames.json")
    sealer = FrameSealer(key_of(), bytes.fromhex(frames["segment"]), SegmentKind(frames["kind"]))
    for frame in (*frames["raw"], frames["zstd"]):
        assert sealer.open(frame["number"], bytes.fromhex(frame["sealed"])).hex() == frame["plain"]


def test_committed_objects_open() -> None:
    sealed = committed("objects.json")["sealed"]
    key = key_of()
    ring = KeyRing(key.volume, {key.key_id: key.secret}, key.key_id)
    payload = open_object(ring, Kind[sealed["kind"]], sealed["name"], bytes.fromhex(sealed["bytes"]))
    assert payload.hex() == sealed["payload"]


def test_committed_slots_open() -> None:
    keys = committed("keys.json")
    for data in keys["slots"]:
        slot = Slot.from_json(data)
        ring = open_slot(slot, bytes.fromhex(keys["slot_secret"]), bytes.fromhex(keys["volume"]))
        assert ring == {1: bytes.fromhex(keys["secret"]), 2: bytes(32)}
    assert parse_recovery_key(keys["recovery_key"]).hex() == keys["recovery_secret"]


@pytest.mark.parametrize("name", [n for n in sorted(MADE) if n.startswith("segment-")])
def test_committed_shard_headers_open(name: str) -> None:
    vector = committed(name)
    for number, made in enumerate(vector["objects"]):
        layout, shard = open_header(key_of(), bytes.fromhex(made["first_288"]))
        assert shard == number
        assert list(layout.cuts) == vector["cuts"]
        assert layout.object_size(number) == made["size"]


def test_the_specification_names_this_format_version() -> None:
    text = (FORMAT / "SPEC.md").read_text()
    assert f"format_version = {FORMAT_VERSION}" in text
