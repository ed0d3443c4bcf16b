"""What limits an answer: what is missing, what else differs, what the test images are good for. Each limit is a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from textwrap import shorten
from typing import Any

from cnnbench.report.analysis.cell import METRIC, Cell, word
from cnnbench.report.analysis.comparisons import Review
from cnnbench.report.analysis.config_diff import tested
from cnnbench.report.analysis.confounds import FACTS, Arms, confounds, facts, folded, several
from cnnbench.report.analysis.main_effects import whole_grid
from cnnbench.report.load.run import Run
from cnnbench.report.number_format import plural, points
from cnnbench.stats import wilson
from cnnbench.text import canonical, some

TROUBLE = {
    "failed": "failed", "diverged": "diverged", "interrupted": "stopped before the end", "missing": "left no directory",
}  # fmt: skip
WAITING = ("running", "pending")
LISTED = 4  # keys, or levels of a factor


MADE_WITH = {  # of result.json, and the key that varies it on purpose
    "versions of the code": ("code", None), "sets of package versions": ("versions", None), "kinds of hardware": ("hardware", None),
    "precisions": ("precision", "precision"), "numbers of devices": ("devices", "trainer.devices"),
}  # fmt: skip


def limits(review: Review) -> list[str]:
    """All of them, the gravest first."""
    return [
        *unfinished(review),
        *unequal(review),
        *(told for arms in other_differences(review) for told in confounded(arms)),
        *made_otherwise(review),
        *of_test(review),
        *left_out(review),
    ]


def unfinished(review: Review) -> Iterator[str]:
    """Runs without a result."""
    runs = review.runs.runs
    for state, did in TROUBLE.items():
        found = [run for run in runs if run.state == state]
        if found:
            yield f"{len(found)} of {plural(len(runs), 'run')} {did}: {some([_with_reason(run) for run in found])}."
    if any(run.state == "diverged" for run in runs):
        yield "A mean is of the runs that ended, which flatters a setting of which others diverged."
    waiting = [run for run in runs if run.state in WAITING]
    if waiting:
        states = " and ".join(
            f"{count} {state}" for state in WAITING if (count := sum(run.state == state for run in waiting))
        )
        on = f"; the sweep is on ({review.runs.launcher})" if review.runs.launcher else ""
        yield f"Not all is there yet: {states} of {plural(len(runs), 'run')}{on}."


def _with_reason(run: Run) -> str:
    told = run.state in ("failed", "diverged") and run.reason
    return f"{run.name} ({shorten(run.reason or '', 120, placeholder=' …')})" if told else run.name


def unequal(review: Review) -> Iterator[str]:
    """Cells with other seeds than their baseline."""
    counts = [cell.n for cell in review.cells if cell.n]
    if counts and max(counts) == 1:
        yield "One seed a cell: how far seeds scatter is not known, and no difference can be told from chance."
    elif counts and min(counts) < max(counts):
        few = [f"{cell.label} has {cell.n}" for cell in review.cells if cell.n < max(counts)]
        main = ", a main effect those that all have" if review.effects else ""
        yield f"Not every cell has {max(counts)} seeds: {some(few)}. A difference uses the seeds that both cells have{main}."
    partly = [told for cell in review.cells if (told := _partly(cell, review.cells))]
    if partly:
        yield f"These are compared by the seeds that they share with their baseline: {some(partly)}."
    unpaired = [cell.label for cell in review.cells if cell.difference is not None and not cell.paired]
    if unpaired:
        yield f"These share too few seeds with their baseline and are compared unpaired (Welch): {some(unpaired)}."
    if not review.stated and sum(cell.n > 0 for cell in review.cells) > 1:
        base = next((review.cells[cell.base].label for cell in review.cells if cell.base is not None), "")
        why = "No baseline was stated"
        if review.runs.asked.get("baseline"):
            there = any(baseline_of(cell, review) == cell.setting for cell in review.cells)
            why = f"The stated baseline {'has no result' if there else 'is none of the cells'}"
        yield f"{why}; the others are compared with the first that has results, {base}."
    else:
        alone = [
            cell.label
            for cell in review.cells
            if cell.n and cell.base is None and cell.setting != baseline_of(cell, review)
        ]
        if alone:
            yield f"Compared with nothing, as there is no such cell with the baseline's values: {some(alone)}."
    if whole_grid(review.cells, review.runs.keys) and not review.effects and any(counts):
        shared = set.intersection(*(set(cell.values) for cell in review.cells))
        yield f"{'Only one' if shared else 'No'} seed is done in all cells, so main effects are not known: run what is missing."


def baseline_of(cell: Cell, review: Review) -> dict[str, Any]:
    """The setting of the cell that one is compared with, be it there or not."""
    stated = review.runs.asked.get("baseline") or {}
    return {**cell.setting, **{key: value for key, value in stated.items() if key in review.runs.keys}}


def _partly(cell: Cell, cells: Sequence[Cell]) -> str:
    """Which seeds a cell and its baseline do not share, where both have some of their own."""
    if cell.base is None or cell.difference is None or not cell.paired:
        return ""
    ours, theirs = cell.values, cells[cell.base].values
    lacking, lacks = (
        some([str(seed) for seed in one if seed not in other]) for one, other in ((theirs, ours), (ours, theirs))
    )
    if not lacking or not lacks:
        return ""
    return f"{cell.label} by {cell.difference.n} (it has no seed {lacking}, its baseline no {lacks})"


def other_differences(review: Review) -> list[Arms]:
    """The factors, with what else differs between their arms."""
    runs = [run for run in review.runs.done if run.config and run.metric(METRIC) is not None] or [
        run for run in review.runs.runs if run.config
    ]
    own = folded([facts(run) for run in runs], [run.choices for run in runs], review.runs.keys)
    return confounds([run.setting for run in runs], own, review.runs.keys)


def confounded(arms: Arms) -> Iterator[str]:
    """What else differs between a factor's arms."""
    besides = {name: values for name, values in arms.differing.items() if name in FACTS}
    rest = [name for name in arms.differing if name not in FACTS]
    told = [f"{FACTS[name]} ({' / '.join(map(several, values))})" for name, values in besides.items()]
    if len(rest) > LISTED:
        told.append(f"{len(rest)} other keys, such as {rest[0]} and {rest[1]}")
    else:
        told += [f"{name} ({' / '.join(map(several, arms.differing[name]))})" for name in rest]
    if told:
        names = " / ".join(word(arms.key, level) for level in arms.levels[:LISTED])
        more = " / ..." if len(arms.levels) > LISTED else ""
        yield f"The arms of {arms.key.rpartition('.')[2]} ({names}{more}) differ in more than that: {'; '.join(told)}."


