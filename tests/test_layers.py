"""The layers and fences of the design, enforced over the syntax trees of ``objfs/``.

Imports go down only, and packages on one line do not import each other; imports inside functions and
under TYPE_CHECKING count too.  A fence keeps a library inside the package that owns it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent / "objfs"

LINES: tuple[tuple[str, ...], ...] = (
    ("cli", "__main__"),
    ("app",),
    ("fuse", "volume"),
    ("fs",),
    ("cache", "meta", "store"),
    ("codec", "backends"),
    ("ports",),
    ("model",),
    ("errors", "durable"),
)
LEVEL = {package: level for level, line in enumerate(LINES) for package in line}

FENCES: dict[str, tuple[str, ...]] = {
    "sqlite3": ("meta",),
    "sqlite_utils": ("meta",),
    "apsw": ("meta",),
    "pyfuse3": ("fuse", "app"),
    "cryptography": ("codec",),
    "boto3": ("backends.s3",),
    "botocore": ("backends.s3",),
    "google": ("backends.gs",),
    "azure": ("backends.az",),
    "click": ("cli",),
}
"""Library -> the packages or modules that may import it (``backends.s3`` covers ``backends.s3_*`` too)."""

WITHOUT_TRIO = ("codec", "meta", "ports", "model", "errors", "durable")
LAZY = ("boto3", "botocore", "google", "azure")
"""Cloud SDKs are imported when a bucket of their kind is opened: the one import inside functions."""

SQL = re.compile(
    r"^\s*(SELECT\s.+\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|PRAGMA\s+\w+"
    r"|CREATE\s+(TABLE|INDEX|TRIGGER)|BEGIN\s+IMMEDIATE)\b",
    re.IGNORECASE | re.DOTALL,
)
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b")


class Source(NamedTuple):
    """One module: its name below ``objfs`` (``fs.data``), text and tree."""

    name: str
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name.split(".")[0]


class Import(NamedTuple):
    """One imported module, with the line and whether it stands inside a function."""

    module: str
    line: int
    local: bool


def read(path: Path) -> Source:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(part for part in parts if part != "__init__")
    text = path.read_text()
    return Source(name, text, ast.parse(text, str(path)))


SOURCES = [read(path) for path in sorted(ROOT.rglob("*.py"))]
every_module = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name or "objfs")


def imports(node: ast.AST, local: bool = False) -> Iterator[Import]:
    """Every import below a node, wherever it stands."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, local) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: a relative import"
            yield from _imported_from(child, local)
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports(child, local or inside)


def _imported_from(node: ast.ImportFrom, local: bool) -> Iterator[Import]:
    module = node.module or ""
    if module == "objfs":
        yield from (Import(f"objfs.{alias.name}", node.lineno, local) for alias in node.names)
    else:
        yield Import(module, node.lineno, local)


def strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """String constants that are not docstrings."""
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.lineno, node.value


def may_import(importer: str, imported: str) -> bool:
    """Whether one package of objfs may import another."""
    if importer == imported or {importer, imported} <= {"cli", "__main__"}:
        return True
    return LEVEL[importer] < LEVEL[imported]


def within(module: str, fence: str) -> bool:
    return module == fence or module.startswith((f"{fence}.", f"{fence}_"))


def upward(source: Source) -> list[str]:
    """Imports that a layer may not make."""
    found = []
    for each in imports(source.tree):
        top, _, rest = each.module.partition(".")
        target = rest.split(".")[0]
        if top != "objfs" or not source.package or target in ("", "__version__"):
            continue
        assert target in LEVEL, f"{source.name}:{each.line}: objfs.{target} has no layer; name it in LINES"
        if not may_import(source.package, target):
            found.append(f"{source.name}:{each.line} imports objfs.{target}")
    return found


def trespassing(source: Source) -> list[str]:
    """Imports of libraries that belong to somebody else."""
    found = []
    for each in imports(source.tree):
        library = each.module.split(".")[0]
        fences = FENCES.get(library)
        if fences is not None and not any(within(source.name, fence) for fence in fences):
            found.append(f"{source.name}:{each.line} imports {library}, which belongs to {', '.join(fences)}")
        if library == "trio" and source.package in WITHOUT_TRIO:
            found.append(f"{source.name}:{each.line} imports trio")
    return found


def test_there_is_something_to_look_at() -> None:
    assert {source.package for source in SOURCES} >= {"cli", "app", "fuse", "volume", "fs", "codec", "errors"}


@every_module
def test_every_package_has_a_layer(source: Source) -> None:
    assert not source.package or source.package in LEVEL


@every_module
def test_imports_go_down(source: Source) -> None:
    assert upward(source) == []


@every_module
def test_libraries_stay_behind_their_fences(source: Source) -> None:
    assert trespassing(source) == []


@every_module
def test_imports_stand_at_the_top(source: Source) -> None:
    local = [each for each in imports(source.tree) if each.local]
    assert [each for each in local if each.module.split(".")[0] not in LAZY] == []


@every_module
def test_sql_is_spoken_in_meta_alone(source: Source) -> None:
    if source.package != "meta":
        assert [(line, text) for line, text in strings(source.tree) if SQL.search(text)] == []


@every_module
def test_only_the_command_line_prints(source: Source) -> None:
    if source.package == "cli":
        return
    calls = [node for node in ast.walk(source.tree) if isinstance(node, ast.Call)]
    prints = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert [call.lineno for call in prints] == []


@every_module
def test_nothing_is_left_for_later(source: Source) -> None:
    assert [
        number for number, line in enumerate(source.text.splitlines(), 1) if UNFINISHED.search(line)
    ] == []
    assert "pragma: no cover" not in source.text


@every_module
def test_nothing_is_a_stub(source: Source) -> None:
    names = [node for node in ast.walk(source.tree) if isinstance(node, ast.Name)]
    assert [name.lineno for name in names if name.id == "NotImplementedError"] == []


def _planted(name: str, text: str) -> Source:
    return Source(name, text, ast.parse(text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("codec.seal", "from objfs.backends.base import Bucket"),
        ("fs.data", "import objfs.fuse"),
        ("fs.data", "from objfs import volume"),
        ("volume.mkfs", "def f():\n    from objfs.fuse import Session"),
        ("meta.rows", "if TYPE_CHECKING:\n    from objfs.cache import ChunkCache"),
        ("store.store", "import objfs.meta.database as db"),
    ],
)
def test_the_walk_sees_upward_imports_everywhere(name: str, text: str) -> None:
    assert upward(_planted(name, text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fs.data", "import sqlite3"),
        ("volume.run", "from pyfuse3 import main"),
        ("backends.file", "def f():\n    import boto3"),
        ("store.store", "from cryptography.hazmat.primitives import hashes"),
        ("codec.seal", "import trio.lowlevel"),
    ],
)
def test_the_walk_sees_trespassers_everywhere(name: str, text: str) -> None:
    assert trespassing(_planted(name, text))
