"""The limitations of an answer: missing runs, confounds, the size of the test split. Each is a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from textwrap import shorten
from typing import Any

from cnnbench.errors import PROGRAM
from cnnbench.files import read_text
from cnnbench.report.analysis.cell import level_label
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
from cnnbench.runs.liveness import NOT_VERIFIED
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
    finders = (
        unfinished_runs, few_seeds, unshared_seeds, baseline_limits, missing_main_effects, confound_sentences,
        environment_limits, size_of_test_split, reads_of_test_split, excluded_runs,
    )  # fmt: skip
    return [sentence for finder in finders for sentence in finder(review)]


def unfinished_runs(review: Review) -> Iterator[str]:
    """Runs without a result."""
    runs = review.runs.runs
    counts, total = Counter(run.state for run in runs), plural(len(runs), "run")
    for state, did in TROUBLE.items():
        if counts[state]:
            found = [_name_and_reason(run) for run in runs if run.state == state]
            yield f"{counts[state]} of {total} {did}: {first_few(found)}."
    if counts["diverged"]:
        yield "A mean counts only finished runs, so it is biased upward for a setting with diverged runs."
    waiting = [f"{counts[state]} {state}" for state in WAITING if counts[state]]
    if waiting:
        running = f"; the sweep is still running ({review.runs.launcher})" if review.runs.launcher else ""
        others = ""
        if awaited := len(review.runs.awaited):
            part = f"part {review.runs.sweep_record.part}, which runs here"
            others = f"; {awaited} of them are not in {part}: {PROGRAM} merge adds the others"
        yield f"Incomplete: {' and '.join(waiting)} of {total}{others}{running}."


def _name_and_reason(run: Run) -> str:
    reason = run.reason or ""
    if not reason or (run.state not in ("failed", "diverged") and NOT_VERIFIED not in reason):
        return run.name
    return f"{run.name} ({shorten(reason, 120, placeholder=' …')})"


def few_seeds(review: Review) -> Iterator[str]:
    """Settings with one seed, or with fewer seeds than others."""
    most = max(cell.n for cell in review.cells)
    fewer = [f"{cell.label} has {cell.n}" for cell in review.cells if cell.n < most]
    if most == 1:
        yield (
            "One seed per setting: the variation between seeds is unknown, and no difference can be distinguished from chance."
        )
    elif any(cell.n < most for cell in review.known_cells):
        effects = ", a main effect only those that all settings have" if review.effects else ""
        yield (
            f"Not every setting has {most} seeds: {first_few(fewer)}. A difference uses only the seeds that both settings "
            f"have{effects}."
        )


def unshared_seeds(review: Review) -> Iterator[str]:
    """Settings that do not share all seeds with their baseline: each lacks a seed of the other, or they are not paired."""
    partly = []
    for cell in review.cells:
        if cell.base is not None and cell.difference and cell.difference.paired:
            ours, theirs = cell.values, review.cells[cell.base].values
            lacking = first_few([str(seed) for seed in theirs if seed not in ours])
            lacks = first_few([str(seed) for seed in ours if seed not in theirs])
            if lacking and lacks:
                missing = f"it has no seed {lacking}, its baseline no seed {lacks}"
                partly.append(f"{cell.label} over {cell.difference.n} ({missing})")
    if partly:
        yield f"These settings are compared with their baseline only over the seeds that they share: {first_few(partly)}."
    unpaired = [cell.label for cell in review.cells if cell.difference and not cell.difference.paired]
    if unpaired:
        yield f"These settings share too few seeds with their baseline and are compared unpaired (Welch): {first_few(unpaired)}."


def baseline_limits(review: Review) -> Iterator[str]:
    """A baseline that is not stated or has no result; settings without a baseline."""
    stated = review.runs.baseline.items()
    if not review.baseline_stated and len(review.known_cells) > 1:
        why = "No baseline is stated"
        if review.runs.sweep_record.baseline:
            exists = any(stated <= cell.setting.items() for cell in review.cells)
            why = f"The stated baseline {'has no result' if exists else 'is not one of the settings'}"
        yield f"{why}; the other settings are compared with the first that has results, {review.known_cells[0].label}."
        return
    alone = [cell.label for cell in review.known_cells if cell.base is None and not stated <= cell.setting.items()]
    if alone:
        yield f"Not compared, because no setting has the baseline's values and is otherwise equal: {first_few(alone)}."


def missing_main_effects(review: Review) -> Iterator[str]:
    """A full grid whose cells share too few seeds for main effects."""
    cells = review.cells
    if is_full_grid(cells, review.runs.keys) and not review.effects and review.known_cells:
        shared = set.intersection(*(set(cell.values) for cell in cells))
        number = "Only one" if shared else "No"
        yield f"{number} seed is done in all settings, so main effects are unknown: run the missing seeds."


def confound_sentences(review: Review) -> Iterator[str]:
    """What else differs between the levels of a factor, in the finished runs if there are any."""
    keys = review.runs.keys
    runs = [run for run in review.runs.scored if run.config] or [run for run in review.runs.runs if run.config]
    facts = fold_group_choices([run_facts(run) for run in runs], [run.choices for run in runs], keys)
    for confounds in find_confounds([run.setting for run in runs], facts, keys):
        if confounds.differing:
            levels = " / ".join(level_label(confounds.key, level) for level in confounds.levels[:MAX_LISTED])
            more = " / ..." if len(confounds.levels) > MAX_LISTED else ""
            yield f"The variants of {confounds.key.rpartition('.')[2]} ({levels}{more}) also differ in: {_differing(confounds)}."


def _differing(confounds: Confounds) -> str:
    """The facts and the keys that differ, with their values in each level; of many keys, only their number."""
    found = confounds.differing
    facts, keys = [name for name in found if name in FACT_LABELS], [name for name in found if name not in FACT_LABELS]
    texts = [f"{FACT_LABELS.get(name, name)} ({' / '.join(map(join_values, found[name]))})" for name in (*facts, *keys)]
    if len(keys) > MAX_LISTED:
        texts[len(facts) :] = [f"{len(keys)} other keys, such as {keys[0]} and {keys[1]}"]
    return "; ".join(texts)


def environment_limits(review: Review) -> Iterator[str]:
    """Runs with other code, versions, hardware or number formats than the other runs."""
    for attribute, (words, key) in ENVIRONMENT.items():
        runs = review.runs.scored
        found = {run.name: canonical_json(value) for run in runs if (value := _environment(run, attribute))}
        counts = Counter(found.values())
        if len(counts) > 1 and key not in review.runs.keys:
            ((most, count),) = counts.most_common(1)
            others = first_few([name for name, value in found.items() if value != most])
            yield f"The runs were computed with {len(counts)} {words}: {count} with one, the others are {others}."


def _environment(run: Run, attribute: str) -> Any:
    """An attribute of a run's result; of the hardware only what changes numbers."""
    value = getattr(run.result, attribute)
    return {part: value.get(part) for part in ("cpu", "gpus", "system")} if attribute == "hardware" and value else value


