"""Accuracy against cost: parameters, multiply-accumulates, seconds of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnnbench import stats
from cnnbench.report.analysis.cell import Cell

COSTS = {"parameters": "params", "multiply-accumulates": "macs", "seconds of training": "fit_s"}


@dataclass(frozen=True)
class CostPoint:
    """A cell in a plot of accuracy against cost.

    Attributes:
        cell_index: position of the cell in `Review.cells`.
        cost: mean cost of its runs.
        accuracy: mean test accuracy.
        front: whether it is on the Pareto front.
    """

    cell_index: int
    cost: float
    accuracy: float
    front: bool


def cost_points(cells: Sequence[Cell]) -> dict[str, list[CostPoint]]:
    """Computes the points of each cost in which the cells differ."""
    points = {}
    for name, field in COSTS.items():
        found = [
            (index, cost, cell.mean)
            for index, cell in enumerate(cells)
            if cell.mean is not None and (cost := cell.mean_result(field)) is not None
        ]
        costs = [cost for _, cost, _ in found]
        if len(set(costs)) > 1:
            front = stats.pareto(costs, [mean for *_, mean in found])
            points[name] = [CostPoint(*each, front=on) for each, on in zip(found, front, strict=True)]
    return points
