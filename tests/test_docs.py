"""Everything that a user can type or meet is documented, and everything documented exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from objfs.app.options import OPTIONS
from objfs.cli.main import cli
from objfs.codec.keys import MIN_SECRET
from objfs.errors import ExitCode
from objfs.volume.settings import SETTINGS

REPOSITORY = Path(__file__).resolve().parents[1]
USER = REPOSITORY / "docs" / "user"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def user_text() -> str:
    return "\n".join(page.read_text() for page in [REPOSITORY / "README.md", *sorted(USER.glob("*.md"))])


def commands(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        if command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


COMMANDS = dict(commands(cli, "objfs"))


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_is_documented(path: str) -> None:
    text = user_text()
    assert path in text
    assert COMMANDS[path].help, f"{path} has no help"
    for parameter in COMMANDS[path].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{path} {parameter.name} has no help"
            longest = max(parameter.opts, key=len)
            assert longest in text, f"{path} {longest} is not in docs/user"


def test_every_documented_command_exists() -> None:
    found = set(re.findall(r"`objfs ([a-z]+)(?: [a-z]+)?", user_text()))
    assert found <= set(cli.commands), found - set(cli.commands)


@pytest.mark.parametrize("code", ExitCode)
def test_every_exit_code_is_documented(code: ExitCode) -> None:
    assert f"| {code.value} | {code.name} |" in (USER / "exit-codes.md").read_text()


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_documented_with_its_meaning(setting: object) -> None:
    name, meaning = getattr(setting, "name", ""), getattr(setting, "meaning", "")
    rows = (USER / "settings.md").read_text().splitlines()
    row = next((row for row in rows if row.startswith(f"| `{name}` |")), "")
    assert meaning in row


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_mount_option_is_documented(option: object) -> None:
    name, meaning = getattr(option, "name", ""), getattr(option, "meaning", "")
    rows = (USER / "mount.md").read_text().splitlines()
    row = next((row for row in rows if re.match(rf"\| `{name}[`=]", row)), "")
    assert meaning in row


def test_the_shortest_key_file_is_documented() -> None:
    assert f"| keyfile | the bytes of a file, at least {MIN_SECRET};" in (USER / "keys.md").read_text()


HELD_BY_TESTS = ("semantics.md", "durability.md")
"""Pages all of whose tables name a test in the last column."""


def promises() -> Iterator[tuple[str, str]]:
    """The rows of all tables of these pages, without their heads."""
    for page in HELD_BY_TESTS:
        for line in (USER / page).read_text().splitlines():
            if line.startswith("|") and not line.endswith(("| test |", "|---|")):
                yield page, line


def names_of_tests(file: str) -> set[str]:
    tree = ast.parse((REPOSITORY / "tests" / file).read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}


@pytest.mark.parametrize(
    "row",
    [row for _, row in promises()],
    ids=[f"{page} {row.split('|')[1].strip()}" for page, row in promises()],
)
def test_every_promise_names_tests_that_exist(row: str) -> None:
    _, *said, tests, _ = row.split("|")
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
    assert all(cell.strip() for cell in said)
    assert named, "no test holds to this row"
    assert re.sub(r"`[\w/]+\.py::\w+`", "", tests).strip(" ,") == ""
    for file, test in named:
        assert test in names_of_tests(file), f"{file} has no {test}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
