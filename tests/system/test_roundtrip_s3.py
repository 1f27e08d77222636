"""The round trip over three buckets of an S3 server: a real one where it is installed, else moto's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from tests.servers import ceph
from tests.system import roundtrip
from tests.system.harness import have_fuse

pytestmark = [
    pytest.mark.mount,
    pytest.mark.server,
    pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse"),
]


@contextmanager
def moto() -> Iterator[ceph.S3Server]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield ceph.S3Server(f"http://{host}:{port}")
    finally:
        server.stop()


@pytest.fixture(scope="module", params=["ceph", "moto"])
def server(request: pytest.FixtureRequest) -> Iterator[ceph.S3Server]:
    if request.param == "ceph" and ceph.missing_programs():
        pytest.skip(f"not installed: {', '.join(ceph.missing_programs())}")
    with ceph.running() if request.param == "ceph" else moto() as made:
        yield made


def test_out_and_back(server: ceph.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    with roundtrip.prepared(tmp_path, files=200, megabytes=15, s3=server.endpoint) as trip:
        roundtrip.outward(trip)
        roundtrip.machine_lost(trip)
