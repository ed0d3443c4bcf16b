"""What accuracy costs: parameters, multiply-accumulates, seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnnbench import stats
from cnnbench.report.analysis.cell import Cell

COSTS = {"parameters": ("params",), "multiply-accumulates": ("macs",), "seconds of training": ("time", "fit_s")}


@dataclass(frozen=True)
class Point:
    """A cell: its number, what it costs, its mean accuracy, and whether it is on the Pareto front."""

    arm: int
    cost: float
    accuracy: float
    front: bool


def costs(cells: Sequence[Cell]) -> dict[str, list[Point]]:
    """By cost, where the cells differ in it."""
    made = {}
    for name, path in COSTS.items():
        found = [
            (number, cost, cell.mean)
            for number, cell in enumerate(cells)
            if cell.mean is not None and (cost := cell.fact(*path)) is not None
        ]
        if len({cost for _, cost, _ in found}) > 1:
            front = stats.pareto([cost for _, cost, _ in found], [mean for *_, mean in found])
            made[name] = [Point(*each, front=on) for each, on in zip(found, front, strict=True)]
    return made
