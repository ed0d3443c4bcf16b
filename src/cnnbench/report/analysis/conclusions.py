"""Makes the sentences of the answer. Each states one comparison, and claims a difference only where its p value is significant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnnbench.report.analysis.cell import Cell, SeedDifference, is_significant, setting_label
from cnnbench.report.analysis.comparisons import TARGET_DIFFERENCE, Review
from cnnbench.report.analysis.main_effects import Effect
from cnnbench.report.number_format import (
    accuracy_text,
    higher_or_lower,
    interval_text,
    p_value,
    plural,
    points,
    signed_points,
)
from cnnbench.text import first_few

MAX_NAMED = 4  # significant differences that have a sentence each


@dataclass(frozen=True)
class Comparison:
    """A comparison of two settings or variants that becomes a sentence.

    Attributes:
        label: name of our side in a list.
        ours, theirs: names of the two sides in a sentence.
        difference: ours minus theirs.
        p: corrected p value.
        average_over: the clause `, on average over lr` of a main effect, else empty.
    """

    label: str
    ours: str
    theirs: str
    difference: SeedDifference
    p: float | None
    average_over: str = ""


# ---- the answer ------------------------------------------------------------------------------------------------------


def answer(review: Review) -> list[str]:
    """Answers the question of the experiment in one or several sentences."""
    if not review.known_cells and review.runs.done:
        return [f"Nothing is known: no result of {plural(len(review.runs.done), 'run')} has a test accuracy."]
    if not review.known_cells:
        return [f"Nothing is known yet: none of {plural(len(review.runs.runs), 'run')} is done."]
    if len(review.cells) == 1:
        return [single_cell_sentence(review.cells[0])]
    if review.effects:
        effects = [effect_comparison(effect) for effect in review.effects]
        sentences = comparison_sentences(
            effects, review, "{} more variants differ, by less", "Undecided, on average over the other factors"
        )
        return sentences + ([interaction_sentence(review)] if review.interactions else [])
    return cell_sentences(review)


def single_cell_sentence(cell: Cell) -> str:
    """Describes the accuracy of the only cell."""
    start = f"{cell.label} has a test accuracy of {accuracy_text(cell.mean)}"
    if cell.interval is None:
        runs = "one run" if cell.n == 1 else f"each of {cell.n} runs"
        return f"{start} in {runs}; the variation between seeds is unknown."
    low, high = map(accuracy_text, cell.interval)
    return f"{start} (95 % interval {low} to {high}, {plural(cell.n, 'seed')})."


def cell_sentences(review: Review) -> list[str]:
    """Compares each cell with its baseline."""
    compared = [comparison for cell in review.cells if (comparison := cell_comparison(cell, review))]
    if not compared:
        missing = [cell.label for cell in review.cells if not cell.n]
        why = f"; no result of {first_few(missing)}" if missing else ""
        return [f"Undecided: no two settings have results that can be compared{why}."]
    return comparison_sentences(
        compared,
        review,
        "{} more settings differ from the baseline, by less",
        "Undecided whether they differ from the baseline",
    )


def comparison_sentences(
    comparisons: Sequence[Comparison], review: Review, more_differ: str, undecided: str
) -> list[str]:
    """One sentence per comparison: significant ones first, the largest difference first; long lists share a sentence.

    Args:
        comparisons: all comparisons of the answer.
        review: the findings that they are part of.
        more_differ: start of the sentence about further significant differences; `{}` is their number.
        undecided: start of the sentence about more than two comparisons that are not significant.
    """
    ordered = sorted(comparisons, key=lambda each: abs(each.difference.point), reverse=True)
    significant = [each for each in ordered if is_significant(each.p)]
    rest = [each for each in ordered if not is_significant(each.p)]
    sentences = [comparison_sentence(each, review) for each in significant[:MAX_NAMED]]
    if further := significant[MAX_NAMED:]:
        sentences.append(f"{more_differ.format(len(further))}: {_sizes(further)}.")
    if len(rest) > 2:
        return [*sentences, f"{undecided}: {_sizes(rest)}{_seeds_for_all(rest, review)}."]
    return sentences + [comparison_sentence(each, review) for each in rest]


def effect_comparison(effect: Effect) -> Comparison:
    """A main effect as a comparison of two levels."""
    others = " and ".join(key.rpartition(".")[2] for key in effect.others)
    average_over = f", on average over {others}"
    return Comparison(effect.label, effect.label, effect.base_label, effect.difference, effect.p, average_over)


def cell_comparison(cell: Cell, review: Review) -> Comparison | None:
    """A cell as a comparison with its baseline, named by the keys in which they differ; None where it is not compared."""
    if cell.difference is None or cell.base is None:
        return None
    base = review.cells[cell.base]
    keys = [key for key in {**cell.setting, **base.setting} if cell.setting.get(key) != base.setting.get(key)]

    def name(each: Cell) -> str:
        return setting_label({key: each.setting[key] for key in keys if key in each.setting}) or each.label

    return Comparison(cell.label, name(cell), name(base), cell.difference, cell.p)


# ---- one sentence ----------------------------------------------------------------------------------------------------


def comparison_sentence(each: Comparison, review: Review) -> str:
    """`X raises test accuracy by 1.9 points against Y (95 % interval 0.7 to 3.1, 5 paired seeds).`, or that it is undecided."""
    difference = each.difference
    seeds = plural(difference.n, "paired seed") if difference.paired else f"unpaired, {difference.n} or more seeds each"
    how = f"{interval_text(difference.interval)}, {seeds}{_p_text(each.p, review.number_of_comparisons)}"
    size = points(abs(difference.point))
    if is_significant(each.p):
        verb = "raises" if difference.point > 0 else "lowers"
        return f"{each.ours} {verb} test accuracy by {size} points against {each.theirs}{each.average_over} ({how})."
    if difference.point == 0 and difference.interval == (0.0, 0.0):
        return f"{each.ours} and {each.theirs} have the same test accuracy{each.average_over} ({seeds})."
    seen = "no difference observed" if size == "0.0" else higher_or_lower(difference.point)
    return (
        f"Undecided whether {each.ours} differs from {each.theirs} in test accuracy{each.average_over}: {seen} ({how}); "
        f"{seeds_needed_text(each, review)}."
    )


def _p_text(p: float | None, comparisons: int) -> str:
    """`, p 0.012 after Holm over 3 comparisons`; empty without p."""
    if p is None:
        return ""
    return f", p {p_value(p)}" + (f" after Holm over {comparisons} comparisons" if comparisons > 1 else "")


def seeds_needed_text(each: Comparison, review: Review) -> str:
    """Explains which runs would decide a comparison."""
    interval, n = each.difference.interval, each.difference.n
    if interval is None and n > 1:
        equal = "all seeds differ by the same amount" if each.difference.paired else "all seeds of a setting are equal"
        return f"{equal}, so the variation between seeds is unknown: run more seeds"
    if interval is None:
        if max(cell.n for cell in review.cells) > 1:
            return "only one seed is done in all compared settings: run the missing seeds"
        return "one seed cannot show the variation between seeds: run at least three"
    if max(abs(interval[0]), abs(interval[1])) < TARGET_DIFFERENCE:
        return "the interval excludes a difference of 1 point"
    needed = review.seeds_needed(each.difference.by_seed)
    if needed is None:
        return "run the same seeds in both"
    if needed[1] == 0:
        return "with this number of seeds, a true difference of 1 point is found with probability 0.8"
    return f"{more_seeds(*needed)} would detect a difference of 1 point"


def more_seeds(low: int, high: int) -> str:
    """`between 6 and 20 more seeds`, `up to 4 more seeds`, `1 more seed`."""
    if low == high:
        return plural(high, "more seed")
    return f"between {low:,} and {high:,} more seeds" if low else f"up to {plural(high, 'more seed')}"


# ---- several comparisons in one sentence -----------------------------------------------------------------------------


def _sizes(comparisons: Sequence[Comparison]) -> str:
    """The differences with their intervals, the largest first, and the number of seeds."""
    seeds = sorted({each.difference.n for each in comparisons})

    def size(each: Comparison) -> str:
        interval = f", {interval_text(each.difference.interval)}" if each.difference.interval else ""
        return f"{each.label} ({signed_points(each.difference.point)} points{interval})"

    return f"{first_few(list(map(size, comparisons)))}, {plural(seeds[-1], 'seed')}{' each' if len(seeds) == 1 else ' at most'}"


def _seeds_for_all(comparisons: Sequence[Comparison], review: Review) -> str:
    """How many more seeds would decide each of several comparisons; empty where none is needed or known."""
    known = [needed for each in comparisons if (needed := review.seeds_needed(each.difference.by_seed))]
    low, high = map(max, zip((0, 0), *known, strict=True))
    where = "" if len(known) == len(comparisons) else " where the variation between seeds is known"
    return f"; {more_seeds(low, high)} would detect a difference of 1 point{where}" if high else ""


# ---- interactions ----------------------------------------------------------------------------------------------------


def interaction_sentence(review: Review) -> str:
    """States whether the effects of the two factors depend on each other."""
    significant = [each for each in review.interactions if is_significant(each.p)]
    each = max(significant or review.interactions, key=lambda each: abs(each.difference.point))
    difference, effect, factor = each.difference, each.first.label, each.second.key.rpartition(".")[2]
    level, base = each.second.label, each.second.base_label
    if significant:
        how = f"{interval_text(difference.interval)}{_p_text(each.p, len(review.interactions))}"
        size = higher_or_lower(difference.point)
        return f"The factors interact: the effect of {effect} is {size} at {level} than at {base} ({how})."
    if difference.interval == (0.0, 0.0):
        return f"In these runs the effect of {effect} is the same at every {factor} ({plural(difference.n, 'paired seed')})."
    return (
        f"Undecided whether the effect of {effect} depends on {factor}: {points(difference.point)} points between {base} and "
        f"{level} ({interval_text(difference.interval)})."
    )
