"""How far a scrub came: what a killed one leaves for the next.

Owns ``scrub.json`` in the state directory: what was asked for, the last segment that was done, and what was
found up to it.  Promises that a scrub of another kind begins anew, and that a file which does not open
costs no more than that.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from objfs.errors import Corrupt
from objfs.volume.fields import Fields
from objfs.volume.fsck_report import Finding
from objfs.volume.local import read_json, write_json

MOST = 1000
"""Findings that are kept over a restart."""
NAME = "scrub.json"


@dataclass(slots=True)
class Book:
    """``kind`` is what was asked for, ``seed`` chooses the sample, ``cursor`` is the uuid of the last segment
    that is done (empty: none), ``nbytes`` what was read by then."""

    path: Path
    kind: str
    seed: str = field(default_factory=lambda: secrets.token_hex(8))
    began_ns: int = 0
    cursor: bytes = b""
    nbytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, kind: str, now_ns: int) -> Book:
        """Where the last scrub of this kind was cut off, or a new one.  Blocking."""
        try:
            fields = read_json(path)
            if fields is not None and fields.text("kind") == kind:
                return cls._read(path, fields)
        except Corrupt:
            pass
        return cls(path, kind, began_ns=now_ns)

    @classmethod
    def _read(cls, path: Path, fields: Fields) -> Book:
        cursor = fields.hexbytes("cursor", 16) if fields.has("cursor") else b""
        findings = [Finding.from_json(item) for item in fields.objects("findings", MOST)]
        return cls(
            path,
            fields.text("kind"),
            fields.text("seed"),
            fields.integer("began_ns"),
            cursor,
            fields.integer("bytes"),
            findings,
        )

    def save(self) -> None:
        """Blocking."""
        write_json(
            self.path,
            {
                "kind": self.kind,
                "seed": self.seed,
                "began_ns": self.began_ns,
                "cursor": self.cursor.hex() or None,
                "bytes": self.nbytes,
                "findings": [one.to_json() for one in self.findings[:MOST]],
            },
        )

    def close(self) -> None:
        """The scrub came to its end."""
        self.path.unlink(missing_ok=True)
