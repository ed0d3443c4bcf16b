"""Differences between two groups of runs apart from their numbers: config, code, packages, machine, images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cnnbench.report.load.run import GROUPS, NON_CELL_KEYS, Run
from cnnbench.runs.schema import Result
from cnnbench.text import canonical_json, first_few, to_override

ABSENT = "absent"
NOT_COMPARED = (*NON_CELL_KEYS, "seed", "precision", "data.fingerprint")  # compared by results, or meant to differ
NOT_TEST_KEYS = tuple(  # keys of the data that leave the test images as they are
    f"data.{key}"
    for key in (
        "root", "pipeline", "image_size", "mean", "std", "train_size", "val_size", "fraction", "label_noise", "split_seed",
    )
)  # fmt: skip


def run_differences(
    pairs: Sequence[tuple[str, Run, Run]], before: Sequence[Run], after: Sequence[Run]
) -> dict[str, list[str]]:
    """Lists the differences by kind, each as `epochs 5 → 10`; an empty list means no difference.

    Args:
        pairs: matched cells: label, a run before, a run after.
        before: all runs before.
        after: all runs after.
    """
    results = [[run.result for run in runs if run.result] for runs in (before, after)]
    return {
        "config": config_differences(
            [(label, comparable_config(one), comparable_config(other)) for label, one, other in pairs]
        ),
        **(environment_differences(*results) if all(results) else {}),
        "images": image_differences(pairs),
    }


def comparable_config(run: Run) -> dict[str, Any]:
    """A run's config by dotted keys, with the chosen options of its groups, without keys that are not compared."""
    choices = {group: run.choices[group] for group in GROUPS if group in run.choices and group != "recipe"}
    return {**choices, **{key: value for key, value in run.config.items() if key not in NOT_COMPARED}}


def config_differences(pairs: Sequence[tuple[str, dict[str, Any], dict[str, Any]]]) -> list[str]:
    """Lists the keys that differ: first those that differ in all pairs, then the others with the labels of their pairs.

    Args:
        pairs: label, config before, config after.
    """
    found: dict[str, list[str]] = {}
    for label, before, after in pairs:
        for text in changed_keys(before, after):
            found.setdefault(text, []).append(label)
    everywhere = [text for text, labels in found.items() if len(labels) == len(pairs)]
    return everywhere + [f"{text} in {first_few(labels)}" for text, labels in found.items() if len(labels) < len(pairs)]


def changed_keys(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Differences between two configs; a changed group choice hides the keys that only one choice has."""
    texts = []
    for key in {**before, **after}:
        was, now = (to_override(values[key]) if key in values else ABSENT for values in (before, after))
        group, _, below = key.partition(".")
        choice_changed = below and before.get(group) != after.get(group)
        if was != now and not (choice_changed and (below == "_target_" or ABSENT in (was, now))):
            texts.append(f"{key} {was} → {now}")
    return texts


def environment_differences(before: Sequence[Result], after: Sequence[Result]) -> dict[str, list[str]]:
    """Differences between the environments of two groups of results: code, packages, machine."""
    code = [join_distinct(map(_code, results)) for results in (before, after)]
    same_code = {result.code for result in before} == {result.code for result in after}
    return {
        "code": [] if same_code else [f"{code[0]} → {code[1]}"],
        "packages": _differences_by_name(before, after, lambda result: result.versions),
        "machine": _differences_by_name(before, after, _machine),
    }


def image_differences(pairs: Sequence[tuple[str, Run, Run]]) -> list[str]:
    """Differences between the test images, the split and the training labels of matched runs."""
    texts = []
    if any(key_of_test_images(one) != key_of_test_images(other) for _, one, other in pairs):
        texts.append(
            "the test images: seeds are not paired on the same images, and differences include the difference between the images"
        )
    both = [(one.result, other.result) for _, one, other in pairs if one.result and other.result]
    if any(one.split_hash != other.split_hash for one, other in both):
        texts.append("the split")
    if any(one.label_hash != other.label_hash for one, other in both):
        texts.append("the training labels")
    return texts


def key_of_test_images(run: Run) -> str:
    """Identifies the test images of a run: equal for runs with the same test images."""
    values = {key: value for key, value in run.config.items() if key.startswith("data.") and key not in NOT_TEST_KEYS}
    return canonical_json(values)


def join_distinct(values: Iterable[Any]) -> str:
    """The distinct values in words: `2.0 or 2.1`."""
    return " or ".join(sorted({ABSENT if value is None else to_override(value) for value in values}))


def _differences_by_name(
    before: Sequence[Result], after: Sequence[Result], part: Callable[[Result], Mapping[str, Any]]
) -> list[str]:
    """`name was → now` for each name whose values differ in a part of the results."""
    sides = [[part(result) for result in results] for results in (before, after)]
    texts = []
    for name in dict.fromkeys(name for parts in sides for each in parts for name in each):
        was, now = (join_distinct(each.get(name) for each in parts) for parts in sides)
        if was != now:
            texts.append(f"{name} {was} → {now}")
    return texts


def _code(result: Result) -> str:
    """The hash of the source code, with the commit where there is one."""
    git = result.git or {}
    commit = f" (commit {git['commit'][:7]}{' with changes' if git.get('dirty') else ''})" if git.get("commit") else ""
    return f"{result.code}{commit}"


def _machine(result: Result) -> dict[str, Any]:
    """Hardware and number format of a result."""
    return {
        "processor": result.hardware.get("cpu"),
        "GPUs": result.hardware.get("gpus"),
        "system": result.hardware.get("system"),
        "precision": result.precision,
        "devices": result.devices,
        "threads": result.threads,
        **{name: result.numerics.get(name) for name in ("tf32", "cudnn_benchmark", "channels_last")},
    }
