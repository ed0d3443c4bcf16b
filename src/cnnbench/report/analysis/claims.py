"""What papers say, held against the runs: claims that an experiment states, and published figures of the same net, data and protocol."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cnnbench import stats
from cnnbench.report.analysis.cell import Cell
from cnnbench.report.analysis.comparisons import Review
from cnnbench.text import canonical

Outcome = Literal["reproduced", "not reproduced", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    Attributes:
        says: the claim in words.
        wants: the same as a check.
        outcome: reproduced where the whole interval meets it, not reproduced where none of it does.
        point, interval, n: of the mean, or of the difference paired by seed.
        why: nothing came out.
    """

    says: str
    wants: str
    outcome: Outcome
    point: float | None = None
    interval: stats.Interval = None
    n: int = 0
    why: str = ""


def verdicts(review: Review) -> list[Verdict]:
    """Of all that the experiment claims."""
    return [verdict(claim, review.cells) for claim in review.runs.asked.get("claims") or []]


def verdict(claim: Mapping[str, Any], cells: Iterable[Cell]) -> Verdict:
    """Of one claim: over the cells that have the setting `of`, by seed; less those that are as they are but for `over`."""
    metric, above, below = claim.get("metric", "test/acc"), claim.get("above"), claim.get("below")
    bounds = " and ".join(
        f"{word} {bound:g}" for word, bound in (("above", above), ("below", below)) if bound is not None
    )
    over = claim.get("over")
    wants = f"{metric} of {_setting(claim['of'])}" + (f" less that of {_setting(over)}" if over else "") + f" {bounds}"
    listed = list(cells)
    ours, theirs = by_seed(claim["of"], over, metric, listed)
    if above is None and below is None:
        return Verdict(claim["says"], wants, "undecided", why="it says neither above nor below what")
    if not ours:
        return Verdict(claim["says"], wants, "undecided", why=unknown(claim["of"], over, metric, listed))
    difference = stats.paired(ours, theirs) if over else stats.one_sample(ours)
    return Verdict(
        claim["says"],
        wants,
        outcome(difference.interval, above, below),
        difference.point,
        difference.interval,
        len(ours),
    )


def unknown(of: Mapping[str, Any], over: Mapping[str, Any] | None, metric: str, cells: list[Cell]) -> str:
    """Why a claim has no numbers."""
    ours = [cell for cell in cells if has(cell, of)]
    if not ours:
        return f"no cell has {_setting(of)}"
    if over and not any(is_twin(other, cell, over) for cell in ours for other in cells):
        return f"no cell has {_setting(over)} and is otherwise as one that has {_setting(of)}"
    if not any(values_of(cell, metric) for cell in ours):
        return f"no run of it has {metric}"
    return "no seed is done in all that it compares" if over else "no seed is done in all cells that have it"


def _setting(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in setting.items())


def outcome(interval: stats.Interval, above: float | None, below: float | None) -> Outcome:
    """What an interval says of a check; one without width, as of equal runs, says nothing of others."""
    if interval is None or interval[0] == interval[1]:
        return "undecided"
    low, high = interval
    if (above is None or low > above) and (below is None or high < below):
        return "reproduced"
    if (above is not None and high <= above) or (below is not None and low >= below):
        return "not reproduced"
    return "undecided"


def by_seed(
    of: Mapping[str, Any], over: Mapping[str, Any] | None, metric: str, cells: list[Cell]
) -> tuple[list[float], list[float]]:
    """The metric's mean over the cells that have a setting, and over their twins, for each seed that all of them have."""
    rows = []
    for cell in cells:
        if has(cell, of):
            twin = next((other for other in cells if is_twin(other, cell, over)), None) if over else cell
            rows.append((values_of(cell, metric), values_of(twin, metric) if twin else {}))
    seeds = [seed for seed in rows[0][0] if all(seed in side for row in rows for side in row)] if rows else []
    ours, theirs = ([statistics.fmean(row[side][seed] for row in rows) for seed in seeds] for side in (0, 1))
    return ours, theirs


def values_of(cell: Cell, metric: str) -> dict[Any, float]:
    """A metric of its finished runs, by seed."""
    return {run.seed: value for run in cell.runs if (value := run.metric(metric)) is not None}


def has(cell: Cell, setting: Mapping[str, Any]) -> bool:
    """Whether a cell's runs have these values, be they varied or fixed."""
    known = next((run for run in cell.runs if run.config), cell.runs[0])
    values: dict[str, Any] = {**known.config, **known.choices, **cell.setting}
    return all(key in values and canonical(values[key]) == canonical(value) for key, value in setting.items())


def is_twin(other: Cell, cell: Cell, over: Mapping[str, Any]) -> bool:
    """Whether another cell has `over`, and is as this one in all that it does not name."""
    kept = (pair for pair in cell.setting.items() if pair[0] not in over)
    return (
        other is not cell
        and has(other, over)
        and all(canonical(other.setting.get(key)) == canonical(value) for key, value in kept)
    )
