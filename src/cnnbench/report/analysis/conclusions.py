"""The answer in sentences, each made from the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from cnnbench.report.analysis.cell import Cell, word
from cnnbench.report.analysis.comparisons import Review
from cnnbench.report.analysis.main_effects import Effect
from cnnbench.report.number_format import NAMED, interval_of, p_value, percent, plural, points, signed
from cnnbench.stats import ALPHA, Difference
from cnnbench.text import some

SETTLE = 0.01  # the difference that one would like to have settled: 1 point


# ---- the answer ------------------------------------------------------------------------------------------------------


def answer(review: Review) -> list[str]:
    """What the runs show, in a sentence or a few."""
    done = [cell for cell in review.cells if cell.n]
    if not done and review.runs.done:
        return [f"Nothing is known: no result of {plural(len(review.runs.done), 'run')} holds a test accuracy."]
    if not done:
        return [f"Nothing is known yet: none of {plural(len(review.runs.runs), 'run')} is done."]
    if len(review.cells) == 1:
        return [alone(done[0])]
    if review.effects:
        return of_effects(review) + ([of_interplays(review)] if review.interplays else [])
    return of_cells(review)


def alone(cell: Cell) -> str:
    """Of a single cell there is nothing to compare."""
    assert cell.mean is not None
    if cell.interval is None:
        runs = "one run" if cell.n == 1 else f"each of {cell.n} runs"
        return (
            f"{cell.label} has a test accuracy of {percent(cell.mean)} in {runs}; how far seeds scatter is not known."
        )
    low, high = cell.interval
    return (
        f"{cell.label} has a test accuracy of {percent(cell.mean)} (95 % interval {percent(low)} to {percent(high)}, "
        f"{plural(cell.n, 'seed')})."
    )


def of_effects(review: Review) -> list[str]:
    """What each level does; what is certain first, the largest difference first."""
    effects = sorted(
        review.effects, key=lambda each: (not is_certain(each.difference, each.p), -abs(each.difference.point))
    )
    certain = [each for each in effects if is_certain(each.difference, each.p)]
    rest = effects[len(certain) :]
    told = [of_effect(each, review) for each in certain[:NAMED]]
    if len(certain) > NAMED:
        told.append(f"{len(certain) - NAMED} more differ, by less: {_seen(certain[NAMED:])}.")
    if len(rest) > 2:
        needed = [review.settling(each.differences, SETTLE) for each in rest]
        return [*told, f"Undecided, on average over the other factors: {_seen(rest)}{_more(needed)}."]
    return told + [of_effect(each, review) for each in rest]


def _seen(compared: Sequence[Effect | Cell]) -> str:
    """What several differences came out as, the largest first, and of how many seeds they are."""
    known = [(each.label, each.difference) for each in compared if each.difference is not None]
    known.sort(key=lambda each: -abs(each[1].point))
    seeds = sorted({difference.n for _, difference in known})
    texts = [
        f"{label} ({signed(found.point)} points{f', {interval_of(found.interval)}' if found.interval else ''})"
        for label, found in known
    ]
    return f"{some(texts)}, {plural(seeds[-1], 'seed')}{' each' if len(seeds) == 1 else ' at most'}"


def _more(needed: Sequence[tuple[int, int] | None]) -> str:
    """How many more seeds would settle all of several differences."""
    known = [pair for pair in needed if pair is not None]
    most = max((low for low, _ in known), default=0), max((high for _, high in known), default=0)
    whole = "" if len(known) == len(needed) else " where several seeds tell how far they scatter"
    return f"; {more_seeds(*most)} would settle a difference of 1 point{whole}" if most[1] else ""


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
        why = f"; no result of {some(missing)}" if missing else ""
        return [f"Undecided: no two cells have results that can be compared{why}."]
    certain = [cell for cell in compared if is_certain(cell.difference, cell.p)]
    certain.sort(key=lambda cell: -abs(cell.difference.point if cell.difference else 0))
    rest = [cell for cell in compared if not is_certain(cell.difference, cell.p)]
    told = [_of_cell(cell, review) for cell in certain[:NAMED]]
    if len(certain) > NAMED:
        others = certain[NAMED:]
        told.append(f"{len(others)} more differ from the baseline, by less: {some([cell.label for cell in others])}.")
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
    seen = f"{size} points {'more' if difference.point > 0 else 'less'}" if size != "0.0" else "no difference seen"
    start = f"Undecided whether {ours} differs from {theirs} in test accuracy{over}: {seen} ({how})"
    return f"{start}; {settled(difference, by_seed, review, paired)}."


def _corrected(p: float | None, review: Review) -> str:
    if p is None:
        return ""
    return (
        f", p {p_value(p)} after Holm over {review.comparisons} comparisons"
        if review.comparisons > 1
        else f", p {p_value(p)}"
    )


def settled(difference: Difference, by_seed: Sequence[float], review: Review, paired: bool = True) -> str:
    """What it would take to know."""
    interval = difference.interval
    if interval is None:
        if difference.n > 1:
            same = "all seeds differ by the same" if paired else "no seed differs from another of its cell"
            return f"{same}, which does not tell how far others scatter: run more seeds"
        if max(cell.n for cell in review.cells) > 1:
            return "only one seed is done in all that is compared: run what is missing"
        return "one seed says nothing of chance: run at least three"
    if max(abs(interval[0]), abs(interval[1])) < SETTLE:
        return "the interval holds no difference as large as 1 point"
    needed = review.settling(by_seed, SETTLE) if paired else None
    if needed is None:
        return "run the same seeds in both"
    if needed[1] == 0:
        return "with as many seeds a true difference of 1 point is found four times in five"
    return f"{more_seeds(*needed)} would settle a difference of 1 point"


def more_seeds(low: int, high: int) -> str:
    """`between 6 and 20 more seeds`, `up to 4 more seeds`, `1 more seed`."""
    if low == high:
        return plural(high, "more seed")
    return f"between {low:,} and {high:,} more seeds" if low else f"up to {plural(high, 'more seed')}"


def undecided(rest: Sequence[Cell], review: Review) -> str:
    """Several comparisons that show nothing, in one sentence: how far they lie apart, and what would settle all of them."""
    needed = [
        review.settling(differences(cell, review.cells[cell.base]), SETTLE)
        if cell.base is not None and cell.paired
        else None
        for cell in rest
    ]
    return f"Undecided whether they differ from the baseline: {_seen(rest)}{_more(needed)}."


def of_interplays(review: Review) -> str:
    """Whether the two factors' effects depend on each other."""
    certain = [each for each in review.interplays if is_certain(each.difference, each.p)]
    if certain:
        each = max(certain, key=lambda each: abs(each.difference.point))
        how = f"{interval_of(each.difference.interval)}{_among(len(review.interplays), each.p)}"
        more = f"{points(abs(each.difference.point))} points {'higher' if each.difference.point > 0 else 'lower'}"
        return (
            f"The factors interact: the effect of {each.first.label} is {more} at {word(each.key, each.level)} "
            f"than at {word(each.key, each.base)} ({how})."
        )
    widest = max(review.interplays, key=lambda each: abs(each.difference.point))
    if widest.difference.interval == (0.0, 0.0):
        seeds = plural(widest.difference.n, "paired seed")
        return f"In these runs the effect of {widest.first.label} is the same at every {widest.key.rpartition('.')[2]} ({seeds})."
    return (
        f"Whether the effect of {widest.first.label} depends on {widest.key.rpartition('.')[2]} is undecided: "
        f"{points(widest.difference.point)} points between {word(widest.key, widest.base)} and {word(widest.key, widest.level)} "
        f"({interval_of(widest.difference.interval)})."
    )


def _among(number: int, p: float | None) -> str:
    return f", p {p_value(p)}" + (f" after Holm over {number} comparisons" if number > 1 else "")
