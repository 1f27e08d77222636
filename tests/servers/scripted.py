"""A server that says what the test wants, so that no real one has to misbehave.

Owns its thread.  Import the fixture ``scripted`` into the conftest of the package that needs it.
"""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import pytest

Answer: TypeAlias = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""

HANG_UP: Answer = (0, {}, b"")
"""The connection ends without an answer, as it does where the script has no more."""


@dataclass
class Scripted:
    """What the server answers next to everything, and what it was asked."""

    endpoint: str
    answers: list[Answer] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path with the query, and headers."""


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """One script for one test."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            script.asked.append((self.command, self.path, dict(self.headers)))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = script.answers.pop(0) if script.answers else HANG_UP
            self.close_connection = True
            if not status:
                return
            self.send_response(status)
            self.send_header("Connection", "close")  # who is not told keeps it, and may send into its end
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script = Scripted(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield script
        server.shutdown()
        thread.join()
