"""What two groups of runs differ in besides their numbers: config, code, packages, machine, images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cnnbench.report.load.run import DETAILS, GROUPS, Run
from cnnbench.text import as_typed, canonical, some

ABSENT = "absent"
ELSEWHERE = (*DETAILS, "seed", "precision", "data.fingerprint")  # told of by results, or meant to differ
UNTESTED = ("image_size", "mean", "std", "train_size", "val_size", "fraction", "label_noise", "split_seed")  # of data
Result = Mapping[str, Any]


def differing(
    pairs: Sequence[tuple[str, Run, Run]], ours: Sequence[Run], theirs: Sequence[Run]
) -> dict[str, list[str]]:
    """What differs, by kind, each as `epochs 5 → 10`; nothing in a list means that it is the same.

    Args:
        pairs: matched cells: a name, a run as it was, a run as it is.
        ours: the runs as they were.
        theirs: as they are.
    """
    before, after = ([run.result for run in runs if run.result] for runs in (ours, theirs))
    return {
        "config": of_configs([(label, told(one), told(other)) for label, one, other in pairs]),
        **(of_results(before, after) if before and after else {}),
        "images": of_images(pairs),
    }


def told(run: Run) -> dict[str, Any]:
    """A config with the labels of its groups."""
    labels = {group: run.choices[group] for group in GROUPS if group in run.choices and group != "recipe"}
    return {**labels, **{key: value for key, value in run.config.items() if key not in ELSEWHERE}}


def of_configs(pairs: Sequence[tuple[str, dict[str, Any], dict[str, Any]]]) -> list[str]:
    """The keys that differ: in all pairs, then those of some."""
    changes = [(label, changed(before, after)) for label, before, after in pairs]
    if not changes:
        return []
    everywhere = [text for text in changes[0][1] if all(text in texts for _, texts in changes)]
    own: dict[str, list[str]] = {}
    for label, texts in changes:
        for text in texts:
            if text not in everywhere:
                own.setdefault(text, []).append(label)
    return everywhere + [f"{text} in {some(labels)}" for text, labels in own.items()]


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Of two configs; where a group has another choice, that rather than what only one of the choices has."""
    texts = []
    for key in {**before, **after}:
        was, now = (as_typed(values[key]) if key in values else ABSENT for values in (before, after))
        group, _, below = key.partition(".")
        rechosen = below and before.get(group) != after.get(group)
        if was != now and not (rechosen and (below == "_target_" or ABSENT in (was, now))):
            texts.append(f"{key} {was} → {now}")
    return texts


def of_results(before: Sequence[Result], after: Sequence[Result]) -> dict[str, list[str]]:
    """What the results were made with: code, packages, machine."""
    code = [between(list(map(_code, results))) for results in (before, after)]
    same_code = {result.get("code") for result in before} == {result.get("code") for result in after}
    return {
        "code": [] if same_code else [f"{code[0]} → {code[1]}"],
        "packages": _by_name(before, after, lambda result: result.get("versions") or {}),
        "machine": _by_name(before, after, _machine),
    }


def of_images(pairs: Sequence[tuple[str, Run, Run]]) -> list[str]:
    """Whether trained and tested on the same, where both have been."""
    texts = []
    if any(tested(one) != tested(other) for _, one, other in pairs):
        texts.append(
            "the test images: seeds are not paired on the same images, and differences include that of the images"
        )
    both = [(one.result, other.result) for _, one, other in pairs if one.result and other.result]
    for name, what in {"split_hash": "the split", "label_hash": "the training labels"}.items():
        if any(one.get(name) != other.get(name) for one, other in both):
            texts.append(what)
    return texts


def tested(run: Run) -> str:
    """Stands for what decides which images a run is tested on."""
    others = ("data.root", "data.pipeline", *(f"data.{key}" for key in UNTESTED))
    return canonical({key: value for key, value in run.config.items() if key.startswith("data.") and key not in others})


def between(values: Iterable[Any]) -> str:
    """Distinct values in words."""
    return " or ".join(sorted({ABSENT if value is None else as_typed(value) for value in values}))


def _by_name(
    before: Sequence[Result], after: Sequence[Result], look: Callable[[Result], Mapping[str, Any]]
) -> list[str]:
    looks = [[look(result) for result in results] for results in (before, after)]
    texts = []
    for name in dict.fromkeys(name for found in looks for each in found for name in each):
        was, now = (between(each.get(name) for each in found) for found in looks)
        texts += [f"{name} {was} → {now}"] * (was != now)
    return texts


def _code(result: Result) -> str:
    git = result.get("git") or {}
    commit = f" (commit {git['commit'][:7]}{' with changes' if git.get('dirty') else ''})" if git.get("commit") else ""
    return f"{result.get('code')}{commit}"


def _machine(result: Result) -> dict[str, Any]:
    hardware, numerics = result.get("hardware") or {}, result.get("numerics") or {}
    return {
        "processor": hardware.get("cpu"),
        "GPUs": hardware.get("gpus"),
        "system": hardware.get("system"),
        **{name: result.get(name) for name in ("precision", "devices", "threads")},
        **{name: numerics.get(name) for name in ("tf32", "cudnn_benchmark", "channels_last")},
    }
