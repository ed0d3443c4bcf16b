"""The limitations of an answer: missing runs, confounds, the size of the test split. Each is a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from textwrap import shorten
from typing import Any

from cnnbench.report.analysis.cell import METRIC, Cell, level_label
from cnnbench.report.analysis.comparisons import Review
from cnnbench.report.analysis.config_diff import key_of_test_images
from cnnbench.report.analysis.confounds import (
    FACT_LABELS,
    Confounds,
    find_confounds,
    fold_group_choices,
    join_values,
    run_facts,
)
from cnnbench.report.analysis.main_effects import is_full_grid
from cnnbench.report.load.run import Run
from cnnbench.report.number_format import plural, points
from cnnbench.stats import wilson
from cnnbench.text import canonical_json, first_few

TROUBLE = {
    "failed": "failed", "diverged": "diverged", "interrupted": "stopped before the end", "missing": "have no directory",
}  # fmt: skip
WAITING = ("running", "pending")
MAX_LISTED = 4  # keys, or levels of a factor
ENVIRONMENT = {  # attribute of a result -> its name in words, and the key that varies it on purpose
    "code": ("versions of the code", None), "versions": ("sets of package versions", None), "hardware": ("kinds of hardware", None),
    "precision": ("precisions", "precision"), "devices": ("numbers of devices", "trainer.devices"),
}  # fmt: skip


def limitations(review: Review) -> list[str]:
    """Lists all limitations, the most serious first."""
    return [
        *unfinished_runs(review),
        *few_seeds(review),
        *unshared_seeds(review),
        *baseline_limits(review),
        *missing_main_effects(review),
        *(sentence for confounds in factor_confounds(review) for sentence in confound_sentence(confounds)),
        *environment_limits(review),
        *limits_of_test_split(review),
        *excluded_runs(review),
    ]


def unfinished_runs(review: Review) -> Iterator[str]:
    """Runs without a result."""
    runs = review.runs.runs
    for state, did in TROUBLE.items():
        found = [_name_and_reason(run) for run in runs if run.state == state]
        if found:
            yield f"{len(found)} of {plural(len(runs), 'run')} {did}: {first_few(found)}."
    if any(run.state == "diverged" for run in runs):
        yield "A mean counts only finished runs, so it is biased upward for a setting with diverged runs."
    counts = {state: sum(run.state == state for run in runs) for state in WAITING}
    if any(counts.values()):
        states = " and ".join(f"{count} {state}" for state, count in counts.items() if count)
        running = f"; the sweep is still running ({review.runs.launcher})" if review.runs.launcher else ""
        yield f"Incomplete: {states} of {plural(len(runs), 'run')}{running}."


def _name_and_reason(run: Run) -> str:
    if run.state not in ("failed", "diverged") or not run.reason:
        return run.name
    return f"{run.name} ({shorten(run.reason, 120, placeholder=' …')})"


def few_seeds(review: Review) -> Iterator[str]:
    """Settings with one seed, or with fewer seeds than others."""
    most = max((cell.n for cell in review.cells), default=0)
    fewer = [f"{cell.label} has {cell.n}" for cell in review.cells if cell.n < most]
    if most == 1:
        yield (
            "One seed per setting: the variation between seeds is unknown, and no difference can be distinguished from chance."
        )
    elif fewer and min(cell.n for cell in review.cells if cell.n) < most:
        effects = ", a main effect only those that all settings have" if review.effects else ""
        yield (
            f"Not every setting has {most} seeds: {first_few(fewer)}. A difference uses only the seeds that both settings "
            f"have{effects}."
        )


def unshared_seeds(review: Review) -> Iterator[str]:
    """Settings that do not share all seeds with their baseline."""
    partly = [text for cell in review.cells if (text := _unshared(cell, review))]
    if partly:
        yield f"These settings are compared with their baseline only over the seeds that they share: {first_few(partly)}."
    unpaired = [cell.label for cell in review.cells if cell.difference is not None and not cell.paired]
    if unpaired:
        yield f"These settings share too few seeds with their baseline and are compared unpaired (Welch): {first_few(unpaired)}."


def _unshared(cell: Cell, review: Review) -> str:
    """The seeds that a cell and its baseline do not share; empty unless each lacks a seed of the other."""
    if cell.base is None or cell.difference is None or not cell.paired:
        return ""
    ours, theirs = cell.values, review.cells[cell.base].values
    lacking, lacks = (
        first_few([str(seed) for seed in one if seed not in other]) for one, other in ((theirs, ours), (ours, theirs))
    )
    if not lacking or not lacks:
        return ""
    return f"{cell.label} over {cell.difference.n} (it has no seed {lacking}, its baseline no seed {lacks})"


def baseline_limits(review: Review) -> Iterator[str]:
    """A baseline that is not stated or has no result; settings without a baseline."""
    if not review.baseline_stated and sum(cell.n > 0 for cell in review.cells) > 1:
        base = next((review.cells[cell.base].label for cell in review.cells if cell.base is not None), "")
        why = "No baseline is stated"
        if review.runs.sweep_record.baseline:
            exists = any(baseline_setting(cell, review) == cell.setting for cell in review.cells)
            why = f"The stated baseline {'has no result' if exists else 'is not one of the settings'}"
        yield f"{why}; the other settings are compared with the first that has results, {base}."
        return
    alone = [
        cell.label
        for cell in review.cells
        if cell.n and cell.base is None and cell.setting != baseline_setting(cell, review)
    ]
    if alone:
        yield f"Not compared, because no setting has the baseline's values and is otherwise equal: {first_few(alone)}."


def missing_main_effects(review: Review) -> Iterator[str]:
    """A full grid whose cells share too few seeds for main effects."""
    cells = review.cells
    if is_full_grid(cells, review.runs.keys) and not review.effects and any(cell.n for cell in cells):
        shared = set.intersection(*(set(cell.values) for cell in cells))
        number = "Only one" if shared else "No"
        yield f"{number} seed is done in all settings, so main effects are unknown: run the missing seeds."


def baseline_setting(cell: Cell, review: Review) -> dict[str, Any]:
    """The setting that a cell is compared with, whether or not it is among the cells."""
    stated = review.runs.sweep_record.baseline
    return {**cell.setting, **{key: value for key, value in stated.items() if key in review.runs.keys}}


def factor_confounds(review: Review) -> list[Confounds]:
    """Finds the confounds of each factor, in the finished runs if there are any."""
    finished = [run for run in review.runs.done if run.config and run.metric(METRIC) is not None]
    runs = finished or [run for run in review.runs.runs if run.config]
    facts = fold_group_choices([run_facts(run) for run in runs], [run.choices for run in runs], review.runs.keys)
    return find_confounds([run.setting for run in runs], facts, review.runs.keys)


def confound_sentence(confounds: Confounds) -> Iterator[str]:
    """Names what else differs between the levels of a factor, if anything does."""
    facts = [name for name in confounds.differing if name in FACT_LABELS]
    keys = [name for name in confounds.differing if name not in FACT_LABELS]

    def text(name: str) -> str:
        return f"{FACT_LABELS.get(name, name)} ({' / '.join(map(join_values, confounds.differing[name]))})"

    if len(keys) > MAX_LISTED:
        differing = [*map(text, facts), f"{len(keys)} other keys, such as {keys[0]} and {keys[1]}"]
    else:
        differing = [*map(text, facts), *map(text, keys)]
    if differing:
        levels = " / ".join(level_label(confounds.key, level) for level in confounds.levels[:MAX_LISTED])
        more = " / ..." if len(confounds.levels) > MAX_LISTED else ""
        factor = confounds.key.rpartition(".")[2]
        yield f"The variants of {factor} ({levels}{more}) also differ in: {'; '.join(differing)}."


def environment_limits(review: Review) -> Iterator[str]:
    """Runs with other code, versions, hardware or number formats than the other runs."""
    for attribute, (words, key) in ENVIRONMENT.items():
        finished = [run for run in review.runs.done if run.metric(METRIC) is not None]
        found = {run.name: canonical_json(value) for run in finished if (value := _environment(run, attribute))}
        counts = Counter(found.values())
        if len(counts) > 1 and key not in review.runs.keys:
            ((most, count),) = counts.most_common(1)
            others = first_few([name for name, value in found.items() if value != most])
            yield f"The runs were computed with {len(counts)} {words}: {count} with one, the others are {others}."


def _environment(run: Run, attribute: str) -> Any:
    """An attribute of a run's result; of the hardware only what changes numbers."""
    value = getattr(run.result, attribute)
    return {part: value.get(part) for part in ("cpu", "gpus", "system")} if attribute == "hardware" and value else value


