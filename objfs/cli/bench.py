"""``objfs bench``: the project's workloads in a directory."""

from __future__ import annotations

import click


@click.command()
def bench() -> None:
    """Measure."""
