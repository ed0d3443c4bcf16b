"""Differences between two groups of runs apart from their numbers: config, code, packages, machine, images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from cnnbench.report.load.run import GROUPS, Run
from cnnbench.runs.schema import Result
from cnnbench.text import Values, canonical_json, first_few, to_override

ABSENT = "absent"
NOT_COMPARED = ("precision", "data.fingerprint")  # compared by results
NOT_TEST_KEYS = tuple(  # keys of the data that leave the test images as they are
    f"data.{key}"
    for key in (
        "root", "typed_root", "pipeline", "image_size", "mean", "std", "train_size", "val_size", "fraction", "label_noise", "split_seed",
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


def comparable_config(run: Run) -> Values:
    """A run's config by dotted keys, with the chosen options of its groups, without keys that are not compared."""
    choices = {group: run.choices[group] for group in GROUPS if group in run.choices and group != "recipe"}
    return {**choices, **{key: value for key, value in run.cell_config.items() if key not in NOT_COMPARED}}


def config_differences(pairs: Sequence[tuple[str, Values, Values]]) -> list[str]:
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


def changed_keys(before: Values, after: Values) -> list[str]:
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
    same_code = {result.code for result in before} == {result.code for result in after}
    code = " → ".join(join_distinct(map(_code, results)) for results in (before, after))
    return {
        "code": [] if same_code else [code],
        "packages": _differences_by_name([each.versions for each in before], [each.versions for each in after]),
        "machine": _differences_by_name(list(map(_machine, before)), list(map(_machine, after))),
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


def _differences_by_name(before: Sequence[Values], after: Sequence[Values]) -> list[str]:
    """`name was → now` for each name whose values differ between two groups of mappings."""
    texts = []
    for name in dict.fromkeys(chain(*before, *after)):
        was, now = (join_distinct(each.get(name) for each in side) for side in (before, after))
        if was != now:
            texts.append(f"{name} {was} → {now}")
    return texts


def _code(result: Result) -> str:
    """The hash of the source code, with the commit where there is one."""
    git = result.git
    commit = f" (commit {git.commit[:7]}{' with changes' if git.dirty else ''})" if git and git.commit else ""
    return f"{result.code}{commit}"


def _machine(result: Result) -> Values:
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
