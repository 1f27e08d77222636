"""SPEC.md names every table and column of the inode table, and none that is not there."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from objfs.meta import schema

SPEC = Path(__file__).resolve().parents[1] / "docs" / "format" / "SPEC.md"
ROW = re.compile(r"\| (`\w+`(?:, `\w+`)*) \| .* \| (.*) \|")


def names(cell: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", cell))


def documented() -> Iterator[tuple[str, set[str]]]:
    """The tables of section 9 with their columns; a twin has those of its table."""
    section = SPEC.read_text().partition("\n## 9. ")[2].partition("\n## 10. ")[0]
    known: dict[str, set[str]] = {}
    for tables, columns in (match.groups() for match in ROW.finditer(section)):
        for table in names(tables):
            known[table] = names(columns) | known.get(table.removesuffix("_old"), set())
    yield from known.items()


def created() -> dict[str, set[str]]:
    """What ``schema`` creates, at once or when it is needed."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.create(connection)
        connection.execute(schema.STRAY)
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        return {
            table: {
                column for (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
            }
            for table in tables
        }


CREATED, DOCUMENTED = created(), dict(documented())


def test_section_9_names_every_table_and_no_other() -> None:
    assert DOCUMENTED.keys() == CREATED.keys()


@pytest.mark.parametrize("table", sorted(CREATED))
def test_section_9_names_every_column_and_no_other(table: str) -> None:
    assert DOCUMENTED.get(table) == CREATED[table]
