"""Bars: what news make of them on a terminal, and that there are none without one."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from rich.console import Console

from objfs.cli import bars

Bar = Callable[[str], AbstractContextManager[Callable[[bars.News], None]]]


@pytest.fixture(params=[True, False])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Console:
    """A terminal of 100 columns, or something that is none."""
    console = Console(file=io.StringIO(), force_terminal=request.param, width=100)
    monkeypatch.setattr(bars, "Console", lambda stderr: console)
    return console


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("bar", "news", "said"),
    [
        (bars.draining, {"left_bytes": 2_000_000}, "2.00 MB) left"),
        (bars.moving, {"shards": 9, "moved": 4}, "4/9 shards"),
        (bars.moving, {"shards": 3, "moved": 4}, "4/4 shards"),
        (bars.encoding, {"size": 9, "done_size": 4}, "4/9 bytes"),
    ],
)
def test_news_are_shown(screen: Console, bar: Bar, news: bars.News, said: str) -> None:
    with bar("working") as update:
        update(news)
    shown = written(screen)
    assert (said in shown, "working" in shown) == (screen.is_terminal, screen.is_terminal)


def test_a_command_without_news_shows_nothing(screen: Console) -> None:
    with bars.draining("flushing"):
        pass
    assert "flushing" not in written(screen)


def test_a_drain_that_is_behind_the_writers_is_no_negative_one(screen: Console) -> None:
    with bars.draining("flushing") as update:
        for left in (10, 5, 30):
            update({"left_bytes": left})
    assert ("30 B left" in written(screen)) == screen.is_terminal


def test_steps_are_named(screen: Console) -> None:
    with bars.stepping(2) as step:
        step("first")
        step("second")
    assert ("second" in written(screen)) == screen.is_terminal
