"""Draws figures for a paper as SVG and PNG: accuracy with intervals, learning curves, cost, confusion, reliability."""

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
from cnnbench.report.analysis.pareto import cost_points
from cnnbench.report.analysis.predictions import CellPredictions
from cnnbench.report.analysis.report_data import Report
from cnnbench.report.render.styles import MARKERS, style_of

WIDTH = 6.4  # inches: the text width of most papers
NAMED = 12  # with more settings a legend would hide the plot
DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
STYLE: Any = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False,
    "svg.fonttype": "none", "svg.hashsalt": "cnnbench", "text.parse_math": False,
}  # fmt: skip


def draw(report: Report, folder: Path) -> list[Path]:
    """Draws every figure that has data into `folder`.

    Returns:
        The files: an SVG and a PNG for each figure.
    """
    cells = [cell for cell in report.review.cells if cell.n]
    drawings: dict[str, Callable[[], Figure | None]] = {
        "accuracy": lambda: accuracy(report.review.cells) if cells else None,
        "curves": lambda: of_curves(report.review.cells),
        "cost": lambda: cost(report.review.cells),
        "confusion": lambda: confusion(report) if report.cell_predictions else None,
        "reliability": lambda: reliability(report) if report.cell_predictions else None,
    }
    made = []
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the SVG keeps the text
        for name, drawing in drawings.items():
            if (figure := drawing()) is not None:
                made += save(figure, folder / name)
    return made


def save(figure: Figure, path: Path) -> list[Path]:
    """Saves a figure as SVG and as PNG; `path` has no suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    files = [path.with_suffix(".svg"), path.with_suffix(".png")]
    figure.savefig(files[0], metadata={"Date": None})
    figure.set_layout_engine("none")  # the layout is done
    figure.savefig(files[1], dpi=200)
    return files


def accuracy(cells: Sequence[Cell]) -> Figure:
    """Plots each setting's runs, mean and 95 % interval."""
    figure = Figure(
        (WIDTH, min(200.0, 0.7 + 0.28 * len(cells))), layout="constrained"
    )  # inches: Agg limits the height of a PNG
    axes = figure.subplots()
    for number, cell in enumerate(cells):
        if cell.mean is None:
            continue
        own = style_of(number)
        axes.plot(list(cell.values.values()), [number] * cell.n, "o", color=own.color, alpha=0.35, markersize=4)
        errors = [[cell.mean - cell.interval[0]], [cell.interval[1] - cell.mean]] if cell.interval else None
        axes.errorbar(cell.mean, number, xerr=errors, fmt=MARKERS[own.symbol], color=own.color, capsize=3)
    axes.set_yticks(range(len(cells)), [f"{short(cell.label, 60)} ({cell.n})" for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.set_xlabel("test accuracy: runs, mean, 95 % interval")
    return figure


def of_curves(cells: Sequence[Cell]) -> Figure | None:
    """Plots loss and accuracy over epochs: mean and standard deviation; None without epochs."""
    if not any(run.epochs for cell in cells for run in cell.runs):
        return None
    figure = Figure((WIDTH, 4.6), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True)
    for axes, (metric, name) in zip(np.ravel(grid), curves.METRIC_LABELS.items(), strict=True):
        for number, cell in enumerate(cells):
            band, own = curves.mean_band(curves.curves(curves.runs_to_average(cell.runs), metric)), style_of(number)
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
    """Shortens a name so that it leaves room for the plot."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def legend(figure: Figure, axes: Axes, settings: int) -> None:
    """Puts the legend below the plots."""
    if 1 < settings <= NAMED:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, settings))


def cost(cells: Sequence[Cell]) -> Figure | None:
    """Plots accuracy against parameters, MACs and seconds, the Pareto front joined; None without costs."""
    panels = cost_points(cells)
    if not panels:
        return None
    figure = Figure((WIDTH, 2.8), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (name, points) in zip(grid, panels.items(), strict=True):
        best = sorted((point.cost, point.accuracy) for point in points if point.front)
        axes.plot(*zip(*best, strict=True), ":", color="0.5", linewidth=1, zorder=0)
        for point in points:
            own = style_of(point.cell_index)
            axes.plot(
                point.cost,
                point.accuracy,
                MARKERS[own.symbol],
                color=own.color,
                label=short(cells[point.cell_index].label),
            )
        values = [point.cost for point in points]
        if min(values) > 0 and max(values) > 5 * min(values):
            axes.set_xscale("log")
        axes.set_xlabel(name)
    grid[0].set_ylabel("test accuracy")
    legend(figure, grid[0], len(next(iter(panels.values()))))
    return figure


def confusion(report: Report) -> Figure:
    """Plots the confusion matrices of the first pair of settings, and their difference."""
    pair = report.comparisons[0] if report.comparisons else None
    shown = [pair.theirs, pair.ours] if pair else report.cell_predictions[:1]
    names = mistakes.class_names(report.review.runs.done, max(len(each.confusion) for each in shown))
    shares = [_shares(each) for each in shown]
    most_wrong = max(map(_largest, shares))
    panels: list[tuple[str, Any, str, float, float]] = [
        (short(each.cell.label), share, "Blues", 0.0, most_wrong) for each, share in zip(shown, shares, strict=True)
    ]
    if len(shown) == 2:
        difference = shares[1] - shares[0]
        most = float(np.nanmax(np.abs(difference), initial=1e-9))
        panels.append(("difference, points", 100 * difference, "RdBu_r", -100 * most, 100 * most))
    figure = Figure((WIDTH * len(panels) / 2, 3.4), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, values, colors, low, high) in zip(grid, panels, strict=True):
        image = axes.imshow(values, cmap=colors, vmin=low, vmax=high)
        axes.grid(visible=False)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("predicted class")
        if len(names) <= 20:
            axes.set_xticks(range(len(names)), [short(name, 14) for name in names], rotation=90)
            axes.set_yticks(range(len(names)), [short(name, 14) for name in names])
        figure.colorbar(image, ax=axes, shrink=0.6)
    grid[0].set_ylabel("true class")
    return figure


def _shares(each: CellPredictions) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return each.confusion / each.confusion.sum(1, keepdims=True)


def _largest(share: np.ndarray) -> float:
    """The largest share off the diagonal: the colour scale ends there, so that errors stay visible."""
    off = share[~np.eye(len(share), dtype=bool)]
    return float(np.nanmax(off, initial=1e-9))


def reliability(report: Report) -> Figure:
    """Plots accuracy against confidence, with the expected calibration error of each setting."""
    figure = Figure((WIDTH / 2, WIDTH / 2 + 0.16 * min(NAMED, len(report.cell_predictions))), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="0.5", linewidth=1)
    for each in report.cell_predictions[:NAMED]:
        own = style_of(each.index)
        label = f"{short(each.cell.label)}, ECE {each.ece[0]:.3f}"
        x, y = (
            np.array(values, float) for values in (each.calibration.confidence, each.calibration.accuracy)
        )  # None: nan
        axes.plot(
            x, y, DASHES[own.dash], marker=MARKERS[own.symbol], color=own.color,
            label=label, markersize=3, linewidth=1.2,
        )  # fmt: skip
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    figure.legend(loc="outside lower center", fontsize=7)
    return figure
