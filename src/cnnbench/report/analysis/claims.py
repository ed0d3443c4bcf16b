"""The claims that an experiment states, checked against the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cnnbench import stats
from cnnbench.report.analysis.cell import METRIC, Cell, means_over_shared_seeds
from cnnbench.report.analysis.comparisons import Review
from cnnbench.runs.schema import ClaimRecord
from cnnbench.text import canonical_json

Outcome = Literal["reproduced", "not reproduced", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """The outcome of a claim.

    Attributes:
        claim: the claim in words.
        condition: the claim as a checked condition.
        outcome: reproduced where the whole interval meets the condition, not reproduced where no part of it does.
        point, interval, n: of the mean, or of the difference paired by seed.
        reason: why there is no number, else empty.
    """

    claim: str
    condition: str
    outcome: Outcome
    point: float | None = None
    interval: stats.Interval = None
    n: int = 0
    reason: str = ""


def judge_claims(review: Review) -> list[Verdict]:
    """Checks all claims of an experiment."""
    return [judge_claim(claim, review.cells) for claim in review.runs.sweep_record.claims]


def judge_claim(claim: ClaimRecord, cells: Sequence[Cell]) -> Verdict:
    """Checks one claim: by seed, the mean over the cells with the setting `of`, minus their twins with the setting `over`."""
    bounds = [
        f"{word} {bound:g}" for word, bound in (("above", claim.above), ("below", claim.below)) if bound is not None
    ]
    minus = f" minus that of {_setting_text(claim.over)}" if claim.over else ""
    condition = f"{metric_of(claim)} of {_setting_text(claim.of)}{minus} {' and '.join(bounds)}"
    ours, theirs = means_by_seed(claim, cells)
    if not bounds:
        return Verdict(claim.says, condition, "undecided", reason="the claim has no bound, neither above nor below")
    if not ours:
        return Verdict(claim.says, condition, "undecided", reason=why_undecided(claim, cells))
    found = stats.paired(ours, theirs) if claim.over else stats.one_sample(ours)
    outcome = claim_outcome(found.interval, claim.above, claim.below)
    return Verdict(claim.says, condition, outcome, found.point, found.interval, len(ours))


def metric_of(claim: ClaimRecord) -> str:
    """The name of the metric that a claim is about: test accuracy, if it names none."""
    return claim.metric or METRIC


def why_undecided(claim: ClaimRecord, cells: Sequence[Cell]) -> str:
    """Explains why a claim has no numbers."""
    ours = [cell for cell in cells if has_setting(cell, claim.of)]
    if not ours:
        return f"no setting has {_setting_text(claim.of)}"
    if claim.over and not any(is_twin(other, cell, claim.over) for cell in ours for other in cells):
        over = _setting_text(claim.over)
        return f"no setting has {over} and is otherwise equal to one that has {_setting_text(claim.of)}"
    if not any(metric_by_seed(cell, metric_of(claim)) for cell in ours):
        return f"no run of it has {metric_of(claim)}"
    compared = "all compared settings" if claim.over else f"all settings with {_setting_text(claim.of)}"
    return f"no seed is done in {compared}"


def _setting_text(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in setting.items())


def claim_outcome(interval: stats.Interval, above: float | None, below: float | None) -> Outcome:
    """Compares an interval with the bounds of a claim; an interval of width 0, from equal runs, is undecided."""
    if interval is None or interval[0] == interval[1]:
        return "undecided"
    low, high = interval
    if (above is None or low > above) and (below is None or high < below):
        return "reproduced"
    if (above is not None and high <= above) or (below is not None and low >= below):
        return "not reproduced"
    return "undecided"


def means_by_seed(claim: ClaimRecord, cells: Sequence[Cell]) -> tuple[list[float], list[float]]:
    """(ours, theirs): the metric's means over the cells with `of` and over their twins, for each seed that all of them have."""
    pairs = []
    for cell in cells:
        if has_setting(cell, claim.of):
            twin = next((other for other in cells if is_twin(other, cell, claim.over)), None) if claim.over else cell
            theirs = metric_by_seed(twin, metric_of(claim)) if twin else {}
            pairs.append((metric_by_seed(cell, metric_of(claim)), theirs))
    return means_over_shared_seeds(pairs)


def metric_by_seed(cell: Cell, metric: str) -> dict[Any, float]:
    """A metric of the cell's finished runs, by seed."""
    return {run.seed: value for run in cell.runs if (value := run.metric(metric)) is not None}


def has_setting(cell: Cell, setting: Mapping[str, Any]) -> bool:
    """Whether a cell's runs have these values, swept or fixed."""
    run = next((run for run in cell.runs if run.config), cell.runs[0])
    values: dict[str, Any] = {**run.config, **run.choices, **cell.setting}
    return all(key in values and canonical_json(values[key]) == canonical_json(value) for key, value in setting.items())


def is_twin(other: Cell, cell: Cell, over: Mapping[str, Any]) -> bool:
    """Whether another cell has the setting `over`, and equals this cell in every swept key that `over` does not name."""
    kept = (pair for pair in cell.setting.items() if pair[0] not in over)
    return (
        other is not cell
        and has_setting(other, over)
        and all(canonical_json(other.setting.get(key)) == canonical_json(value) for key, value in kept)
    )
