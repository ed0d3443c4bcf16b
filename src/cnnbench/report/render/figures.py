"""Draws figures for a paper as SVG and PNG: accuracy with intervals, learning curves, cost, confusion, reliability."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cnnbench.report.analysis.learning_curves import METRIC_LABELS, cell_band
from cnnbench.report.analysis.pareto import cost_points
from cnnbench.report.analysis.predictions import class_names
from cnnbench.report.analysis.report_data import Report
from cnnbench.report.render.styles import style_of
from cnnbench.text import printable

WIDTH = 6.4  # inches: the text width of most papers
MAX_HEIGHT = 200.0  # inches: Agg limits the height of a PNG
NAMED = 12  # with more settings a legend would hide the plot
STYLE: Any = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False,
    "svg.fonttype": "none", "svg.hashsalt": "cnnbench", "text.parse_math": False, "figure.constrained_layout.use": True,
}  # fmt: skip


def draw(report: Report, folder: Path) -> list[Path]:
    """Draws every figure that has data into `folder`.

    Returns:
        The files: an SVG and a PNG for each figure.
    """
    drawings = {
        "accuracy": accuracy, "curves": learning_curves, "cost": cost, "confusion": confusion, "reliability": reliability,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the SVG keeps the text
        for name, drawing in drawings.items():
            figure = drawing(report)
            if figure is not None:
                made += save(figure, folder / name)
    return made


def save(figure: Figure, path: Path) -> list[Path]:
    """Saves a figure as SVG and as PNG; `path` has no suffix."""
    FigureCanvasAgg(figure)
    files = [path.with_suffix(".svg"), path.with_suffix(".png")]
    figure.savefig(files[0], metadata={"Date": None})
    figure.set_layout_engine("none")  # the layout is done
    figure.savefig(files[1], dpi=200)
    return files


def accuracy(report: Report) -> Figure | None:
    """Plots each setting's runs, mean and 95 % interval; None without results."""
    if not report.review.known_cells:
        return None
    cells = report.review.cells
    figure = Figure((WIDTH, min(MAX_HEIGHT, 0.7 + 0.28 * len(cells))))
    axes = figure.subplots()
    for number, cell in enumerate(cells):
        if cell.mean is None:
            continue
        own = style_of(number)
        axes.plot(list(cell.values.values()), [number] * cell.n, "o", color=own.color, alpha=0.35, markersize=4)
        errors = [[cell.mean - cell.interval[0]], [cell.interval[1] - cell.mean]] if cell.interval else None
        axes.errorbar(cell.mean, number, xerr=errors, fmt=own.marker, color=own.color, capsize=3)
    axes.set_yticks(range(len(cells)), [f"{short(cell.label, 60)} ({cell.n})" for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.set_xlabel("test accuracy: runs, mean, 95 % interval")
    return figure


def learning_curves(report: Report) -> Figure | None:
    """Plots loss and accuracy over epochs: mean and standard deviation; None without epochs."""
    if not any(run.epochs for run in report.review.runs.runs):
        return None
    cells = report.review.cells
    figure = Figure((WIDTH, 4.6))
    grid = figure.subplots(2, 2, sharex=True)
    for axes, (metric, name) in zip(grid.flat, METRIC_LABELS.items(), strict=True):
        for number, cell in enumerate(cells):
            band, own = cell_band(cell.runs, metric), style_of(number)
            marker = own.marker if len(band.epochs) == 1 else None
            axes.plot(
                band.epochs, band.mean, own.line, color=own.color, label=short(cell.label), linewidth=1.4, marker=marker
            )
            axes.fill_between(band.epochs, band.low, band.high, color=own.color, alpha=0.15, linewidth=0)
        axes.set_ylabel(name)
    for axes in grid[1]:
        axes.set_xlabel("epoch")
    legend(figure, grid[0][0])
    return figure


def short(name: str, most: int = 32) -> str:
    """A name in printable characters, shortened so that it leaves room for the plot."""
    name = printable(name)
    return name if len(name) <= most else f"{name[: most - 1]}…"


def legend(figure: Figure, axes: Axes) -> None:
    """Puts the legend of these axes below the plots, for 2 to `NAMED` settings."""
    handles, labels = axes.get_legend_handles_labels()
    if 1 < len(labels) <= NAMED:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)))


def cost(report: Report) -> Figure | None:
    """Plots accuracy against parameters, MACs and seconds, the Pareto front joined; None without costs."""
    cells = report.review.cells
    panels = cost_points(cells)
    if not panels:
        return None
    figure = Figure((WIDTH, 2.8))
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (name, points) in zip(grid, panels.items(), strict=True):
        best = sorted((point.cost, point.accuracy) for point in points if point.front)
        axes.plot(*zip(*best, strict=True), ":", color="0.5", linewidth=1, zorder=0)
        for point in points:
            own, label = style_of(point.cell_index), short(cells[point.cell_index].label)
            axes.plot(point.cost, point.accuracy, own.marker, color=own.color, label=label)
        values = [point.cost for point in points]
        if min(values) > 0 and max(values) > 5 * min(values):
            axes.set_xscale("log")
        axes.set_xlabel(name)
    grid[0].set_ylabel("test accuracy")
    legend(figure, grid[0])
    return figure


def confusion(report: Report) -> Figure | None:
    """Plots the confusion matrices of the first pair of settings, and their difference; None without predictions.

    The colour scale ends at the largest share off the diagonal, so that errors stay visible.
    """
    shown = report.cell_predictions[:1]
    for pair in report.comparisons[:1]:
        shown = [pair.theirs, pair.ours]
    if not shown:
        return None
    shares = np.stack([each.confusion_shares for each in shown])
    names = [short(name, 14) for name in class_names(report.review.runs.done, shares.shape[1])]
    most_wrong = np.nanmax(shares[:, ~np.eye(len(names), dtype=bool)], initial=1e-9)
    panels = [
        (short(each.cell.label), share, "Blues", 0.0, most_wrong) for each, share in zip(shown, shares, strict=True)
    ]
    for difference in 100 * np.diff(shares, axis=0):
        most = np.nanmax(np.abs(difference), initial=1e-7)
        panels.append(("difference, points", difference, "RdBu_r", -most, most))
    figure = Figure((WIDTH * len(panels) / 2, 3.4))
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, values, colors, low, high) in zip(grid, panels, strict=True):
        image = axes.imshow(values, cmap=colors, vmin=low, vmax=high)
        axes.grid(visible=False)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("predicted class")
        if len(names) <= 20:
            axes.set_xticks(range(len(names)), names, rotation=90)
            axes.set_yticks(range(len(names)), names)
        figure.colorbar(image, ax=axes, shrink=0.6)
    grid[0].set_ylabel("true class")
    return figure


def reliability(report: Report) -> Figure | None:
    """Plots accuracy against confidence, with the expected calibration error of each setting; None without predictions."""
    shown = report.cell_predictions[:NAMED]
    if not shown:
        return None
    figure = Figure((WIDTH / 2, WIDTH / 2 + 0.16 * len(shown)))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="0.5", linewidth=1)
    for each in shown:
        own, bins = style_of(each.index), each.calibration
        axes.plot(
            np.array(bins.confidence, float), np.array(bins.accuracy, float), own.line, marker=own.marker, color=own.color,
            label=f"{short(each.cell.label)}, ECE {each.ece[0]:.3f}", markersize=3, linewidth=1.2,
        )  # fmt: skip
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    figure.legend(loc="outside lower center", fontsize=7)
    return figure
