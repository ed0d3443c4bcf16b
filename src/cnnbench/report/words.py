"""The answer in sentences, each made from the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from cnnbench.report.review import ALPHA, Cell, Effect, Review, word
from cnnbench.report.stats import Difference, Interval

SETTLE = 0.01  # the difference that one would like to have settled: 1 point
NAMED = 4  # so many of a list are told


def points(value: float) -> str:
    """A difference of accuracies in percentage points: `1.9`, `0.04`."""
    size = round(100 * value, 2)
    return f"{size:.1f}" if abs(size) >= 0.1 or size == 0 else f"{size:.2f}"


def percent(value: float | None) -> str:
    """An accuracy as `0.9812`."""
    return "" if value is None else f"{value:.4f}"


def interval_of(interval: Interval) -> str:
    """`95 % interval 0.7 to 3.1`, in points."""
    return "no interval" if interval is None else f"95 % interval {points(interval[0])} to {points(interval[1])}"


def some(names: Sequence[str], most: int = NAMED) -> str:
    """The first of them, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def plural(number: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def p_value(p: float | None) -> str:
    """`0.012`, `< 0.001`."""
    return "" if p is None else ("< 0.001" if p < 0.001 else f"{p:.3f}")


# ---- the answer ------------------------------------------------------------------------------------------------------


def answer(review: Review) -> list[str]:
    """What the runs show, in a sentence or a few."""
    done = [cell for cell in review.cells if cell.n]
    if not done:
        return [f"Nothing is known yet: none of {plural(len(review.runs.runs), 'run')} is done."]
    if len(review.cells) == 1:
        return [alone(done[0])]
    if review.effects:
        told = [of_effect(effect, review) for effect in review.effects]
        return told + [of_interplays(review)] * bool(review.interplays)
    return of_cells(review)


def alone(cell: Cell) -> str:
    """Of a single cell there is nothing to compare."""
    assert cell.mean is not None
    if cell.interval is None:
        return (
            f"{cell.label} has a test accuracy of {percent(cell.mean)} in one run; how far seeds scatter is not known."
        )
    low, high = cell.interval
    return (
        f"{cell.label} has a test accuracy of {percent(cell.mean)} (95 % interval {percent(low)} to {percent(high)}, "
        f"{plural(cell.n, 'seed')})."
    )


def of_effect(effect: Effect, review: Review) -> str:
    """What a level of a factor does on average over the others."""
    over = f", on average over {' and '.join(key.rpartition('.')[2] for key in effect.others)}"
    return sentence(
        effect.label, word(effect.key, effect.base), effect.difference, effect.p, effect.differences, review, True, over
    )


def of_cells(review: Review) -> list[str]:
    """What each cell does against its baseline; what is certain first, the largest difference first."""
    compared = [cell for cell in review.cells if cell.difference is not None]
    if not compared:
        missing = [cell.label for cell in review.cells if not cell.n]
        why = f"; nothing is done of {some(missing)}" if missing else ""
        return [f"Undecided: no two cells have results that can be compared{why}."]
    certain = [cell for cell in compared if is_certain(cell.difference, cell.p)]
    certain.sort(key=lambda cell: -abs(cell.difference.point if cell.difference else 0))
    rest = [cell for cell in compared if cell not in certain]
    told = [_of_cell(cell, review) for cell in certain[:NAMED]]
    if len(certain) > NAMED:
        told.append(
            f"{plural(len(certain) - NAMED, 'other')} differ by less: {some([cell.label for cell in certain[NAMED:]])}."
        )
    if len(rest) > 2:
        return [*told, undecided(rest, review)]
    return told + [_of_cell(cell, review) for cell in rest]


def _of_cell(cell: Cell, review: Review) -> str:
    assert cell.difference is not None
    base = review.cells[cell.base or 0]
    ours, theirs = apart(cell, base)
    return sentence(ours, theirs, cell.difference, cell.p, differences(cell, base), review, cell.paired)


def apart(cell: Cell, base: Cell) -> tuple[str, str]:
    """Two cells by what they differ in."""
    keys = [key for key in {**cell.setting, **base.setting} if cell.setting.get(key) != base.setting.get(key)]
    return tuple(  # type: ignore[return-value]
        ", ".join(word(key, each.setting[key]) for key in keys if key in each.setting) or each.label
        for each in (cell, base)
    )


def differences(cell: Cell, base: Cell) -> list[float]:
    """By the seeds that both have."""
    return [value - base.values[seed] for seed, value in cell.values.items() if seed in base.values]


def is_certain(difference: Difference | None, p: float | None) -> bool:
    """Whether a claim may be made of it."""
    return difference is not None and p is not None and p < ALPHA


def sentence(
    ours: str,
    theirs: str,
    difference: Difference,
    p: float | None,
    by_seed: Sequence[float],
    review: Review,
    paired: bool,
    over: str = "",
) -> str:
    """`X raises test accuracy by 1.9 points against Y (95 % interval 0.7 to 3.1, 5 paired seeds).`, or that it is undecided."""
    seeds = plural(difference.n, "paired seed") if paired else f"seeds not paired, {difference.n} or more each"
    how = f"{interval_of(difference.interval)}, {seeds}{_corrected(p, review)}"
    size = points(abs(difference.point))
    if is_certain(difference, p):
        verb = "raises" if difference.point > 0 else "lowers"
        return f"{ours} {verb} test accuracy by {size} points against {theirs}{over} ({how})."
    if difference.point == 0 and difference.interval == (0.0, 0.0):
        return f"{ours} and {theirs} come to the same test accuracy{over} ({seeds})."
    more = "more" if difference.point > 0 else "less"
    start = f"Undecided whether {ours} differs from {theirs} in test accuracy{over}: {size} points {more} ({how})"
    return f"{start}; {settled(difference, by_seed, review)}."


def _corrected(p: float | None, review: Review) -> str:
    if p is None:
        return ""
    return (
        f", p {p_value(p)} after Holm over {review.comparisons} comparisons"
        if review.comparisons > 1
        else f", p {p_value(p)}"
    )


def settled(difference: Difference, by_seed: Sequence[float], review: Review) -> str:
    """What it would take to know."""
    interval = difference.interval
    if interval is None:
        if difference.n > 1:
            return "all seeds differ by the same, which a few test images can make by chance: run more seeds"
        return "one seed says nothing of chance: run at least three"
    if max(abs(interval[0]), abs(interval[1])) < SETTLE:
        return "a difference of 1 point is ruled out"
    needed = review.settling(by_seed, SETTLE)
    if needed is None:
        return "run the same seeds in both"
    low, high = needed
    if high == 0:
        return "there are seeds enough to have met a difference of 1 point"
    between = f"between {low:,} and {high:,} more seeds" if low != high else plural(high, "more seed")
    return f"{between} would settle a difference of 1 point"


def undecided(rest: Sequence[Cell], review: Review) -> str:
    """Several comparisons that show nothing, in one sentence."""
    names = some([cell.label for cell in rest])
    needed = []
    for cell in rest:
        if cell.base is not None and (found := review.settling(differences(cell, review.cells[cell.base]), SETTLE)):
            needed.append(found)
    more = ""
    if needed and max(high for _, high in needed):
        low, high = min(low for low, _ in needed), max(high for _, high in needed)
        more = f"; between {low:,} and {high:,} more seeds would settle a difference of 1 point"
    return f"Undecided whether they differ from the baseline: {names}{more}."


def of_interplays(review: Review) -> str:
    """Whether the two factors' effects depend on each other."""
    certain = [each for each in review.interplays if is_certain(each.difference, each.p)]
    if certain:
        each = max(certain, key=lambda each: abs(each.difference.point))
        how = f"{interval_of(each.difference.interval)}{_among(len(review.interplays), each.p)}"
        more = "more" if each.difference.point > 0 else "less"
        return (
            f"It depends: {each.first.label} does {points(abs(each.difference.point))} points {more} at {word(each.key, each.level)} "
            f"than at {word(each.key, each.base)} ({how})."
        )
    widest = max(review.interplays, key=lambda each: abs(each.difference.point))
    return (
        f"Whether the effect of {widest.first.label} depends on {widest.key.rpartition('.')[2]} is undecided: "
        f"{points(widest.difference.point)} points between {word(widest.key, widest.base)} and {word(widest.key, widest.level)} "
        f"({interval_of(widest.difference.interval)})."
    )


def _among(number: int, p: float | None) -> str:
    return f", p {p_value(p)}" + (f" after Holm over {number} comparisons" if number > 1 else "")
