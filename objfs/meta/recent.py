"""Answers of the table that stay true until a row changes.

Owns a bounded memory of what was read.  Promises never to answer from before a change: it is emptied by the
database's own count of changes, which no code path can forget to raise.  One path is excepted: writing
bytes changes a file's size and times and its dirty ranges, and answers that know neither outlive it.  Worth
it because the kernel asks for a directory again after each change in it, for an attribute before each write,
and a file's chunk is needed at each.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from objfs.meta.database import Database

K = TypeVar("K")
V = TypeVar("V")

_MOST = 4096


class Recent(Generic[K, V]):
    """Key -> answer; ``keep`` only what was read with nothing changed since."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._answers: dict[K, V] = {}
        self._as_of = database.changes

    def outliving_writes(self) -> None:
        """Keeps the answers when bytes are written into files: none may tell of size, times or ranges."""
        self._db.outlive_writes.append(self._outlive)

    def _outlive(self, before: int) -> None:
        if self._as_of == before:
            self._as_of = self._db.changes

    def get(self, key: K) -> V | None:
        """None where it has to be read."""
        if self._as_of != self._db.changes:
            self._answers.clear()
            self._as_of = self._db.changes
            return None
        return self._answers.get(key)

    def keep(self, key: K, answer: V) -> V:
        """Returns the answer."""
        if len(self._answers) >= _MOST:
            self._answers.clear()
        self._answers[key] = answer
        return answer
