"""Google Cloud Storage inside the test process: gcp-storage-emulator, with the one precondition it lacks.

Owns the server's thread.  The emulator ignores ``ifGenerationMatch``; here an upload under the condition that
there is no object yet is refused before the emulator sees it.  It answers one request at a time, so nobody
comes between the question and the upload.  It checks no credentials, and lists without pages: what depends on
these is tested against scripted answers.  Import the fixture ``gcs_server`` where it is needed.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import json
import secrets
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

from objfs.backends.base import Bucket
from objfs.backends.registry import open_bucket

TIMEOUT_S = 10


@dataclass(frozen=True)
class GCSServer:
    """Where the emulator listens, and what it holds."""

    endpoint: str
    storage: Storage

    def make_bucket(self) -> str:
        """Makes a bucket under a name of its own; returns the name."""
        name = f"objfs-{secrets.token_hex(8)}"
        answer = requests.post(f"{self.endpoint}/storage/v1/b", json={"name": name}, timeout=TIMEOUT_S)
        answer.raise_for_status()
        return name

    def url(self, name: str, prefix: str = "", **query: str) -> str:
        """The bucket as objfs writes it."""
        more = "".join(f"&{key}={value}" for key, value in query.items())
        return f"gs://{name}/{prefix}?endpoint={self.endpoint}&anonymous=1{more}"

    def open(self, name: str | None = None, prefix: str = "", **query: str) -> Bucket:
        """A backend for a bucket of that name, or for a new one."""
        return open_bucket(self.url(name or self.make_bucket(), prefix, **query), {})


class _Server(http.server.HTTPServer):
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no error of the server's."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(RequestHandler):  # type: ignore[misc]  # the emulator has no types
    """Refuses to make an object that is there, where the client asked for that."""

    rfile: BinaryIO

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        conditions = parse_qs(parts.query).get("ifGenerationMatch")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.rfile = io.BytesIO(body)
        if conditions == ["0"] and self._is_there(parts.path.split("/")[-2], _name_in(body)):
            self._refuse()
        else:
            super().do_POST()

    def _is_there(self, bucket: str, name: str) -> bool:
        try:
            self.storage.get_file_obj(bucket, name)
        except NotFound:
            return False
        return True

    def _refuse(self) -> None:
        reason = {"reason": "conditionNotMet", "message": "At least one of the pre-conditions did not hold."}
        text = json.dumps({"error": {"code": 412, "message": reason["message"], "errors": [reason]}}).encode()
        self.send_response(412)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _name_in(body: bytes) -> str:
    """The object's name: in the first of two parts, or in the announcement of a long upload."""
    first = body.split(b"\r\n\r\n")[1].split(b"\r\n--")[0] if body.startswith(b"--") else body
    return str(json.loads(first)["name"])


@contextlib.contextmanager
def running(handler: Any = _Handler) -> Iterator[GCSServer]:
    """Starts a server; with the emulator's own handler preconditions are ignored."""
    storage = Storage(use_memory_fs=True)
    with _Server(("127.0.0.1", 0), functools.partial(handler, storage)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield GCSServer(f"http://127.0.0.1:{server.server_port}", storage)
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[GCSServer]:
    """One server for all tests of the run; each test makes a bucket of its own."""
    with running() as server:
        yield server
