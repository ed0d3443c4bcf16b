"""The keys of a sweep, `sweep.*`: its question, its jobs, and how they are run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cnnbench.config.schema import (
    MAX_PROCESSES,
    Count,
    Keys,
    Positive,
    SeedNumber,
    UpTo1024,
    key,
    refuse_control_characters,
)
from cnnbench.errors import ConfigError, did_you_mean
from cnnbench.runs.part import Part
from cnnbench.runs.schema import ClaimRecord, Shown
from cnnbench.runs.sweep_dir import METRICS
from cnnbench.text import Values, to_override

Seed = Annotated[SeedNumber, Field(strict=True)]
Setting = Values  # key -> value


class Claim(ClaimRecord, Keys):
    """A claim of a paper, as an experiment's YAML states it: with a metric of every run, and at least one bound."""

    metric: Literal[METRICS] = "test/acc"  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _has_a_bound(self) -> Claim:
        if self.above is None and self.below is None:
            raise ValueError("expected above or below")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError("expected above < below")
        return self


class SweepKeys(Keys):
    """The keys under `sweep:` in an experiment's YAML; on the command line `sweep.key=value`."""

    group = "sweep"
    question: Shown | None = key("a sentence, or null", "null", default=None)
    cost: Shown | None = key("a sentence, or null", "null", default=None)
    baseline: Setting = key("the setting that others are compared with", "{model:plain18}", default_factory=dict)
    factors: dict[str, list[Any]] = key("lists by key", "{model:[plain18,resnet18]}", default_factory=dict)
    zip: list[dict[str, list[Any]]] = key(
        "a list of blocks, each with lists of equal length by key",
        "[{model:[vgg11,vgg16],epochs:[5,8]}]",
        default_factory=list,
    )
    cells: list[Setting] = key("a list of settings", "[{model:plain18,epochs:5}]", default_factory=list)
    exclude: list[Setting] = key("a list of settings", "[{model:vgg19,augment:none}]", default_factory=list)
    seeds: Count | Annotated[list[Seed], Field(min_length=1)] | None = key(
        "a number of seeds, a list of seeds, or null", 5, default=None
    )

    claims: list[Claim] = key(
        "a list of claims, each with says and of, optionally over and metric, and above or below",
        "[{says: shortcuts help,of:{model:resnet18},over:{model:plain18},above:0}]",
        default_factory=list,
    )

    slots: Literal["auto"] | UpTo1024 = key(f"auto or an integer from 1 to {MAX_PROCESSES}", 2, default="auto")
    part: Part | None = key("i/n, the i-th of n parts, or null", "1/2", default=None)
    timeout: Positive | None = key("seconds, a number above 0, or null", 3600, default=None)
    on_failure: Literal["continue", "stop"] = key("continue or stop", "stop", default="continue")
    max_failures: Count | None = key("an integer above 0, or null", 3, default=None)
    retry: Literal["none", "failed", "diverged", "all"] = key("none, failed, diverged or all", "failed", default="none")
    stale: Literal["keep", "rerun", "refuse"] = key("keep, rerun or refuse", "rerun", default="keep")
    extend: bool = key("true or false", "true", default=False)

    @classmethod
    def from_values(cls, values: Values) -> SweepKeys:
        """Checks composed values and returns their typed form.

        Raises:
            ConfigError: a key does not exist, or has a wrong value.
        """
        refuse_control_characters("sweep", values, prose=("question", "cost", "says"))
        known, factors, blocks = cls.model_fields, values.get("factors"), values.get("zip")
        for name in values:
            if name not in known:
                raise ConfigError(
                    f"sweep.{name}: no such key{did_you_mean(name, known) or ';'} keys: {', '.join(known)}"
                )
        for name, listed in factors.items() if isinstance(factors, dict) else ():
            if not isinstance(listed, list):
                came = to_override(listed)
                raise ConfigError(f"sweep.factors.{name}={came}: expected a list; for instance {name}: [{came}]")
        if not isinstance(blocks, list):  # a single block needs no list
            values = {**values, "zip": [blocks] if blocks else []}
        keys = super().from_values(values)
        for block in keys.zip:
            if len(set(map(len, block.values()))) > 1:
                lengths = ", ".join(f"{name} {len(listed)}" for name, listed in block.items())
                raise ConfigError(f"sweep.zip: expected lists of equal length, got {lengths}")
        return keys
