"""An S3 server inside the test process (moto): half a second to start, objects in memory.

Owns the server's thread.  It checks neither signatures nor Content-MD5: what depends on these is
tested against Ceph (``tests/servers/ceph.py``).  Import the fixture ``moto_server`` into the
conftest of the package that needs it.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import boto3
import pytest
from moto.server import ThreadedMotoServer

from objfs.backends.base import Bucket
from objfs.backends.registry import open_bucket

ACCESS_KEY = "testing"
SECRET_KEY = "testingsecret"
ACCOUNT = "123456789012"
"""moto's own number for its one account."""


@dataclass(frozen=True)
class MotoServer:
    """Where the server listens."""

    endpoint: str

    @property
    def options(self) -> dict[str, str]:
        """What ``open_bucket`` needs besides the URL."""
        return {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}

    def make_bucket(self, name: str | None = None) -> str:
        """Makes a bucket, under a name of its own unless told; returns the name."""
        name = name or f"objfs-{secrets.token_hex(8)}"
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        with contextlib.closing(client):
            client.create_bucket(Bucket=name)
        return name

    def url(self, name: str, prefix: str = "", **query: str) -> str:
        """The bucket as objfs writes it."""
        more = "".join(f"&{key}={value}" for key, value in query.items())
        return f"s3://{name}/{prefix}?endpoint={self.endpoint}{more}"

    def open(self, name: str | None = None, prefix: str = "", **query: str) -> Bucket:
        """A backend for a bucket of that name, or for a new one."""
        return open_bucket(self.url(name or self.make_bucket(), prefix, **query), self.options)


@pytest.fixture(scope="session")
def moto_server() -> Iterator[MotoServer]:
    """One server for all tests of the run; each test makes a bucket of its own."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield MotoServer(f"http://{host}:{port}")
    finally:
        server.stop()
