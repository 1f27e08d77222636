"""What a restore did, for people and for programs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from objfs.errors import ExitCode
from objfs.model import Attr
from objfs.volume.fields import JSON
from objfs.volume.walk import Totals

FAILURES_MOST = 10_000
"""Paths that are named; more are only counted."""


@dataclass(slots=True)
class Restored:
    """``done`` counts what is there now, ``kept`` how much of it was there before.  ``unreadable`` are files
    whose bytes could not be had from the buckets, ``refused`` paths that this machine did not take; both with
    the reason.  ``remarks`` say what could not be kept, and how often.  Any thread may call the methods."""

    moment_ns: int
    wanted: Totals = field(default_factory=Totals)
    done: Totals = field(default_factory=Totals)
    kept: int = 0
    unreadable: dict[bytes, str] = field(default_factory=dict)
    refused: dict[bytes, str] = field(default_factory=dict)
    unnamed: int = 0
    remarks: Counter[str] = field(default_factory=Counter)
    fetched_bytes: int = 0
    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def made(self, attr: Attr, *, kept: bool = False) -> None:
        """An inode is there under its first name; ``kept``: it was there before."""
        with self._lock:
            self.done.add(attr)
            self.kept += kept

    def linked(self) -> None:
        with self._lock:
            self.done.links += 1

    def remark(self, remarks: Iterable[str]) -> None:
        with self._lock:
            self.remarks.update(remarks)

    def cannot_read(self, path: bytes, why: str) -> None:
        self._note(self.unreadable, path, why)

    def refuse(self, path: bytes, why: str) -> None:
        self._note(self.refused, path, why)

    def _note(self, where: dict[bytes, str], path: bytes, why: str) -> None:
        with self._lock:
            if len(where) < FAILURES_MOST:
                where[path] = why
            else:
                self.unnamed += 1

    @property
    def failures(self) -> int:
        return len(self.unreadable) + len(self.refused) + self.unnamed

    @property
    def exit_code(self) -> ExitCode:
        if self.unreadable:
            return ExitCode.DAMAGE_FOUND
        return ExitCode.FAILURE if self.refused else ExitCode.OK

    def to_json(self) -> dict[str, JSON]:
        return {
            "moment_ns": self.moment_ns,
            "wanted": _totals(self.wanted),
            "done": _totals(self.done),
            "kept": self.kept,
            "unreadable": {said(path): why for path, why in self.unreadable.items()},
            "refused": {said(path): why for path, why in self.refused.items()},
            "unnamed_failures": self.unnamed,
            "remarks": dict(self.remarks),
            "fetched_bytes": self.fetched_bytes,
            "seconds": round(self.seconds, 3),
        }


def said(path: bytes) -> str:
    """A path of the volume as it is printed."""
    return "/" + path.decode("utf-8", "backslashreplace")


def _totals(totals: Totals) -> dict[str, JSON]:
    return {
        "directories": totals.directories,
        "files": totals.files,
        "links": totals.links,
        "others": totals.others,
        "bytes": totals.bytes,
    }
