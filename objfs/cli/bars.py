"""Progress bars of the commands that take a while.

Owns what a bar looks like and how the news of each kind of command become its length.  Promises that a bar
is on standard error, that it is gone when the command ends, and that nothing is shown without a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from objfs.cli.context import size
from objfs.volume.fields import JSON
from objfs.volume.restored import Restored

News: TypeAlias = Mapping[str, JSON]
"""A message of a mount that works."""
Bar: TypeAlias = AbstractContextManager[Callable[[News], None]]
LABEL = TextColumn("{task.description}")


@contextmanager
def draining(label: str) -> Iterator[Callable[[News], None]]:
    """Bytes left, of the most that there were."""
    most = 0
    with _bar(LABEL, BarColumn(), TextColumn("{task.fields[left]}"), TimeElapsedColumn()) as show:

        def update(news: News) -> None:
            nonlocal most
            left = _number(news, "left_bytes")
            most = max(most, left)
            show(description=label, total=max(most, 1), completed=most - left, left=f"{size(left)} left")

        yield update


def moving(label: str) -> Bar:
    """Shards moved, of those estimated."""
    shards = TextColumn("{task.completed}/{task.total} shards")
    return _estimated(label, "moved", "shards", shards, TimeElapsedColumn(), TimeRemainingColumn())


def encoding(label: str) -> Bar:
    """Bytes encoded anew, of those that are to be."""
    return _estimated(label, "done_size", "size", DownloadColumn(), TimeRemainingColumn())


@contextmanager
def _estimated(
    label: str, done: str, total: str, *columns: ProgressColumn
) -> Iterator[Callable[[News], None]]:
    """What the news call ``done``, of ``total``, which is an estimate and may be too low."""
    with _bar(LABEL, BarColumn(), *columns) as show:

        def update(news: News) -> None:
            completed = _number(news, done)
            show(description=label, total=max(_number(news, total), completed) or None, completed=completed)

        yield update


@contextmanager
def copying() -> Iterator[Callable[[Restored], None]]:
    """Bytes of a tree, their rate and the time left."""
    files = TextColumn("{task.fields[files]} files")
    columns = (files, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with _bar(*columns) as show:

        def report(done: Restored) -> None:
            here = done.done
            show(total=done.wanted.bytes or None, completed=here.bytes, files=here.files)

        yield report


@contextmanager
def stepping(steps: int) -> Iterator[Callable[[str], None]]:
    """Steps of a known number, each with its name."""
    with _bar(LABEL, BarColumn(), TimeRemainingColumn()) as show:
        yield lambda text: show(total=steps, advance=1, description=text)


def _number(news: News, name: str) -> int:
    return int(str(news.get(name, 0)))


@contextmanager
def _bar(*columns: ProgressColumn) -> Iterator[Callable[..., None]]:
    """Takes what ``rich.progress.Progress.update`` does.  Begins with the first news, so that what a command
    prints before stays whole."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda **_changes: None
        return
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task("", total=None, left="", files=0)

    def show(**changes: object) -> None:
        bar.update(task, **changes)  # type: ignore[arg-type]  # fields are anything
        bar.start()

    try:
        yield show
    finally:
        bar.stop()
