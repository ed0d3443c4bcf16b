"""The data of the page's plots, as plain types for JavaScript."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from itertools import permutations
from typing import Any

from cnnbench.report.analysis import learning_curves as curves
from cnnbench.report.analysis import predictions as mistakes
from cnnbench.report.analysis.cell import Cell
from cnnbench.report.analysis.pareto import cost_points
from cnnbench.report.analysis.predictions import CellPredictions, Misclassified
from cnnbench.report.analysis.report_data import ImageComparison, Report
from cnnbench.report.number_format import interval_text, p_value, signed_points
from cnnbench.report.render.styles import style_of
from cnnbench.text import Values, printable

PAIRS = 12  # pairs with the baseline that have galleries
FIRST = 6  # settings of which any two have galleries
TILE = 3  # settings whose predictions a misclassified image shows


def plotly_data(report: Report) -> Values:
    """All data of the page: settings, learning curves, costs, errors."""
    cells = report.review.cells
    drawn = {metric: curves_data(cells, metric) for metric in curves.METRIC_LABELS}
    losses = [value for setting in drawn["train/loss"] for value in setting["band"]["mean"] if value > 0]
    data = {
        "settings": [setting_data(number, cell) for number, cell in enumerate(cells)],
        "curves": drawn if any(drawn.values()) else {},
        "log_loss": bool(losses) and max(losses) > 20 * min(losses),
        "costs": [{"name": name, "points": list(map(vars, points))} for name, points in cost_points(cells).items()],
        "errors": errors_data(report) if report.cell_predictions else None,
    }
    return for_json(data)


def setting_data(number: int, cell: Cell) -> Values:
    """A setting: its style, its mean with the interval, the accuracy of each run."""
    known = {run.name: run.accuracy for run in cell.runs if run.accuracy is not None}
    low, high = cell.interval or (None, None)
    return {
        "number": number, "label": cell.label, **asdict(style_of(number)), "mean": cell.mean, "low": low, "high": high,
        "values": list(known.values()), "runs": list(known),
    }  # fmt: skip


def curves_data(cells: Iterable[Cell], metric: str) -> list[Values]:
    """A metric's learning curves: for each setting the mean with its band, and every run."""
    return [
        {"setting": number, "band": vars(band), "runs": list(map(vars, curves.curves(cell.runs, metric)))}
        for number, cell in enumerate(cells)
        if (band := curves.cell_band(cell.runs, metric)).epochs
    ]


def errors_data(report: Report) -> Values:
    """Confusion, accuracy by class, calibration, pairwise comparisons and galleries."""
    tested, pairs = report.cell_predictions, report.comparisons
    listed = []
    for cell in tested:
        error, (low, high) = cell.ece
        listed.append(
            {
                "setting": cell.index, "confusion": cell.confusion.tolist(), "per_class": cell.per_class.tolist(),
                **vars(cell.calibration), "ece": f"{error:.4f} ({low:.4f} to {high:.4f})",
            }
        )  # fmt: skip
    numbers = [cell.index for cell in tested]
    compared = [(each, "") for each in pairs]
    compared += [(each, " after Holm over all pairs") for each in report.other_comparisons]
    return {
        "classes": mistakes.class_names(report.review.runs.done, len(tested[0].confusion)),
        "settings": listed,
        "first": [numbers.index(cell.index) for cell in (pairs[0].ours, pairs[0].theirs)] if pairs else [0, 0],
        "pairs": {
            f"{each.ours.index} {each.theirs.index}": image_comparison_sentence(each, over) for each, over in compared
        },
        **(galleries_data(report) if report.images else {"pictures": None}),
    }


def galleries_data(report: Report) -> Values:
    """The galleries as tiles, and each of their images once, as a data URI."""
    same = mistakes.same_test_images(report.cell_predictions)
    numbers = [cell.index for cell in same]
    pairs = [each for each in report.comparisons if each.ours.index in numbers][:PAIRS]
    pairs += [each for each in report.other_comparisons if {each.ours.index, each.theirs.index} <= set(numbers[:FIRST])]
    only = {}
    for each in pairs:
        for ours, theirs in permutations((each.ours, each.theirs)):
            images = mistakes.correct_only_in_first(ours, theirs, report.images)
            only[f"{ours.index} {theirs.index}"] = [tile_data(image, (ours, theirs)) for image in images]
    missed = [tile_data(image, same[:TILE]) for image in mistakes.most_misclassified(same, report.images)]
    indices = {tile["index"] for tiles in (*only.values(), missed) for tile in tiles}
    pictures = {index: mistakes.png_data_uri(report.images[index]) for index in sorted(indices)}
    return {"missed": missed, "only": only, "pictures": pictures}


def tile_data(image: Misclassified, cells: Iterable[CellPredictions]) -> Values:
    """An image of a gallery, with the class that the first settings predict and the share of runs that are right."""
    predicted = zip(cells, image.predicted, strict=False)
    shown = [[cell.index, label, round(share, 3)] for cell, (label, share) in predicted]
    return {"index": image.index, "target": image.target, "predicted": shown}


def image_comparison_sentence(each: ImageComparison, over: str) -> str:
    """A sentence that compares two settings on the same images; `over` names the correction of p if the table does not."""
    ours, theirs = each.only
    return (
        f"Of {len(each.ours.targets):,} images, {ours:,} are correct in a larger share of runs with {each.ours.cell.label}, {theirs:,} "
        f"with {each.theirs.cell.label}: {signed_points(each.difference.point)} points "
        f"({interval_text(each.difference.interval)}), p {p_value(each.p)}{over}."
    )


def for_json(value: Any) -> Any:
    """Rounds each float in nested dicts and lists to six digits, and makes each text printable.

    A float that is not finite, which JSON cannot hold, becomes None.
    """
    if isinstance(value, dict):
        return {key: for_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [for_json(item) for item in value]
    if isinstance(value, str):
        return printable(value)
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
