"""Buckets of a real mount are added, replaced and removed while programs write; then without a mount."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from objfs.errors import ExitCode
from tests.system.harness import VOLUME, Station, contents, have_fuse, urls

needs_fuse = pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")


class Writing(threading.Thread):
    """A program that writes files until it is told to stop; what it wrote, by name."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._enough = threading.Event()
        self.written: dict[str, bytes] = {}

    def run(self) -> None:
        while not self._enough.is_set():
            name, data = f"w{len(self.written)}", os.urandom(200_000)
            (self._directory / name).write_bytes(data)
            self.written[name] = data
            self._enough.wait(0.05)  # a rate, not a wait for anything

    def stop(self) -> dict[str, bytes]:
        self._enough.set()
        self.join()
        return self.written


@pytest.mark.mount
@needs_fuse
def test_a_lost_bucket_is_replaced_under_load(station: Station, places: list[Path], tmp_path: Path) -> None:
    mount, new = tmp_path / "mnt", tmp_path / "new"
    new.mkdir()
    station.mount(VOLUME, mount)
    before = {f"b{number}": os.urandom(500_000) for number in range(8)}
    for name, data in before.items():
        (mount / name).write_bytes(data)
    station.run("flush", mount)
    shutil.rmtree(places[1])
    command = ("bucket", "replace", mount, "1", f"file://{new}", "--json")
    program = Writing(mount)
    program.start()
    try:
        dry = json.loads(station.run(*command, "--dry-run").stdout)
        assert not any(new.iterdir())
        done = json.loads(station.run(*command).stdout)
    finally:
        written = program.stop()
    assert dry["shards"] > 0
    assert done["buckets"] == 3
    assert done["rebuilt"] >= dry["shards"] - 2
    assert written
    assert contents(mount) == before | written
    status = station.status(mount)
    assert [bucket["slot"] for bucket in status["buckets"]] == [0, 2, 3]
    assert "survives the loss of any one of 3 buckets" in status["redundancy"]["sentence"]
    station.umount(mount)
    station.run("fsck", VOLUME, "--data")
    shutil.rmtree(places[0])  # what one bucket less would have lost
    with Station(tmp_path / "elsewhere") as other:
        other.attach(VOLUME, urls([places[2]]))  # it knows of the new one
        other.mount(VOLUME, tmp_path / "again", "--read-only")
        assert contents(tmp_path / "again") == before | written


def test_a_volume_without_a_mount(station: Station, places: list[Path], tmp_path: Path) -> None:
    """Added, labelled, removed; and refused where it would bear less."""
    new = tmp_path / "new"
    new.mkdir()
    refused = station.run("bucket", "remove", VOLUME, "0", code=ExitCode.USAGE).stderr
    assert "without it the volume bears the loss of 0 buckets and not of 1" in refused
    station.run("bucket", "add", VOLUME, new, "--domain", "attic")
    listed = json.loads(station.run("bucket", "list", VOLUME, "--json").stdout)
    assert [place["url"] for place in listed] == [*urls(places), f"file://{new}"]
    station.run("bucket", "label", VOLUME, "3", "--domain", "cellar")
    station.run("bucket", "remove", VOLUME, f"file://{places[0]}")
    station.run("fsck", VOLUME, "--data")
    listed = json.loads(station.run("bucket", "list", VOLUME, "--json").stdout)
    assert [place["url"] for place in listed] == [*urls(places[1:]), f"file://{new}"]
    station.run("bucket", "add", VOLUME, places[0], code=ExitCode.BUCKET_CONTRACT)


def test_one_domain_for_each_bucket(tmp_path: Path) -> None:
    with Station(tmp_path) as station:
        places = [tmp_path / name for name in "abcd"]
        for place in places:
            place.mkdir()
        words = [word for place in places for word in ("--bucket", f"file://{place}")]
        refused = station.run("mkfs", VOLUME, *words, "--domain", "x", code=ExitCode.USAGE).stderr
        assert "4 --bucket and 1 --domain" in refused
        domains = [word for domain in "xxyy" for word in ("--domain", domain)]
        said = station.run("mkfs", VOLUME, *words, *domains, "--code", "1+1").stderr
        assert "over its domains it bears the loss of any 1 of 2 domains" in said
