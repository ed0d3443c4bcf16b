"""Finds confounds: other keys and facts that differ between the levels of a factor and may cause a difference."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from cnnbench.report.load.run import Run
from cnnbench.text import Values, canonical_json, to_override

Facts = Mapping[str, Any]  # of a job, by name
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


def find_confounds(settings: Sequence[Facts], facts: Sequence[Facts], keys: Iterable[str]) -> list[Confounds]:
    """Finds for each factor what else differs between its levels.

    A fact differs where the set of its values in one level is not that in another. So a second factor, which takes each of
    its values in every level, is not a confound.

    Args:
        settings: swept keys and values of each job.
        facts: dotted config keys and the facts of `FACT_LABELS`, of the same jobs.
        keys: the factors.
    """
    found = []
    for factor in keys:
        levels: dict[str, tuple[Any, list[Facts]]] = {}  # level as JSON -> level, facts of its jobs
        for setting, values in zip(settings, facts, strict=True):
            if factor in setting and factor != "seed":
                level = setting[factor]
                levels.setdefault(canonical_json(level), (level, []))[1].append(values)
        differing = {}
        for name in dict.fromkeys(chain(*facts)):
            stands_for_fact = FACT_OF_KEY.get(name, name) != name
            belongs_to_factor = FACT_OF_KEY.get(factor) == name or name == factor or name.startswith(f"{factor}.")
            by_level = [_distinct(values.get(name) for values in members) for _, members in levels.values()]
            known = [values for values in by_level if name not in MEASURED or values != [None]]
            sets = {frozenset(map(canonical_json, values)) for values in known}
            if len(sets) > 1 and not stands_for_fact and not belongs_to_factor:
                differing[name] = by_level
        if levels:
            found.append(Confounds(factor, [level for level, _ in levels.values()], differing))
    return found


def fold_group_choices(
    facts: Sequence[Facts], choices: Sequence[Mapping[str, str]], keys: Collection[str]
) -> list[Values]:
    """Replaces the keys of a group by the group's choice where the jobs have different choices.

    Args:
        facts: as for `find_confounds`.
        choices: chosen options of the same jobs, by group.
        keys: the factors; their keys are kept.
    """
    groups = [group for group in dict.fromkeys(chain(*choices)) if len({chosen.get(group) for chosen in choices}) > 1]
    return [
        {
            **{key: value for key, value in values.items() if key in keys or key.partition(".")[0] not in groups},
            **{group: chosen.get(group) for group in groups},
        }
        for values, chosen in zip(facts, choices, strict=True)
    ]


def join_values(values: Sequence[Any]) -> str:
    """The values of a level in words: `0.1 or 0.2`; the range of many numbers: `0.1 to 0.9`."""
    if len(values) > MAX_VALUES and all(type(value) in (int, float) for value in values):
        return f"{value_text(min(values))} to {value_text(max(values))}"
    return " or ".join(map(value_text, values[:MAX_VALUES])) + (" or others" if len(values) > MAX_VALUES else "")


def value_text(value: Any) -> str:
    """A value in words: integers with commas, image shapes as C×H×W."""
    if isinstance(value, list) and len(value) == 3:
        return "×".join(map(str, value))
    return f"{value:,}" if type(value) is int else to_override(value)


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list({canonical_json(value): value for value in values}.values())


def run_facts(run: Run) -> Values:
    """The config keys and facts of a run that may differ between levels."""
    config = run.cell_config
    facts = {fact: config.get(key) for key, fact in FACT_OF_KEY.items()}
    if run.result:
        measured = {"params": run.result.params, "macs": run.result.macs, "train": run.result.n.get("train")}
        facts |= {name: value for name, value in measured.items() if value is not None}
    return {**config, **facts}
