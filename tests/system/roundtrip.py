"""The round trip: a real tree onto a volume, the machine lost, the tree back; then the same with damage.

    python -m tests.system.roundtrip [--files N] [--megabytes N] [--s3 URL | --bucket URL ...]
        [--keep] [CHECK ...]

Owns the checks, each a function of its own over one ``Trip``, run in order.  Needs /dev/fuse and rsync; with
``--s3`` (``http://host:port``, credentials as the S3 tools take them) the buckets are of that server, with
``--bucket`` they are three of any kind, empty; then the checks that damage objects by hand are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import boto3

from tests.console import say
from tests.system import tree
from tests.system.harness import Station, away, urls

VOLUME = "trip"
SEGMENT = "segment"


@dataclass
class Trip:
    """One run: the tree, the buckets, the machine.  ``places`` is empty where buckets are not local."""

    source: Path
    target: Path
    station: Station
    buckets: Sequence[str]
    places: list[Path] = field(default_factory=list)

    def require_equal(self, when: str) -> None:
        """Raises AssertionError listing what differs."""
        found = tree.differences(self.source, self.target)
        if found:
            shown = "\n".join(found[:20])
            raise AssertionError(f"{when}: {len(found)} differences\n{shown}\n{self.station.logs()}")

    def restore_equality(self) -> None:
        """Takes away what a check wrote beside the tree, and the times that this changed."""
        tree.copy(self.source, self.target)

    def cold(self) -> None:
        """The local state is gone and the volume mounted again from the buckets."""
        self.station.drop_cache(VOLUME, self.target)


# --- the checks, in order ------------------------------------------------------------------


def outward(trip: Trip) -> None:
    """The tree goes in by rsync and compares equal."""
    trip.station.mkfs(VOLUME, trip.buckets)
    trip.station.mount(VOLUME, trip.target)
    tree.copy(trip.source, trip.target)
    trip.require_equal("after the copy")


def machine_lost(trip: Trip) -> None:
    """Unmount, forget everything local, attach by one bucket, mount: equal."""
    trip.station.umount(trip.target)
    trip.station.forget(VOLUME)
    trip.station.attach(VOLUME, trip.buckets)
    trip.station.mount(VOLUME, trip.target)
    trip.require_equal("after the machine was lost")


def nothing_in_the_clear(trip: Trip) -> None:
    """No bucket holds a name or a content of the tree."""
    trip.station.run("flush", trip.target)
    found = tree.bytes_found_in(trip.places, tree.NEEDLE)
    assert not found, f"in the clear: {found[:5]}"


def bucket_away(trip: Trip) -> None:
    """One bucket is moved away: a cold comparison is clean, writing goes on, status is honest."""
    trip.station.umount(trip.target)
    config = (trip.station.home / VOLUME / "volume.toml").read_bytes()
    with away([trip.places[1]]):
        _forget_all_but(trip, config)
        trip.station.mount(VOLUME, trip.target)
        trip.require_equal("with a bucket away")
        (trip.target / "written-degraded").write_bytes(b"new" * 100_000)
        trip.station.run("flush", trip.target)
        redundancy = trip.station.status(trip.target)["redundancy"]
        assert len(redundancy["missing"]) == 1, redundancy
        assert str(trip.places[1]) in redundancy["sentence"], redundancy
        assert "no further loss is covered" in redundancy["sentence"], redundancy
        trip.restore_equality()
        trip.station.umount(trip.target)
    trip.station.mount(VOLUME, trip.target)


def flipped_bytes(trip: Trip) -> None:
    """One byte of each shard in one bucket is wrong: the comparison is clean and the log names objects."""
    trip.station.umount(trip.target)
    damaged = [path for path in _shards(trip.places[2]) if flip(path, path.stat().st_size // 2)]
    _forget_all_but(trip, (trip.station.home / VOLUME / "volume.toml").read_bytes())
    trip.station.mount(VOLUME, trip.target)
    trip.require_equal("with a flipped byte in each shard of a bucket")
    log = trip.station.logs() + (trip.station.home / VOLUME / "mount.log").read_text(errors="replace")
    named = [path for path in damaged if path.name in log]
    assert named, "the log names none of the damaged objects"
    trip.station.umount(trip.target)
    for path in damaged:
        flip(path, path.stat().st_size // 2)
    trip.station.mount(VOLUME, trip.target)


def two_shards_lost(trip: Trip) -> None:
    """Two damaged shards of one segment: EIO on that range, everything else as it was."""
    victim = trip.target / "big" / "victim"
    content = os.urandom(20 * tree.MIB)
    victim.write_bytes(content)
    trip.station.run("flush", trip.target)
    segments = _segments_of(trip, victim)
    trip.station.umount(trip.target)
    objects = [path for place in trip.places for path in _shards(place) if path.name.startswith(segments[0])]
    for path in objects[:2]:
        for offset in range(300, path.stat().st_size, 16 * 1024):
            flip(path, offset)
    _forget_all_but(trip, (trip.station.home / VOLUME / "volume.toml").read_bytes())
    trip.station.mount(VOLUME, trip.target)
    broken, wrong = _read_in_pieces(victim, content)
    assert broken, "a range with two damaged shards could be read"
    assert broken < len(content) // tree.MIB, "more than one segment is unreadable"
    assert not wrong, f"{wrong} pieces were read wrong"
    trip.restore_equality()
    trip.require_equal("beside a segment that is lost")


CHECKS: Mapping[str, Callable[[Trip], None]] = {
    check.__name__: check
    for check in (outward, machine_lost, nothing_in_the_clear, bucket_away, flipped_bytes, two_shards_lost)
}
NEED_FILES = ("nothing_in_the_clear", "bucket_away", "flipped_bytes", "two_shards_lost")


# --- what they share -----------------------------------------------------------------------


def _forget_all_but(trip: Trip, config: bytes) -> None:
    """A cold machine that still knows the URLs."""
    trip.station.forget(VOLUME)
    directory = trip.station.home / VOLUME
    directory.mkdir(mode=0o700)
    (directory / "volume.toml").write_bytes(config)
    (directory / "volume.toml").chmod(0o600)


def _shards(place: Path) -> list[Path]:
    return sorted(path for path in (place / SEGMENT).rglob("*") if path.is_file())


def flip(path: Path, offset: int) -> bool:
    """Inverts one byte."""
    with path.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([byte[0] ^ 0xFF]))
    return True


def _segments_of(trip: Trip, path: Path) -> list[str]:
    answer = json.loads(trip.station.run("info", path, "--json").stdout)
    return [str(segment["uuid"]) for segment in answer["segments"]]


def _read_in_pieces(path: Path, content: bytes) -> tuple[int, int]:
    """(pieces of 1 MiB that gave an error, pieces that were read wrong)."""
    broken = wrong = 0
    with path.open("rb", buffering=0) as stream:
        for offset in range(0, len(content), tree.MIB):
            try:
                piece = os.pread(stream.fileno(), tree.MIB, offset)
            except OSError:
                broken += 1
            else:
                wrong += piece != content[offset : offset + tree.MIB]
    return broken, wrong


# --- running -------------------------------------------------------------------------------


@contextlib.contextmanager
def prepared(
    root: Path, *, files: int, megabytes: int, s3: str | None = None, buckets: Sequence[str] = ()
) -> Iterator[Trip]:
    """A trip with its tree built, over buckets of a server, given ones, or else local ones; all mounts are
    gone at the end."""
    source = root / "source"
    tree.build(source, files=files, megabytes=megabytes)
    addresses = _s3_buckets(s3) if s3 else buckets
    places = [] if addresses else [root / "buckets" / name for name in "abc"]
    for place in places:
        place.mkdir(parents=True)
    with Station(root / "machine") as station:
        yield Trip(source, root / "mounted", station, addresses or urls(places), places)


def _s3_buckets(endpoint: str) -> list[str]:
    """Makes three buckets on a server; credentials come from the environment as it is now."""
    client = boto3.session.Session().client("s3", endpoint_url=endpoint, region_name="us-east-1")
    names = [f"objfs-trip-{uuid.uuid4().hex[:12]}-{letter}" for letter in "abc"]
    for name in names:
        client.create_bucket(Bucket=name)
    return [f"s3://{name}/trip?endpoint={endpoint}&region=us-east-1&path_style=1" for name in names]


def run(trip: Trip, checks: Sequence[str], say: Callable[[str], None]) -> None:
    """Runs the named checks, or all that fit."""
    for name in checks or [name for name in CHECKS if trip.places or name not in NEED_FILES]:
        started = time.monotonic()
        CHECKS[name](trip)
        say(f"ok  {name:<22} {time.monotonic() - started:6.1f} s  {CHECKS[name].__doc__}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--megabytes", type=int, default=150)
    parser.add_argument("--s3", metavar="URL", help="use three buckets of this S3 server")
    parser.add_argument(
        "--bucket", metavar="URL", action="append", default=[], help="use this one; give three"
    )
    parser.add_argument("--keep", action="store_true", help="keep the directory")
    parser.add_argument("checks", nargs="*", choices=[[], *CHECKS], metavar="CHECK", help=", ".join(CHECKS))
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="objfs-roundtrip-"))
    try:
        sizes = {"files": arguments.files, "megabytes": arguments.megabytes}
        with prepared(root, **sizes, s3=arguments.s3, buckets=arguments.bucket) as trip:
            run(trip, arguments.checks, say)
    finally:
        if not arguments.keep:
            shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
