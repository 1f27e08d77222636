"""The round trip over Google's and Azure's emulators: three buckets of a kind; one of each, and a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.azurite import KEY, Azurite
from tests.servers.gcs import GCSServer
from tests.system import roundtrip
from tests.system.harness import have_fuse

pytestmark = [
    pytest.mark.mount,
    pytest.mark.server,
    pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse"),
]

FLAGS = ("-W", "error::ResourceWarning")
"""Without -bb: Azure's SDK compares bytes with texts."""


def out_and_back(root: Path, buckets: list[str]) -> None:
    with roundtrip.prepared(root, files=60, megabytes=3, buckets=buckets) as trip:
        trip.station.flags = FLAGS
        roundtrip.outward(trip)
        roundtrip.machine_lost(trip)


def test_over_google_cloud_storage(tmp_path: Path, gcs_server: GCSServer) -> None:
    out_and_back(tmp_path, [gcs_server.url(gcs_server.make_bucket(), "trip") for _ in range(3)])


def test_over_azure(tmp_path: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)
    out_and_back(tmp_path, [azurite.url(azurite.make_container(), "trip") for _ in range(3)])


def test_a_volume_may_mix_kinds(
    tmp_path: Path, gcs_server: GCSServer, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)
    disk = tmp_path / "disk"
    disk.mkdir()
    clouds = [gcs_server.url(gcs_server.make_bucket(), "mix"), azurite.url(azurite.make_container(), "mix")]
    out_and_back(tmp_path, [*clouds, f"file://{disk}"])
