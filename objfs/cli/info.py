"""``objfs info``: how one file lies in chunks, segments and objects."""

from __future__ import annotations

import os
from pathlib import Path

import click

from objfs.app.client import ControlClient
from objfs.app.home import mounted_at
from objfs.cli.context import home, json_option, show, show_json, show_table, size, table
from objfs.volume.fields import Fields


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@json_option
def info(path: Path, as_json: bool) -> None:
    """Show the chunks, segments and objects of the file at PATH, and what they compress to."""
    volume = mounted_at(home(), path)
    inode = os.lstat(path).st_ino
    with ControlClient(volume.control_path) as mount:
        answer = mount.ask("info", ino=inode)
    if as_json:
        show_json(answer | {"path": os.fsdecode(path)})
        return
    _show(os.fsdecode(path), Fields(answer, "info"))


def _show(path: str, answer: Fields) -> None:
    stored, plain = answer.integer("stored_bytes"), answer.integer("chunk_bytes")
    show(f"path        {path}")
    show(f"inode       {answer.integer('ino')}")
    show(f"size        {size(answer.integer('size'))}")
    show(f"chunks      {answer.integer('chunks')}: {answer.integer('dirty')} not yet in a segment")
    ratio = f", ratio {plain / stored:.2f}" if stored else ""
    show(f"stored      {size(stored)} for {size(plain)} of chunks{ratio}")
    show(f"shared      {answer.integer('shared')} chunks lie where equal ones were already")
    segments = answer.objects("segments", 100_000)
    if not segments:
        return
    rows = table("SEGMENT", "CODE", "CHUNKS", "OBJECTS IN SLOTS")
    for segment in segments:
        slots = " ".join(str(slot) for slot in segment.integers("placement", 512))
        rows.add_row(segment.text("uuid"), segment.text("code"), str(segment.integer("chunks")), slots)
    show_table(rows)