def made_otherwise(review: Review) -> Iterator[str]:
    """Runs of other code, versions, machines or number formats than the others."""
    for what, (name, key) in MADE_WITH.items():
        groups: dict[str, list[str]] = {}
        done = [run for run in review.runs.done if run.metric(METRIC) is not None and _made_with(run, name) is not None]
        for run in done:
            groups.setdefault(canonical(_made_with(run, name)), []).append(run.name)
        if len(groups) > 1 and key not in review.runs.keys:
            most = max(groups.values(), key=len)
            others = [run.name for run in done if run.name not in most]
            yield f"The runs were made with {len(groups)} {what}: {len(most)} with one, the others are {some(others)}."


def _made_with(run: Run, name: str) -> Any:
    made = (run.result or {}).get(name)
    if name == "hardware" and isinstance(made, dict):
        return {part: made.get(part) for part in ("cpu", "gpus", "system")}
    return made


def of_test(review: Review) -> Iterator[str]:
    """How many images decide, and how often they were looked at."""
    done = review.runs.done
    if not done:
        return
    sizes = {size for run in done if isinstance(size := (run.result or {}).get("n", {}).get("test"), int) and size > 0}
    images = {tested(run) for run in done if run.config}
    if len(sizes) > 1 or len(images) > 1:
        yield "The runs were not tested on the same images; their differences include that of the images."
    best = max((cell.mean for cell in review.cells if cell.mean is not None), default=None)
    if len(sizes) == 1 and best is not None:
        (size,) = sizes
        _, (low, high) = wilson(round(best * size), size)
        half = points((high - low) / 2)
        yield (
            f"Test has {size:,} images, one of which is {points(1 / size)} points. The intervals say how far other seeds would scatter on "
            f"these images; for other images of the kind an accuracy of {best:.4f} is known to about ±{half} points."
        )
    again = len(review.runs.again) + sum(run.done for run in review.runs.twice)
    evaluated = sum(map(test_reads, (*done, *review.runs.twice)))
    reads = len(done) + again + evaluated
    parts = [f"{again} of them by runs of the same"] * bool(again) + [f"{evaluated} of them by evaluate"] * bool(
        evaluated
    )
    besides = f", {' and '.join(parts)}" if parts else ", once a run"
    known = sum(cell.n > 0 for cell in review.cells)
    best_of = f"; chosen by it, the best of {known} cells looks better than it is" if known > 1 else ""
    yield f"Test was read {plural(reads, 'time')}{besides}{best_of}."


def test_reads(run: Run) -> int:
    """How often the test images of a run were scored after its end."""
    try:
        return len(run.directory.test_reads.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return 0


def left_out(review: Review) -> Iterator[str]:
    """What lies there and does not count."""
    runs = review.runs
    if runs.twice:
        yield f"Left out, as another run has the same setting and seed: {some([run.name for run in runs.twice])}."
    if runs.unlisted:
        yield f"Left out, as the sweep does not list them: {some(runs.unlisted)}."
    bare = [run.name for run in runs.done if run.metric(METRIC) is None]
    if bare:
        yield f"Left out, as their results hold no test accuracy: {some(bare)}."
    yield from _broken(runs.problems)


def _broken(problems: Iterable[str]) -> Iterator[str]:
    listed = list(problems)
    if listed:
        yield f"{plural(len(listed), 'file')} could not be read: {some(listed)}."
