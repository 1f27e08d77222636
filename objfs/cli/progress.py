"""The bar of a command that copies a tree: bytes, rate, time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from objfs.cli.context import say, size
from objfs.volume.restored import Restored, said


@contextmanager
def copying() -> Iterator[Callable[[Restored], None]]:
    """On standard error; silent without a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _done: None
        return
    columns = (TextColumn("{task.fields[files]} files"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("copy", total=None, files=0)

        def report(done: Restored) -> None:
            here = done.done
            bar.update(task, total=done.wanted.bytes or None, completed=here.bytes, files=here.files)

        yield report


def show_failures(done: Restored) -> None:
    """What could not be copied, and what could not be kept, on standard error."""
    for path, why in done.unreadable.items():
        say(f"unreadable {said(path)}: {why}")
    for path, why in done.refused.items():
        say(f"refused    {said(path)}: {why}")
    for remark, count in done.remarks.items():
        say(f"{remark} ({count})")


def summary(done: Restored, where: str) -> str:
    """One line."""
    there = done.done
    rate = f", {size(int(there.bytes / done.seconds))}/s" if done.seconds else ""
    return (
        f"{there.files} files, {there.directories} directories, {there.links + there.others} others, "
        f"{size(there.bytes)} {where}; {done.failures} failed; {done.seconds:.1f} s{rate}"
    )
