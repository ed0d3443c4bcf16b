"""What else differs between the arms of a factor: the reasons to doubt that it was the factor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnbench.report.load.run import DETAILS, Run
from cnnbench.text import as_typed, canonical

MOST_VALUES = 3  # of an arm that are told
MEASURED = ("params", "macs", "train")  # told by results, some of which may not tell
FACTS = {  # what is told in words, whatever key it comes from
    "lr": "learning rate", "params": "parameters", "macs": "multiply-adds", "image": "image", "epochs": "epochs",
    "batch_size": "batch size", "steps": "steps", "train": "training images",
}  # fmt: skip
KEYS = {
    "optimizer.lr": "lr",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "data.image_size": "image",
}  # config keys that are such facts


@dataclass(frozen=True)
class Arms:
    """A factor, and what differs between its arms.

    Attributes:
        key: the factor.
        levels: its values, in the order in which they come.
        differing: what else differs: for each level the values that it has there.
    """

    key: str
    levels: list[Any]
    differing: dict[str, list[list[Any]]]


def confounds(
    settings: Sequence[Mapping[str, Any]], facts: Sequence[Mapping[str, Any]], keys: Iterable[str]
) -> list[Arms]:
    """For each factor what else its arms differ in.

    An attribute counts where its values in one arm, taken together, are not those in another. So it does not where a second
    factor takes each of its values in every arm.

    Args:
        settings: of the jobs: swept keys and their values.
        facts: of the same jobs: dotted config keys, and those of `FACTS`.
        keys: the factors.
    """
    return [
        _arms(key, settings, facts) for key in keys if key != "seed" and any(key in setting for setting in settings)
    ]


def folded(
    facts: Sequence[Mapping[str, Any]], choices: Sequence[Mapping[str, Any]], keys: Iterable[str]
) -> list[dict[str, Any]]:
    """The facts, with a group's choice in place of all that is in its file, where runs have chosen differently.

    Args:
        facts: as `confounds` takes them.
        choices: of the same jobs, by group.
        keys: the factors, which stay as they are.
    """
    kept = set(keys)
    groups = [
        group
        for group in dict.fromkeys(group for chosen in choices for group in chosen)
        if len({canonical(chosen.get(group)) for chosen in choices}) > 1
    ]
    below = tuple(f"{group}." for group in groups)
    return [
        {
            **{key: value for key, value in own.items() if key in kept or not (key in groups or key.startswith(below))},
            **{group: chosen.get(group) for group in groups},
        }
        for own, chosen in zip(facts, choices, strict=True)
    ]


def _arms(factor: str, settings: Sequence[Mapping[str, Any]], facts: Sequence[Mapping[str, Any]]) -> Arms:
    levels: dict[str, Any] = {}
    members: dict[str, list[Mapping[str, Any]]] = {}
    for setting, own in zip(settings, facts, strict=True):
        if factor in setting:
            level = canonical(setting[factor])
            levels.setdefault(level, setting[factor])
            members.setdefault(level, []).append(own)
    differing = {}
    for name in dict.fromkeys(name for own in facts for name in own):
        if KEYS.get(name, name) != name or KEYS.get(factor) == name or name == factor or name.startswith(f"{factor}."):
            continue
        values = [_distinct(own.get(name) for own in members[level]) for level in levels]
        told = [listed for listed in values if name not in MEASURED or listed != [None]]
        if any(set(map(canonical, listed)) != set(map(canonical, told[0])) for listed in told):
            differing[name] = values
    return Arms(factor, list(levels.values()), differing)


def several(values: Sequence[Any]) -> str:
    """The values of an arm in words; of many numbers the range."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(values) > MOST_VALUES and len(numbers) == len(values):
        return f"{number(min(numbers))} to {number(max(numbers))}"
    return " or ".join(map(number, values[:MOST_VALUES])) + (" or others" if len(values) > MOST_VALUES else "")


def number(value: Any) -> str:
    """Large counts with commas, images as C×H×W."""
    if isinstance(value, list) and len(value) == 3:
        return "×".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else as_typed(value)


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list({canonical(value): value for value in values}.values())


def facts(run: Run) -> dict[str, Any]:
    """What may differ between two runs besides what was meant to."""
    result = run.result or {}
    config = {key: value for key, value in run.config.items() if key not in (*DETAILS, "seed")}
    own = {"lr": config.get("optimizer.lr"), "image": config.get("data.image_size")}
    own |= {name: config.get(name) for name in ("epochs", "batch_size")}
    made = {**{name: result.get(name) for name in ("params", "macs")}, "train": result.get("n", {}).get("train")}
    return {**config, **own, **{name: value for name, value in made.items() if value is not None}}
