"""The data of the page's plots, as plain types for JavaScript."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cnnbench.report.analysis import learning_curves as curves
from cnnbench.report.analysis import predictions as mistakes
from cnnbench.report.analysis.cell import METRIC
from cnnbench.report.analysis.pareto import cost_points
from cnnbench.report.analysis.predictions import CellPredictions, Misclassified
from cnnbench.report.analysis.report_data import ImageComparison, Report
from cnnbench.report.number_format import interval_text, p_value, signed_points
from cnnbench.report.render.styles import style_of

PAIRS = 12  # pairs with the baseline that have galleries
FIRST = 6  # settings of which any two have galleries


def plotly_data(report: Report) -> dict[str, Any]:
    """All data of the page: settings, learning curves, costs, errors."""
    cells = report.review.cells
    settings = []
    for number, cell in enumerate(cells):
        done = [run for run in cell.runs if run.metric(METRIC) is not None]
        low, high = cell.interval or (None, None)
        settings.append(
            {
                "number": number, "label": cell.label, **asdict(style_of(number)), "mean": short(cell.mean), "low": short(low),
                "high": short(high), "values": [short(run.metric(METRIC)) for run in done], "runs": [run.name for run in done],
            }
        )  # fmt: skip
    drawn = {metric: of_curves(report, metric) for metric in curves.METRIC_LABELS}
    losses = [value for setting in drawn["train/loss"] for value in setting["band"]["mean"] if value > 0]
    return {
        "settings": settings,
        "curves": drawn if any(drawn.values()) else {},
        "log_loss": bool(losses) and max(losses) > 20 * min(losses),
        "costs": of_costs(report),
        "errors": of_errors(report) if report.cell_predictions else None,
    }


def of_curves(report: Report, metric: str) -> list[dict[str, Any]]:
    """A metric's learning curves: for each setting the mean with its band, and every run."""
    made = []
    for number, cell in enumerate(report.review.cells):
        found = curves.curves(cell.runs, metric)
        band = curves.mean_band(curves.curves(curves.runs_to_average(cell.runs), metric))
        if band.epochs:
            runs = [{key: shortened(value) for key, value in vars(curve).items()} for curve in found]
            made.append(
                {"setting": number, "band": {key: shortened(value) for key, value in vars(band).items()}, "runs": runs}
            )
    return made


def of_costs(report: Report) -> list[dict[str, Any]]:
    """Accuracy against each cost, with the Pareto front marked."""
    return [
        {
            "name": name,
            "points": [
                {"setting": point.cell_index, "x": short(point.cost), "y": short(point.accuracy), "front": point.front}
                for point in points
            ],
        }
        for name, points in cost_points(report.review.cells).items()
    ]


def of_errors(report: Report) -> dict[str, Any]:
    """Confusion, accuracy by class, calibration, pairwise comparisons and galleries."""
    tested = report.cell_predictions
    classes = mistakes.class_names(report.review.runs.done, max(len(cell.confusion) for cell in tested))
    listed = [
        {
            "setting": cell.index, "confusion": cell.confusion.tolist(), "per_class": shortened(cell.per_class.tolist()),
            "confidence": shortened(cell.calibration.confidence), "accuracy": shortened(cell.calibration.accuracy),
            "count": [int(count) for count in cell.calibration.count], "ece": of_ece(cell),
        }
        for cell in tested
    ]  # fmt: skip
    numbers = [cell.index for cell in tested]
    pairs = report.comparisons
    first = [numbers.index(cell.index) for cell in (pairs[0].ours, pairs[0].theirs)] if pairs else [0, 0]
    made: dict[str, Any] = {
        "classes": classes, "settings": listed, "first": first,
        "pairs": {
            f"{each.ours.index} {each.theirs.index}": on_images(each, over)
            for compared, over in ((pairs, ""), (report.other_comparisons, " after Holm over all pairs")) for each in compared
        },
        "pictures": None,
    }  # fmt: skip
    if report.images:
        made |= of_pictures(report)
    return made


def of_ece(cell: CellPredictions) -> str:
    """The expected calibration error with its 95 % interval, as text."""
    point, interval = cell.ece
    return f"{point:.4f}" if interval is None else f"{point:.4f} ({interval[0]:.4f} to {interval[1]:.4f})"


def of_pictures(report: Report) -> dict[str, Any]:
    """The galleries as tiles, and each of their images once, as a data URI."""
    same = mistakes.same_test_images(report.cell_predictions)
    missed = mistakes.most_misclassified(same, report.images)
    few = same[:3]
    only: dict[str, tuple[list[Misclassified], list[int]]] = {}
    pairs = [each for each in report.comparisons if any(each.ours is cell for cell in same)]
    first = {cell.index for cell in same[:FIRST]}
    others = [each for each in report.other_comparisons if {each.ours.index, each.theirs.index} <= first]
    for each in (*pairs[:PAIRS], *others):
        for ours, theirs in ((each.ours, each.theirs), (each.theirs, each.ours)):
            numbers = [ours.index, theirs.index]
            only[f"{numbers[0]} {numbers[1]}"] = (mistakes.correct_only_in_first(ours, theirs, report.images), numbers)
    galleries = {name: [as_tile(image, numbers) for image in images] for name, (images, numbers) in only.items()}
    shown = [as_tile(image, [cell.index for cell in few]) for image in missed]
    indices = {tile["index"] for listed in (*galleries.values(), shown) for tile in listed}
    pictures = {index: mistakes.png_data_uri(report.images[index]) for index in sorted(indices)}
    return {"missed": shown, "only": galleries, "pictures": pictures}


def as_tile(image: Misclassified, settings: Sequence[int]) -> Any:
    """An image of a gallery, with the class that the first settings predict and the share of runs that are right."""
    predicted = [
        [setting, label, round(share, 3)] for setting, (label, share) in zip(settings, image.predicted, strict=False)
    ]
    return {"index": image.index, "target": image.target, "predicted": predicted}


def on_images(each: ImageComparison, over: str) -> str:
    """A sentence that compares two settings on the same images; `over` names the correction of p if the table does not."""
    ours, theirs = each.only
    labels = each.ours.cell.label, each.theirs.cell.label
    return (
        f"Of {len(each.ours.targets):,} images {ours:,} count for {labels[0]} and {theirs:,} for {labels[1]}: "
        f"{signed_points(each.difference.point)} points ({interval_text(each.difference.interval)}), p {p_value(each.p)}{over}."
    )


def short(value: float | None) -> float | None:
    """A number with six digits; None for what is not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def shortened(value: Any) -> Any:
    """Applies `short` to a list; other values stay."""
    return (
        [short(float(each)) if each is not None else None for each in value]
        if isinstance(value, list | tuple)
        else value
    )
