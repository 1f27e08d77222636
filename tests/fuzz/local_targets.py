"""Decoders of the local state directory, of bucket URLs, and of the control socket."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import xxhash

from objfs.app import wire
from objfs.backends.registry import parse_url
from objfs.cache.disk import version_path
from objfs.cache.ledger import CleanLog
from objfs.cache.offline import CacheDirectory
from objfs.errors import BadSetting, CodecError, MalformedURL, MountError, ObjfsError
from objfs.meta.replica import Replica, inspect
from objfs.model import ChunkId, Slot
from objfs.volume.config import BucketPlace, VolumeConfig, format_config
from objfs.volume.debts import read_debts, write_debts
from objfs.volume.epochs import KnownLease
from objfs.volume.fields import Fields, canonical
from objfs.volume.fsck_report import Grade, Report
from objfs.volume.local import VolumeHome
from objfs.volume.progress import (
    Mark,
    Progress,
    read_delta_pages,
    read_known_lease,
    read_progress,
    write_delta_pages,
    write_known_lease,
    write_progress,
)
from tests.fuzz.target import UUID, Target
from tests.volume.support import VOLUME

_SCRATCH = tempfile.TemporaryDirectory(prefix="objfs-fuzz-")
_HOME = VolumeHome(Path(_SCRATCH.name), "v")
_HOME.path.mkdir()
_CACHE = Path(_SCRATCH.name) / "cache"
_REPLICA = Path(_SCRATCH.name) / "replica"
_CHUNK = b"bytes of a version" * 30


def _file(path: Path, read: Callable[[], object]) -> Callable[[bytes], object]:
    """Puts the input where the reader looks."""

    def run(data: bytes) -> object:
        path.write_bytes(data)
        return read()

    return run


def _written(path: Path, write: Callable[[], object]) -> Callable[[], list[bytes]]:
    def seeds() -> list[bytes]:
        write()
        return [path.read_bytes()]

    return seeds


def _config() -> list[bytes]:
    place = BucketPlace(UUID, "s3://bucket/prefix?region=eu", {"access_key": "a"})
    return [format_config(VolumeConfig(VOLUME, (place,))).encode()]


_MARK = Mark(9, 2, b"h" * 32, b"c" * 32)

# --- cache ---------------------------------------------------------------------------------


def _prepare_cache() -> None:
    shutil.rmtree(_CACHE, ignore_errors=True)
    _CACHE.mkdir()
    file = version_path(_CACHE, ChunkId(1))
    file.parent.mkdir()
    file.write_bytes(_CHUNK)


def _clean_log(data: bytes) -> None:
    """Loads the log, and reads whatever it names."""
    if not _CACHE.exists():
        _prepare_cache()
    (_CACHE / "clean.log").write_bytes(data)
    directory = CacheDirectory(_CACHE, b"boot")
    for chunk in directory.sums:
        directory.clean(chunk, len(_CHUNK))
    list(directory.rotten())


def _clean_logs() -> list[bytes]:
    _prepare_cache()
    log = CleanLog(_CACHE)
    log.note(ChunkId(1), 0, len(_CHUNK), xxhash.xxh3_64_intdigest(_CHUNK))
    log.note(ChunkId(2), 0, 4096, 1)
    log.flush()
    return [(_CACHE / "clean.log").read_bytes()]


# --- replica -------------------------------------------------------------------------------


class _Pages:
    page_size = 2048
    page_count = 3
    pages = {1: b"a" * 2048, 3: b"c" * 2048}  # noqa: RUF012


def _hash(number: int, image: bytes) -> int:
    return xxhash.xxh3_64_intdigest(image, number)


@cache
def _whole_replica() -> dict[str, bytes]:
    """The files of a sound one; made once, since each is synced."""
    with Replica(_REPLICA, _hash) as replica:
        replica.apply(_Pages())
    return {path.name: path.read_bytes() for path in _REPLICA.iterdir()}


def _replica(name: str) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        for other, content in (_whole_replica() | {name: data}).items():
            (_REPLICA / other).write_bytes(content)
        inspect(_REPLICA, _hash)
        with Replica(_REPLICA, _hash) as replica:
            replica.compute_digest()
            replica.digest_with(_Pages())

    return run


def _replica_file(name: str) -> Callable[[], list[bytes]]:
    return lambda: [_whole_replica()[name]]


# --- the control socket --------------------------------------------------------------------


def _report() -> list[bytes]:
    report = Report(seen=Counter({"chunks": 3}), done=["moved"])
    report.add("rule", Grade.DAMAGE, "inode 3", "is odd", bucket="b", todo="mend it")
    return [canonical(report.to_json())]


TARGETS = {
    "volume_toml": Target(_file(_HOME.config_path, _HOME.read_config), _config, (BadSetting,)),
    "state_json": Target(
        _file(_HOME.state_path, _HOME.read_state), _written(_HOME.state_path, lambda: _HOME.new_state(VOLUME))
    ),
    "lease_json": Target(
        _file(_HOME.lease_path, lambda: read_known_lease(_HOME)),
        _written(_HOME.lease_path, lambda: write_known_lease(_HOME, KnownLease(3, 4))),
    ),
    "checkpoint_json": Target(
        _file(_HOME.checkpoint_path, lambda: read_progress(_HOME)),
        _written(_HOME.checkpoint_path, lambda: write_progress(_HOME, Progress(_MARK, _MARK))),
    ),
    "deltas_json": Target(
        _file(_HOME.deltas_path, lambda: read_delta_pages(_HOME)),
        _written(_HOME.deltas_path, lambda: write_delta_pages(_HOME, {UUID: frozenset(range(1, 90, 3))})),
        (),
    ),
    "deletes_json": Target(
        _file(_HOME.debts_path, lambda: read_debts(_HOME)),
        _written(_HOME.debts_path, lambda: write_debts(_HOME, {Slot(1): ["manifest/0000000000000003"]})),
        (),
    ),
    "clean_log": Target(_clean_log, _clean_logs, ()),
    "replica_json": Target(_replica("image.json"), _replica_file("image.json"), (ObjfsError,)),
    "replica_sums": Target(_replica("sums"), _replica_file("sums"), (ObjfsError,)),
    "replica_image": Target(_replica("image"), _replica_file("image"), (ObjfsError,)),
    "url": Target(
        lambda data: parse_url(data.decode("utf-8", "surrogateescape")),
        lambda: [b"s3://bucket/some/prefix?region=eu", b"file:///a%20b", b"/plain/path", b"mem://x/y"],
        (MalformedURL,),
    ),
    "wire": Target(
        wire.decode, lambda: [wire.encode({"command": "status"}), wire.encode({"result": {}})], (MountError,)
    ),
    "report": Target(lambda data: Report.from_json(Fields.parse(data, "report")), _report, (CodecError,)),
}
