"""Pictures for a paper, as SVG and PNG: accuracy with intervals, curves, cost, confusion, reliability."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cnnbench.report.analysis import learning_curves as curves
from cnnbench.report.analysis import predictions as mistakes
from cnnbench.report.analysis.cell import Cell
from cnnbench.report.analysis.pareto import costs
from cnnbench.report.analysis.predictions import Arm
from cnnbench.report.analysis.report_data import Report
from cnnbench.report.render.styles import MARKERS, look

WIDTH = 6.4  # inches: a text column of most papers' two
NAMED = 12  # with more arms a legend would hide the picture
DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
STYLE: Any = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False,
    "svg.fonttype": "none", "svg.hashsalt": "cnnbench", "text.parse_math": False,
}  # fmt: skip


def draw(report: Report, folder: Path) -> list[Path]:
    """Draws all that there is something to draw of; the files."""
    cells = [cell for cell in report.review.cells if cell.n]
    drawings: dict[str, Callable[[], Figure | None]] = {
        "accuracy": lambda: accuracy(report.review.cells) if cells else None,
        "curves": lambda: of_curves(report.review.cells),
        "cost": lambda: cost(report.review.cells),
        "confusion": lambda: confusion(report) if report.arms else None,
        "reliability": lambda: reliability(report) if report.arms else None,
    }
    made = []
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # an SVG has the text all the same
        for name, drawing in drawings.items():
            if (figure := drawing()) is not None:
                made += save(figure, folder / name)
    return made


def save(figure: Figure, path: Path) -> list[Path]:
    """As SVG and as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    files = [path.with_suffix(".svg"), path.with_suffix(".png")]
    figure.savefig(files[0], metadata={"Date": None})
    figure.set_layout_engine("none")  # it is laid out by now
    figure.savefig(files[1], dpi=200)
    return files


def accuracy(cells: Sequence[Cell]) -> Figure:
    """Each cell's runs, mean and interval."""
    figure = Figure((WIDTH, min(200.0, 0.7 + 0.28 * len(cells))), layout="constrained")  # inches: a PNG has its limits
    axes = figure.subplots()
    for number, cell in enumerate(cells):
        if cell.mean is None:
            continue
        own = look(number)
        axes.plot(list(cell.values.values()), [number] * cell.n, "o", color=own.color, alpha=0.35, markersize=4)
        errors = [[cell.mean - cell.interval[0]], [cell.interval[1] - cell.mean]] if cell.interval else None
        axes.errorbar(cell.mean, number, xerr=errors, fmt=MARKERS[own.symbol], color=own.color, capsize=3)
    axes.set_yticks(range(len(cells)), [f"{short(cell.label, 60)} ({cell.n})" for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.set_xlabel("test accuracy: runs, mean, 95 % interval")
    return figure


def of_curves(cells: Sequence[Cell]) -> Figure | None:
    """Loss and accuracy over epochs, mean and deviation."""
    if not any(run.epochs for cell in cells for run in cell.runs):
        return None
    figure = Figure((WIDTH, 4.6), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True)
    for axes, (metric, name) in zip(np.ravel(grid), curves.SHOWN.items(), strict=True):
        for number, cell in enumerate(cells):
            band, own = curves.band(curves.curves(curves.averaged(cell.runs), metric)), look(number)
            marker = MARKERS[own.symbol] if len(band.epochs) == 1 else None
            axes.plot(
                band.epochs,
                band.mean,
                DASHES[own.dash],
                color=own.color,
                label=short(cell.label),
                linewidth=1.4,
                marker=marker,
            )
            axes.fill_between(band.epochs, band.low, band.high, color=own.color, alpha=0.15, linewidth=0)
        axes.set_ylabel(name)
    for axes in grid[1]:
        axes.set_xlabel("epoch")
    legend(figure, grid[0][0], len(cells))
    return figure


def short(name: str, most: int = 32) -> str:
    """A name that leaves room for the picture."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def legend(figure: Figure, axes: Axes, arms: int) -> None:
    """Below the picture."""
    if 1 < arms <= NAMED:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, arms))


def cost(cells: Sequence[Cell]) -> Figure | None:
    """Accuracy against parameters, MACs, seconds; the Pareto front joined."""
    panels = costs(cells)
    if not panels:
        return None
    figure = Figure((WIDTH, 2.8), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (name, points) in zip(grid, panels.items(), strict=True):
        best = sorted((point.cost, point.accuracy) for point in points if point.front)
        axes.plot(*zip(*best, strict=True), ":", color="0.5", linewidth=1, zorder=0)
        for point in points:
            own = look(point.arm)
            axes.plot(
                point.cost, point.accuracy, MARKERS[own.symbol], color=own.color, label=short(cells[point.arm].label)
            )
        values = [point.cost for point in points]
        if min(values) > 0 and max(values) > 5 * min(values):
            axes.set_xscale("log")
        axes.set_xlabel(name)
    grid[0].set_ylabel("test accuracy")
    legend(figure, grid[0], len(next(iter(panels.values()))))
    return figure


def confusion(report: Report) -> Figure:
    """Of the first pair of arms, and their difference."""
    pair = report.comparisons[0] if report.comparisons else None
    arms = [pair.theirs, pair.ours] if pair else report.arms[:1]
    names = mistakes.class_names(report.review.runs.done, max(len(arm.confusion) for arm in arms))
    shares = [_shares(arm) for arm in arms]
    most_wrong = max(map(_largest, shares))
    panels: list[tuple[str, Any, str, float, float]] = [
        (short(arm.cell.label), share, "Blues", 0.0, most_wrong) for arm, share in zip(arms, shares, strict=True)
    ]
    if len(arms) == 2:
        difference = shares[1] - shares[0]
        most = float(np.nanmax(np.abs(difference), initial=1e-9))
        panels.append(("difference, points", 100 * difference, "RdBu_r", -100 * most, 100 * most))
    figure = Figure((WIDTH * len(panels) / 2, 3.4), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, values, colors, low, high) in zip(grid, panels, strict=True):
        image = axes.imshow(values, cmap=colors, vmin=low, vmax=high)
        axes.grid(visible=False)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("said")
        if len(names) <= 20:
            axes.set_xticks(range(len(names)), [short(name, 14) for name in names], rotation=90)
            axes.set_yticks(range(len(names)), [short(name, 14) for name in names])
        figure.colorbar(image, ax=axes, shrink=0.6)
    grid[0].set_ylabel("is")
    return figure


def _shares(arm: Arm) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return arm.confusion / arm.confusion.sum(1, keepdims=True)


def _largest(share: np.ndarray) -> float:
    """Beside the diagonal, which would drown the mistakes."""
    off = share[~np.eye(len(share), dtype=bool)]
    return float(np.nanmax(off, initial=1e-9))


def reliability(report: Report) -> Figure:
    """Accuracy over confidence."""
    figure = Figure((WIDTH / 2, WIDTH / 2 + 0.16 * min(NAMED, len(report.arms))), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="0.5", linewidth=1)
    place = {id(cell): number for number, cell in enumerate(report.review.cells)}
    for arm in report.arms[:NAMED]:
        own = look(place[id(arm.cell)])
        label = f"{short(arm.cell.label)}, ECE {arm.ece[0]:.3f}"
        axes.plot(
            arm.calibration.confidence, arm.calibration.accuracy, DASHES[own.dash], marker=MARKERS[own.symbol], color=own.color,
            label=label, markersize=3, linewidth=1.2,
        )  # fmt: skip
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    figure.legend(loc="outside lower center", fontsize=7)
    return figure
