"""The keys of a sweep, `sweep.*`: its question, its jobs, and how they are run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from cnnbench.config.schema import Count, Keys, key
from cnnbench.errors import ConfigError, did_you_mean
from cnnbench.metric_names import FINAL, FINAL_EMA
from cnnbench.text import to_override

Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
Setting = dict[str, Any]  # key -> value


class Claim(Keys):
    """A claim of a paper: a bound on the mean of a metric in a setting, or on its difference from the mean in another setting.

    Attributes:
        says: the claim in words.
        of: a setting.
        over: the setting whose mean is subtracted; None: none is.
        metric: name of a metric.
        above, below: bounds, at least one of them.
    """

    says: str
    of: Setting
    over: Setting | None = None
    metric: Literal[FINAL + FINAL_EMA] = "test/acc"  # type: ignore[valid-type]
    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Claim:
        if self.above is None and self.below is None:
            raise ValueError("expected above or below")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError("expected above < below")
        return self


class SweepKeys(Keys):
    """The keys under `sweep:` in an experiment's YAML; on the command line `sweep.key=value`."""

    question: str | None = key("a sentence, or null", "null", default=None)
    cost: str | None = key("a sentence, or null", "null", default=None)
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

    slots: Literal["auto"] | Count = key("auto or an integer above 0", 2, default="auto")
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = key(
        "seconds, a number above 0, or null", 3600, default=None
    )
    on_failure: Literal["continue", "stop"] = key("continue or stop", "stop", default="continue")
    max_failures: Count | None = key("an integer above 0, or null", 3, default=None)
    retry: Literal["none", "failed", "diverged", "all"] = key("none, failed, diverged or all", "failed", default="none")
    stale: Literal["keep", "rerun", "refuse"] = key("keep, rerun or refuse", "rerun", default="keep")
    extend: bool = key("true or false", "true", default=False)

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> SweepKeys:
        """Checks composed values and returns their typed form.

        Raises:
            ConfigError: a key does not exist, or has a wrong value.
        """
        known = cls.model_fields
        for name in values:
            if name not in known:
                raise ConfigError(
                    f"sweep.{name}: no such key{did_you_mean(name, known) or ';'} keys: {', '.join(known)}"
                )
        if not isinstance(values.get("zip"), list):  # a single block needs no list
            values = {**values, "zip": [values["zip"]] if values.get("zip") else []}
        try:
            keys = cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_message(error, values)) from error
        for block in keys.zip:
            if len(set(map(len, block.values()))) > 1:
                lengths = ", ".join(f"{name} {len(listed)}" for name, listed in block.items())
                raise ConfigError(f"sweep.zip: expected lists of equal length, got {lengths}")
        return keys


def _message(error: ValidationError, values: dict[str, Any]) -> str:
    """The first error in one line: the key, its value, what was expected, an example."""
    where = [str(part) for part in error.errors()[0]["loc"]]
    name, value = where[0], values.get(where[0])
    if name == "factors" and isinstance(value, dict) and len(where) > 1:
        factor, listed = where[1], to_override(value[where[1]])
        return f"sweep.factors.{factor}={listed}: expected a list; for instance {factor}: [{listed}]"
    field = SweepKeys.model_fields[name]
    example = f"; for instance sweep.{name}={field.examples[0]}" if field.examples else ""
    return f"sweep.{name}={to_override(value)}: expected {field.description}{example}"
