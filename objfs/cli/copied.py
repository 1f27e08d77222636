"""What a command that copied a tree says of it in the end."""

from __future__ import annotations

from objfs.cli.context import say, size
from objfs.volume.restored import Restored, said


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
