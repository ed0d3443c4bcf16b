"""What the page's plots show, as plain types for JavaScript."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cnnbench.report.analysis import learning_curves as curves
from cnnbench.report.analysis import predictions as mistakes
from cnnbench.report.analysis.cell import METRIC
from cnnbench.report.analysis.pareto import costs
from cnnbench.report.analysis.predictions import Arm, Pictured
from cnnbench.report.analysis.report_data import Comparison, Report
from cnnbench.report.number_format import interval_of, p_value, signed
from cnnbench.report.render.styles import look

PAIRS = 12  # arms whose mistakes are shown beside the baseline's
FIRST = 6  # arms of which any two have theirs shown


def page_data(report: Report) -> dict[str, Any]:
    """Plain types, for JavaScript."""
    cells = report.review.cells
    arms = []
    for number, cell in enumerate(cells):
        done = [run for run in cell.runs if run.metric(METRIC) is not None]
        low, high = cell.interval or (None, None)
        arms.append(
            {
                "number": number, "label": cell.label, **asdict(look(number)), "mean": short(cell.mean), "low": short(low),
                "high": short(high), "values": [short(run.metric(METRIC)) for run in done], "runs": [run.name for run in done],
            }
        )  # fmt: skip
    drawn = {metric: of_curves(report, metric) for metric in curves.SHOWN}
    losses = [value for arm in drawn["train/loss"] for value in arm["band"]["mean"] if value > 0]
    return {
        "arms": arms,
        "curves": drawn if any(drawn.values()) else {},
        "log_loss": bool(losses) and max(losses) > 20 * min(losses),
        "costs": of_costs(report),
        "errors": of_errors(report) if report.arms else None,
    }


def of_curves(report: Report, metric: str) -> list[dict[str, Any]]:
    """A metric's curves, by arm."""
    made = []
    for number, cell in enumerate(report.review.cells):
        found = curves.curves(cell.runs, metric)
        band = curves.band(curves.curves(curves.averaged(cell.runs), metric))
        if band.epochs:
            runs = [{key: shortened(value) for key, value in vars(curve).items()} for curve in found]
            made.append(
                {"arm": number, "band": {key: shortened(value) for key, value in vars(band).items()}, "runs": runs}
            )
    return made


def of_costs(report: Report) -> list[dict[str, Any]]:
    """Accuracy against each cost."""
    return [
        {
            "name": name,
            "points": [
                {"arm": point.arm, "x": short(point.cost), "y": short(point.accuracy), "front": point.front}
                for point in points
            ],
        }
        for name, points in costs(report.review.cells).items()
    ]


def of_errors(report: Report) -> dict[str, Any]:
    """Confusion, calibration, pictures."""
    cells, arms = report.review.cells, report.arms
    place = {id(cell): number for number, cell in enumerate(cells)}
    classes = mistakes.class_names(report.review.runs.done, max(len(arm.confusion) for arm in arms))
    listed = [
        {
            "arm": place[id(arm.cell)], "confusion": arm.confusion.tolist(), "per_class": shortened(arm.per_class.tolist()),
            "confidence": shortened(arm.calibration.confidence), "accuracy": shortened(arm.calibration.accuracy),
            "count": [int(count) for count in arm.calibration.count], "ece": of_ece(arm),
        }
        for arm in arms
    ]  # fmt: skip
    numbers = [place[id(arm.cell)] for arm in arms]
    pairs = report.comparisons
    first = [numbers.index(place[id(arm.cell)]) for arm in (pairs[0].ours, pairs[0].theirs)] if pairs else [0, 0]
    made: dict[str, Any] = {
        "classes": classes, "arms": listed, "first": first,
        "pairs": {
            f"{place[id(each.ours.cell)]} {place[id(each.theirs.cell)]}": on_images(each, over)
            for compared, over in ((pairs, ""), (report.others, " after Holm over all pairs")) for each in compared
        },
        "pictures": None,
    }  # fmt: skip
    if report.pictures:
        made |= of_pictures(report, place)
    return made


def of_ece(arm: Arm) -> str:
    """The calibration error, and how sure that is."""
    point, interval = arm.ece
    return f"{point:.4f}" if interval is None else f"{point:.4f} ({interval[0]:.4f} to {interval[1]:.4f})"


def of_pictures(report: Report, place: Mapping[int, int]) -> dict[str, Any]:
    """The galleries, and each picture once."""
    same = mistakes.alike(report.arms)
    missed = mistakes.most_missed(same, report.pictures)
    few = same[:3]
    only: dict[str, tuple[list[Pictured], list[int]]] = {}
    pairs = [each for each in report.comparisons if any(each.ours is arm for arm in same)]
    first = {id(arm) for arm in same[:FIRST]}
    others = [each for each in report.others if {id(each.ours), id(each.theirs)} <= first]
    for each in (*pairs[:PAIRS], *others):
        for ours, theirs in ((each.ours, each.theirs), (each.theirs, each.ours)):
            numbers = [place[id(ours.cell)], place[id(theirs.cell)]]
            only[f"{numbers[0]} {numbers[1]}"] = (mistakes.only_first(ours, theirs, report.pictures), numbers)
    galleries = {name: [as_tile(image, numbers) for image in images] for name, (images, numbers) in only.items()}
    shown = [as_tile(image, [place[id(arm.cell)] for arm in few]) for image in missed]
    indices = {tile["index"] for listed in (*galleries.values(), shown) for tile in listed}
    pictures = {index: mistakes.as_uri(report.pictures[index]) for index in sorted(indices)}
    return {"missed": shown, "only": galleries, "pictures": pictures}


def as_tile(image: Pictured, arms: Sequence[int]) -> Any:
    """A picture of a gallery, with what the first arms said of it."""
    said = [[arm, said, round(share, 3)] for arm, (said, share) in zip(arms, image.said, strict=False)]
    return {"index": image.index, "target": image.target, "said": said}


def on_images(each: Comparison, over: str) -> str:
    """A pair on the same images, in a sentence; `over` says what its p was corrected for, where the table does not."""
    ours, theirs = each.only
    labels = each.ours.cell.label, each.theirs.cell.label
    return (
        f"Of {len(each.ours.targets):,} images {ours:,} count for {labels[0]} and {theirs:,} for {labels[1]}: "
        f"{signed(each.difference.point)} points ({interval_of(each.difference.interval)}), p {p_value(each.p)}{over}."
    )


def short(value: float | None) -> float | None:
    """Six digits are plenty on a screen; what is no number is none."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def shortened(value: Any) -> Any:
    """The same for lists."""
    return (
        [short(float(each)) if each is not None else None for each in value]
        if isinstance(value, list | tuple)
        else value
    )