def size_of_test_split(review: Review) -> Iterator[str]:
    """The number of test images, and what the intervals imply for other images."""
    done = review.runs.done
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


def reads_of_test_split(review: Review) -> Iterator[str]:
    """How often the test split was read, and the bias of selecting the best setting on it."""
    runs = review.runs
    if not runs.done:
        return
    repeated = len(runs.repetitions) + sum(run.done for run in runs.duplicates)
    evaluated = sum(map(count_test_reads, (*runs.done, *runs.duplicates)))
    parts = [
        f"{count} of them by {what}" for count, what in ((repeated, "repeated runs"), (evaluated, "evaluate")) if count
    ]
    how = f", {' and '.join(parts)}" if parts else ", once per run"
    known = len(review.known_cells)
    bias = f"; selecting the best of {known} settings on test is biased upward" if known > 1 else ""
    yield f"The test split was read {plural(len(runs.done) + repeated + evaluated, 'time')}{how}{bias}."


def count_test_reads(run: Run) -> int:
    """Counts how often `evaluate` scored the test images of a run after its end."""
    try:
        return len(read_text(run.directory.test_reads).splitlines())
    except (OSError, ValueError):
        return 0


def excluded_runs(review: Review) -> Iterator[str]:
    """Runs and files that do not count."""
    runs = review.runs
    reasons = {
        "another run has the same setting and seed": [run.name for run in runs.duplicates],
        "the sweep does not list them": runs.unlisted,
        "their results have no test accuracy": [run.name for run in runs.done if run.accuracy is None],
    }
    for why, names in reasons.items():
        if names:
            yield f"Excluded, because {why}: {first_few(names)}."
    if runs.problems:
        yield f"{plural(len(runs.problems), 'file')} could not be read: {first_few(runs.problems)}."
