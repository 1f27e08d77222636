"""The round trip over three buckets of a real S3 server, at a small size."""

from __future__ import annotations

import pytest

from tests.servers import ceph
from tests.system import roundtrip
from tests.system.harness import have_fuse

MISSING = ceph.missing_programs()

pytestmark = [
    pytest.mark.mount,
    pytest.mark.server,
    pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse"),
    pytest.mark.skipif(
        bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (make test installs them)"
    ),
]


def test_round_trip_over_a_real_s3_server(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path_factory.mktemp("s3")
    with ceph.running() as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        with roundtrip.prepared(root, files=300, megabytes=20, s3=server.endpoint) as trip:
            roundtrip.run(trip, ["outward", "machine_lost"], lambda _line: None)
