"""The keys of a sweep, `sweep.*`: what is asked, and how it is carried out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from cnnbench.config.schema import Count, Keys, key
from cnnbench.errors import ConfigError, did_you_mean
from cnnbench.metric_names import FINAL, FINAL_EMA
from cnnbench.text import as_typed

Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
Setting = dict[str, Any]  # key -> value


class Claim(Keys):
    """What a paper says, as a check on the mean of a metric, or on a difference of two."""

    says: str
    of: Setting
    over: Setting | None = None
    metric: Literal[FINAL + FINAL_EMA] = "test/acc"  # type: ignore[valid-type]
    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Claim:
        if self.above is None and self.below is None:
            raise ValueError("a bound")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError("bounds that leave room")
        return self


class SweepKeys(Keys):
    """What an experiment's YAML may say under `sweep:`, and what may be typed as `sweep.key=value`."""

    question: str | None = key("a sentence, or null", "null", default=None)
    cost: str | None = key("a sentence, or null", "null", default=None)
    baseline: Setting = key("the setting that the others are compared with", "{model:plain18}", default_factory=dict)
    factors: dict[str, list[Any]] = key("lists by key", "{model:[plain18,resnet18]}", default_factory=dict)
    zip: list[dict[str, list[Any]]] = key(
        "a list of blocks, each with lists of one length by key",
        "[{model:[vgg11,vgg16],epochs:[5,8]}]",
        default_factory=list,
    )
    cells: list[Setting] = key("a list of settings", "[{model:plain18,epochs:5}]", default_factory=list)
    exclude: list[Setting] = key("a list of settings", "[{model:vgg19,augment:none}]", default_factory=list)
    seeds: Count | Annotated[list[Seed], Field(min_length=1)] | None = key(
        "how many, a list of them, or null", 5, default=None
    )

    claims: list[Claim] = key(
        "a list of claims, each with says, of, perhaps over and metric, and above or below",
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
    def check(cls, values: dict[str, Any]) -> SweepKeys:
        """The typed form of what was composed."""
        known = cls.model_fields
        for name in values:
            if name not in known:
                raise ConfigError(
                    f"sweep.{name}: no such key{did_you_mean(name, known) or ';'} keys: {', '.join(known)}"
                )
        if not isinstance(values.get("zip"), list):  # none, or one block alone
            values = {**values, "zip": [values["zip"]] if values.get("zip") else []}
        try:
            keys = cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_explain(error, values)) from error
        for block in keys.zip:
            lengths = {name: len(listed) for name, listed in block.items()}
            if len(set(lengths.values())) > 1:
                told = ", ".join(f"{name} {length}" for name, length in lengths.items())
                raise ConfigError(f"sweep.zip: its lists go in pairs, and need one length; they have {told}")
        return keys


def _explain(error: ValidationError, values: dict[str, Any]) -> str:
    """The first complaint, in one line."""
    where = error.errors()[0]["loc"]
    field = SweepKeys.model_fields[str(where[0])]
    name, came = str(where[0]), values.get(str(where[0]))
    if name == "factors" and isinstance(came, dict) and len(where) > 1:
        factor, listed = str(where[1]), as_typed(came[where[1]])
        return f"sweep.factors.{factor}={listed}: expected a list; for instance {factor}: [{listed}]"
    example = f"; for instance sweep.{name}={field.examples[0]}" if field.examples else ""
    return f"sweep.{name}={as_typed(came)}: expected {field.description}{example}"
