"""Azure Blob Storage on loopback: Azurite, Microsoft's emulator, in memory and gone after use.

Owns the process it starts.  Azurite checks keys and decides races.  ``make test`` installs it into the
environment (``contrib/setup/install-azurite.sh``).  Import the fixture ``azurite`` where it is needed.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from azure.core.credentials import AzureNamedKeyCredential
from azure.storage.blob import BlobServiceClient

from objfs.backends.base import Bucket
from objfs.backends.registry import open_bucket
from tests.servers.ceph import free_port

PROGRAM = Path(sys.prefix) / "azurite" / "node_modules" / ".bin" / "azurite-blob"
MISSING = "" if PROGRAM.exists() else "azurite-blob is not installed (make test installs it)"
ACCOUNT = "objfs"
KEY = base64.b64encode(b"an account's key has 64 bytes, and this is one for nothing at all").decode()
START_S = 60.0


@dataclass(frozen=True)
class Azurite:
    """Where the emulator listens."""

    endpoint: str

    @property
    def options(self) -> dict[str, str]:
        """What ``open_bucket`` needs besides the URL."""
        return {"account_key": KEY}

    def service(self) -> BlobServiceClient:
        """The account as its owner sees it."""
        return BlobServiceClient(self.endpoint, AzureNamedKeyCredential(ACCOUNT, KEY))

    def make_container(self) -> str:
        """Makes a container under a name of its own; returns the name."""
        name = f"objfs-{secrets.token_hex(8)}"
        with self.service() as service:
            service.create_container(name)
        return name

    def url(self, name: str, prefix: str = "", **query: str) -> str:
        """The container as objfs writes it."""
        more = "".join(f"&{key}={value}" for key, value in query.items())
        return f"az://{name}/{prefix}?endpoint={self.endpoint}{more}"

    def open(self, name: str | None = None, prefix: str = "", **query: str) -> Bucket:
        """A backend for a container of that name, or for a new one."""
        return open_bucket(self.url(name or self.make_container(), prefix, **query), self.options)


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """One server for all tests of the run; each test makes a container of its own."""
    if MISSING:
        pytest.skip(MISSING)
    port = free_port()
    options = ("--skipApiVersionCheck", "--disableTelemetry", "--silent", "--inMemoryPersistence")
    process = subprocess.Popen(
        [PROGRAM, "--blobHost", "127.0.0.1", "--blobPort", str(port), *options],
        env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_for(process, port)
        yield Azurite(f"http://127.0.0.1:{port}/{ACCOUNT}")
    finally:
        process.kill()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return
        time.sleep(0.05)  # a server in another process gives no other sign
    raise RuntimeError(f"azurite-blob did not listen on port {port}")