def limits_of_test_split(review: Review) -> Iterator[str]:
    """The number of test images, and how often they were read."""
    done = review.runs.done
    if not done:
        return
    sizes = {size for run in done if run.result and isinstance(size := run.result.n.get("test"), int) and size > 0}
    test_sets = {key_of_test_images(run) for run in done if run.config}
    if len(sizes) > 1 or len(test_sets) > 1:
        yield "The runs were tested on different images, so their differences include the difference between the images."
    best = max((cell.mean for cell in review.cells if cell.mean is not None), default=None)
    if len(sizes) == 1 and best is not None:
        (size,) = sizes
        _, (low, high) = wilson(round(best * size), size)
        yield (
            f"The test split has {size:,} images; one image is {points(1 / size)} points. The intervals describe the variation "
            f"between seeds on these images; on other images of the same kind, an accuracy of {best:.4f} is uncertain by about "
            f"±{points((high - low) / 2)} points."
        )
    yield _test_reads_sentence(review)


def _test_reads_sentence(review: Review) -> str:
    """How often the test split was read, and the bias of selecting the best setting on it."""
    runs = review.runs
    repeated = len(runs.repetitions) + sum(run.done for run in runs.duplicates)
    evaluated = sum(map(count_test_reads, (*runs.done, *runs.duplicates)))
    parts = [
        f"{count} of them by {what}" for count, what in ((repeated, "repeated runs"), (evaluated, "evaluate")) if count
    ]
    how = f", {' and '.join(parts)}" if parts else ", once per run"
    known = sum(cell.n > 0 for cell in review.cells)
    bias = f"; selecting the best of {known} settings on test is biased upward" if known > 1 else ""
    return f"The test split was read {plural(len(runs.done) + repeated + evaluated, 'time')}{how}{bias}."


def count_test_reads(run: Run) -> int:
    """Counts how often `evaluate` scored the test images of a run after its end."""
    try:
        return len(run.directory.test_reads.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return 0


def excluded_runs(review: Review) -> Iterator[str]:
    """Runs and files that do not count."""
    runs = review.runs
    no_accuracy = [run.name for run in runs.done if run.metric(METRIC) is None]
    if runs.duplicates:
        names = [run.name for run in runs.duplicates]
        yield f"Excluded, because another run has the same setting and seed: {first_few(names)}."
    if runs.unlisted:
        yield f"Excluded, because the sweep does not list them: {first_few(runs.unlisted)}."
    if no_accuracy:
        yield f"Excluded, because their results have no test accuracy: {first_few(no_accuracy)}."
    if runs.problems:
        yield f"{plural(len(runs.problems), 'file')} could not be read: {first_few(runs.problems)}."
