"""Finds confounds: other keys and facts that differ between the levels of a factor and may cause a difference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnbench.report.load.run import NON_CELL_KEYS, Run
from cnnbench.text import canonical_json, to_override

MAX_VALUES = 3  # values of a level that are written out
MEASURED = ("params", "macs", "train")  # facts from results; unknown where no run of a level has one
FACT_LABELS = {  # facts with a name in words, from whichever key they come
    "lr": "learning rate", "params": "parameters", "macs": "multiply-adds", "image": "image", "epochs": "epochs",
    "batch_size": "batch size", "steps": "steps", "train": "training images",
}  # fmt: skip
FACT_OF_KEY = {"optimizer.lr": "lr", "epochs": "epochs", "batch_size": "batch_size", "data.image_size": "image"}


@dataclass(frozen=True)
class Confounds:
    """A factor, and what else differs between its levels.

    Attributes:
        key: the factor.
        levels: its levels, in the order of the jobs.
        differing: for each fact or config key that differs, its values in each level.
    """

    key: str
    levels: list[Any]
    differing: dict[str, list[list[Any]]]


def find_confounds(
    settings: Sequence[Mapping[str, Any]], facts: Sequence[Mapping[str, Any]], keys: Iterable[str]
) -> list[Confounds]:
    """Finds for each factor what else differs between its levels.

    A fact differs where the set of its values in one level is not that in another. So a second factor, which takes each of
    its values in every level, is not a confound.

    Args:
        settings: swept keys and values of each job.
        facts: dotted config keys and the facts of `FACT_LABELS`, of the same jobs.
        keys: the factors.
    """
    return [
        _confounds_of(key, settings, facts)
        for key in keys
        if key != "seed" and any(key in setting for setting in settings)
    ]


def fold_group_choices(
    facts: Sequence[Mapping[str, Any]], choices: Sequence[Mapping[str, Any]], keys: Iterable[str]
) -> list[dict[str, Any]]:
    """Replaces the keys of a group by the group's choice where the jobs have different choices.

    Args:
        facts: as for `find_confounds`.
        choices: chosen options of the same jobs, by group.
        keys: the factors; their keys are kept.
    """
    factors = set(keys)
    groups = [
        group
        for group in dict.fromkeys(group for chosen in choices for group in chosen)
        if len({canonical_json(chosen.get(group)) for chosen in choices}) > 1
    ]
    below = tuple(f"{group}." for group in groups)

    def is_kept(key: str) -> bool:
        return key in factors or not (key in groups or key.startswith(below))

    return [
        {
            **{key: value for key, value in values.items() if is_kept(key)},
            **{group: chosen.get(group) for group in groups},
        }
        for values, chosen in zip(facts, choices, strict=True)
    ]


def _confounds_of(factor: str, settings: Sequence[Mapping[str, Any]], facts: Sequence[Mapping[str, Any]]) -> Confounds:
    levels: dict[str, Any] = {}
    members: dict[str, list[Mapping[str, Any]]] = {}
    for setting, values in zip(settings, facts, strict=True):
        if factor in setting:
            level = canonical_json(setting[factor])
            levels.setdefault(level, setting[factor])
            members.setdefault(level, []).append(values)
    differing = {}
    for name in dict.fromkeys(name for values in facts for name in values):
        stands_for_fact = FACT_OF_KEY.get(name, name) != name
        belongs_to_factor = FACT_OF_KEY.get(factor) == name or name == factor or name.startswith(f"{factor}.")
        if stands_for_fact or belongs_to_factor:
            continue
        by_level = [_distinct(values.get(name) for values in members[level]) for level in levels]
        known = [values for values in by_level if name not in MEASURED or values != [None]]
        if len({frozenset(map(canonical_json, values)) for values in known}) > 1:
            differing[name] = by_level
    return Confounds(factor, list(levels.values()), differing)


def join_values(values: Sequence[Any]) -> str:
    """The values of a level in words: `0.1 or 0.2`; the range of many numbers: `0.1 to 0.9`."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(values) > MAX_VALUES and len(numbers) == len(values):
        return f"{value_text(min(numbers))} to {value_text(max(numbers))}"
    return " or ".join(map(value_text, values[:MAX_VALUES])) + (" or others" if len(values) > MAX_VALUES else "")


def value_text(value: Any) -> str:
    """A value in words: integers with commas, image shapes as C×H×W."""
    if isinstance(value, list) and len(value) == 3:
        return "×".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else to_override(value)


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list({canonical_json(value): value for value in values}.values())


def run_facts(run: Run) -> dict[str, Any]:
    """The config keys and facts of a run that may differ between levels."""
    config = {key: value for key, value in run.config.items() if key not in (*NON_CELL_KEYS, "seed")}
    facts = {fact: config.get(key) for key, fact in FACT_OF_KEY.items()}
    if run.result:
        measured = {"params": run.result.params, "macs": run.result.macs, "train": run.result.n.get("train")}
        facts |= {name: value for name, value in measured.items() if value is not None}
    return {**config, **facts}
