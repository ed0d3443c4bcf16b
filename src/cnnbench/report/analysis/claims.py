"""The claims that an experiment states, checked against the runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cnnbench import stats
from cnnbench.report.analysis.cell import Cell, means_over_shared_seeds, metric_by_seed
from cnnbench.report.analysis.comparisons import Review
from cnnbench.report.load.run import METRIC
from cnnbench.runs.schema import ClaimRecord
from cnnbench.text import Values, canonical_json

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
    metric = claim.metric or METRIC
    bounds = [
        f"{word} {bound:g}" for word, bound in (("above", claim.above), ("below", claim.below)) if bound is not None
    ]
    minus = f" minus that of {_setting_text(claim.over)}" if claim.over else ""
    condition = f"{metric} of {_setting_text(claim.of)}{minus} {' and '.join(bounds)}"
    pairs = with_twins(claim, cells)
    ours, theirs = means_over_shared_seeds(
        [(metric_by_seed(cell.runs, metric), metric_by_seed(twin.runs if twin else [], metric)) for cell, twin in pairs]
    )
    if not bounds:
        return Verdict(claim.says, condition, "undecided", reason="the claim has no bound, neither above nor below")
    if not ours:
        return Verdict(claim.says, condition, "undecided", reason=why_undecided(claim, pairs))
    found = stats.paired(ours, theirs) if claim.over else stats.one_sample(ours)
    outcome = claim_outcome(found.interval, claim.above, claim.below)
    return Verdict(claim.says, condition, outcome, found.point, found.interval, found.n)


def with_twins(claim: ClaimRecord, cells: Sequence[Cell]) -> list[tuple[Cell, Cell | None]]:
    """Each cell with the setting `of` and its twin with the setting `over`, None where it has none.

    A claim without `over` compares no cells: each cell is its own twin.
    """
    return [
        (cell, next((other for other in cells if is_twin(other, cell, claim.over)), None) if claim.over else cell)
        for cell in cells
        if has_setting(cell, claim.of)
    ]


def why_undecided(claim: ClaimRecord, pairs: Sequence[tuple[Cell, Cell | None]]) -> str:
    """Explains why a claim has no numbers, from the pairs of `with_twins`."""
    of, metric = _setting_text(claim.of), claim.metric or METRIC
    if not pairs:
        return f"no setting has {of}"
    if claim.over and not any(twin for _, twin in pairs):
        return f"no setting has {_setting_text(claim.over)} and is otherwise equal to one that has {of}"
    if not any(metric_by_seed(cell.runs, metric) for cell, _ in pairs):
        return f"no run of it has {metric}"
    return f"no seed is done in all {'compared settings' if claim.over else f'settings with {of}'}"


def _setting_text(setting: Values) -> str:
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


def has_setting(cell: Cell, setting: Values) -> bool:
    """Whether a cell's runs have these values, swept or fixed."""
    values = cell.full_setting
    return all(key in values and canonical_json(values[key]) == canonical_json(value) for key, value in setting.items())


def is_twin(other: Cell, cell: Cell, over: Values) -> bool:
    """Whether another cell has the setting `over`, and equals this cell in every swept key that `over` does not name."""
    kept = (pair for pair in cell.setting.items() if pair[0] not in over)
    return (
        other is not cell
        and has_setting(other, over)
        and all(canonical_json(other.setting.get(key)) == canonical_json(value) for key, value in kept)
    )
