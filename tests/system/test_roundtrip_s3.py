"""The round trip over three buckets of an S3 server in this process, for machines without a real one."""

from __future__ import annotations

from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from tests.system import roundtrip
from tests.system.harness import have_fuse

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]


def test_out_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        with roundtrip.prepared(tmp_path, files=150, megabytes=10, s3=f"http://{host}:{port}") as trip:
            roundtrip.outward(trip)
            roundtrip.machine_lost(trip)
    finally:
        server.stop()
