"""Many measurements as one table, or as JSON.

Owns median, spread and what is said beside a figure.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from objfs.app.bench.workloads import Workload


@dataclass(frozen=True, slots=True)
class Cell:
    """All rounds of one workload in one place."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Half of the distance from the slowest round to the fastest, as a share of the median."""
        return (max(self.values) - min(self.values)) / 2 / self.median


Cells = Mapping[tuple[str, str], Cell]
"""By workload's name and target's name."""


def verdict(workload: Workload, cells: Cells, target: str) -> tuple[float, bool] | None:
    """(share of the yardstick, whether the budget is met); None without a yardstick, or on itself."""
    yardstick = cells.get((workload.name, workload.yardstick))
    if yardstick is None or target in ("floor", "local"):
        return None
    share = cells[workload.name, target].median / yardstick.median
    return share, share >= workload.share


def table(workloads: Sequence[Workload], targets: Sequence[str], cells: Cells) -> Table:
    """One row per workload, one column per target; a share below its budget is red."""
    result = Table(title="median of the rounds, ± half the range")
    result.add_column("workload")
    result.add_column("unit")
    for target in targets:
        result.add_column(target, justify="right")
    result.add_column("budget")
    for workload in workloads:
        figures = [_figure(workload, cells, target) for target in targets]
        result.add_row(workload.name, workload.unit, *figures, workload.budget)
    return result


def _figure(workload: Workload, cells: Cells, target: str) -> Text:
    cell = cells[workload.name, target]
    text = Text(f"{cell.median:,.0f} ±{cell.spread:.0%}")
    judged = verdict(workload, cells, target)
    if judged is not None:
        share, met = judged
        text.append(f"  {share:.2f}", style="green" if met else "bold red")
    return text


def records(
    workloads: Sequence[Workload], targets: Sequence[str], cells: Cells
) -> list[dict[str, str | float | bool | list[float] | None]]:
    """The same for a program."""
    found = []
    for workload in workloads:
        for target in targets:
            cell, judged = cells[workload.name, target], verdict(workload, cells, target)
            record: dict[str, str | float | bool | list[float] | None] = {
                "workload": workload.name,
                "unit": workload.unit,
                "target": target,
                "median": cell.median,
                "spread": cell.spread,
                "rounds": list(cell.values),
                "yardstick": workload.yardstick,
                "share": judged[0] if judged else None,
                "within_budget": judged[1] if judged else None,
            }
            found.append(record)
    return found
