"""The typed schema of a run's keys, the checks across keys, and a run's identity.

`Config` is what `conf/` composes to. A *frozen* config has every `auto` resolved; it is what `config.yaml` in a run
directory holds, and all that a run is made from.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from cnnbench.config.identity import fill_earlier, former_hash, identity_hash
from cnnbench.config.shipped_parts import current_path
from cnnbench.errors import ConfigError
from cnnbench.text import NAME, as_typed

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # written in C where PyYAML has it: ten times as fast
Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
Count = Annotated[int, Field(gt=0, strict=True)]
Range = Annotated[list[Annotated[int, Field(ge=0, strict=True)]], Field(min_length=2, max_length=2)]
Size = Count | Range | None
Finite = Annotated[float, Field(allow_inf_nan=False)]
PerChannel = Literal["auto"] | Finite | Annotated[list[Finite], Field(min_length=1)]
OUTSIDE: dict[str, Any] = {"in_identity": False}
INITS = ("torch", "paddle", "paddle_create", "normal", "xavier_normal", "kaiming_normal")


def key(expected: str, example: Any, **limits: Any) -> Any:
    """A field whose errors say what was `expected` and give an `example`."""
    return Field(description=expected, examples=[example], **limits)


def outside(**field: Any) -> Any:
    """A field that decides no number of a run beyond its last bits: it does not enter the run's identity."""
    return Field(json_schema_extra=OUTSIDE, **field)


def outside_key(expected: str, example: Any, **limits: Any) -> Any:
    """A `key` that does not enter a run's identity, unless its sweep varies it."""
    return key(expected, example, json_schema_extra=OUTSIDE, **limits)


class Keys(BaseModel):
    """A group of keys; a key that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_1(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        given = value if isinstance(value, list) else [value]
        if any(isinstance(item, bool) for item in given) and "bool" not in str(field.annotation):
            raise ValueError("true or false")
        return value

    def as_dict(self) -> dict[str, Any]:
        """Plain types only, keys as in `conf/`."""
        return self.model_dump(by_alias=True)


class Node(Keys):
    """What a `_target_` is built from: the dotted name of a class or function, and its arguments."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True, protected_namespaces=())
    target: str = Field(alias="_target_", examples=["mypkg.MyNet"])
    not_arguments: ClassVar[tuple[str, ...]] = ("target",)

    @field_validator("target")
    @classmethod
    def _shipped_parts_may_have_moved(cls, target: str) -> str:
        return current_path(target)

    @property
    def arguments(self) -> dict[str, Any]:
        """What the target is called with."""
        return {key: value for key, value in self if key not in self.not_arguments}


class DataKeys(Node):
    """Which images, and how they are split; a data set may have keys of its own besides."""

    not_arguments: ClassVar[tuple[str, ...]] = ("target", "fingerprint")
    root: str = outside_key("a folder", "auto", min_length=1)
    image_size: Literal["auto"] | Count = key("auto or pixels a side, an integer above 0", 32)
    mean: PerChannel = key("auto, a number or one for each channel", "[0.5]")
    std: PerChannel = key("auto, a number above 0 or one for each channel", "[0.5]")
    train_size: Size = key("a count, a range [a,b] with a below b, or null", 1000)
    val_size: Size = key("a count, a range [a,b] with a below b, or null", "[50000,50200]")
    test_size: Size = key("a count, a range [a,b] with a below b, or null", 200)
    fraction: float = key("a number above 0, at most 1", 0.5, gt=0, le=1)
    label_noise: float = key("a number from 0, below 1", 0.2, default=0.0, ge=0, lt=1)
    split_seed: int = key("an integer from 0 to 4294967295", 0, ge=0, lt=2**32)
    pipeline: Literal["auto", "device", "memory"] = outside_key("auto, device or memory", "auto")
    fingerprint: str | None = None  # of the set's files; filled when the config is frozen

    @field_validator("train_size", "val_size", "test_size")
    @classmethod
    def _range_goes_up(cls, size: Size) -> Size:
        if isinstance(size, list) and size[0] >= size[1]:
            raise ValueError("range")
        return size

    @field_validator("std")
    @classmethod
    def _std_is_positive(cls, std: PerChannel) -> PerChannel:
        if std != "auto" and not min(std if isinstance(std, list) else [float(std)]) > 0:
            raise ValueError("not positive")
        return std


class OptimizerKeys(Node):
    """A torch.optim class and its arguments; `decay` says which parameters the weight decay is for."""

    not_arguments: ClassVar[tuple[str, ...]] = ("target", "decay")
    lr: float = key("a number above 0", 0.01, gt=0, allow_inf_nan=False)
    weight_decay: float = key("a number, at least 0", 0.0005, default=0.0, ge=0, allow_inf_nan=False)
    decay: Literal["all", "weights"] = key("all or weights", "weights", default="all")


class TrainerKeys(Keys):
    """Where a run happens, and how often it validates and saves."""

    accelerator: Literal["auto", "cpu", "gpu"] = key("auto, cpu or gpu", "auto")
    devices: int = outside_key("an integer above 0", 1, gt=0)
    num_nodes: int = outside_key("an integer above 0", 1, gt=0)
    sync_batchnorm: bool = key("true or false", "true", default=False)
    cuda_graph: bool = outside_key("true or false", "false", default=True)
    max_steps: Count | None = key("an integer above 0, or null", 100)
    val_every_steps: Count | None = key("an integer above 0, or null", 15)
    checkpoint_every_s: float = outside_key("seconds, a number above 0", 30, gt=0)


class Config(Keys):
    """All keys of one run. Errors are `ConfigError`s that name the key, what was expected, and an example."""

    model: Node
    data: DataKeys
    augment: dict[str, Node] = Field(default_factory=dict)  # steps by name, in their order
    optimizer: OptimizerKeys
    scheduler: Node
    trainer: TrainerKeys
    seed: int = key("an integer from 0 to 4294967295", 0, ge=0, lt=2**32)
    epochs: int = key("an integer above 0", 10, gt=0)
    batch_size: int = key("an integer above 0", 64, gt=0)
    accumulate: int = key("an integer above 0", 2, default=1, gt=0)
    clip_grad: float | None = key("a number above 0, or null", 1.0, default=None, gt=0, allow_inf_nan=False)
    label_smoothing: float = key("a number from 0, below 1", 0.1, default=0.0, ge=0, lt=1)
    mixup: float = key("a number, at least 0", 0.2, default=0.0, ge=0, allow_inf_nan=False)
    cutmix: float = key("a number, at least 0", 1.0, default=0.0, ge=0, allow_inf_nan=False)
    ema: float = key("a number from 0, below 1", 0.999, default=0.0, ge=0, lt=1)
    early_stopping: Count | None = key("an integer above 0, or null", 5, default=None)
    init: Literal[INITS] = key(f"one of {', '.join(INITS)}", "torch")  # type: ignore[valid-type]
    init_std: float = key("a number above 0", 0.01, gt=0, allow_inf_nan=False)
    precision: Literal["auto", "32", "bf16", "16"] = key("auto, 32, bf16 or 16", "auto")
    compile: bool = key("true or false", "true")
    deterministic: Literal["auto", "warn"] | bool = key("auto, true, warn or false", "true")
    threads: Literal["auto"] | Count = outside_key("auto or an integer above 0", 2)
    channels_last: bool = outside(default=False)  # of the weights, in memory; found out when the config is frozen
    name: str = outside_key("at most 80 letters, digits, '.', '_', '-'", "my_run")
    runs_dir: str = outside_key("a folder", "runs", min_length=1)
    resume: str = outside_key("never, auto or a run directory", "auto")
    log: Literal["normal", "full"] = outside_key("normal or full", "full")
    choices: dict[str, str] = outside(default_factory=dict)
    # keys that decide no number, but vary in the sweep that the run is of
    swept: list[str] = outside(default_factory=list)

    @field_validator("precision", mode="before")
    @classmethod
    def _precision_may_be_a_number(cls, precision: Any) -> Any:
        return str(precision) if isinstance(precision, int) else precision

    @field_validator("name")
    @classmethod
    def _name_is_a_file_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("not a file name")
        return name

    @model_validator(mode="after")
    def _devices_share_the_batch(self) -> Config:
        parts = self.parts
        if self.batch_size % parts:
            below = self.batch_size // parts * parts
            near = f"batch_size={below} or batch_size={below + parts}" if below else f"batch_size={parts}"
            raise ValueError(
                f"batch_size={self.batch_size}: it is global, and cannot be shared evenly by {self.sharers}; type {near}"
            )
        return self

    @property
    def parts(self) -> int:
        """A batch is cut into so many."""
        return self.trainer.devices * self.trainer.num_nodes * self.accumulate

    @property
    def sharers(self) -> str:
        """What cuts it."""
        devices = self.trainer.devices * self.trainer.num_nodes
        return " × ".join(
            [f"{devices} devices"] * (devices > 1) + [f"accumulate={self.accumulate}"] * (self.accumulate > 1)
        )

    @classmethod
    def check(cls, values: dict[str, Any]) -> Config:
        """The typed form of composed `values`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_explain(error, values)) from error

    @classmethod
    def load(cls, path: Path) -> Config:
        """The frozen config of a run directory's `config.yaml`."""
        try:
            values = yaml.load(path.read_text(encoding="utf-8"), Loader)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: not a readable config.yaml ({' '.join(str(error).split())})") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: not the config.yaml of a run")
        return cls.restore(values)

    @classmethod
    def restore(cls, values: dict[str, Any]) -> Config:
        """The typed form of what a run has saved, perhaps with an earlier version of cnnbench."""
        return cls.check(fill_earlier(values))

    def as_dict(self) -> dict[str, Any]:
        """Plain types only, keys as in `conf/`; `swept` where a sweep has made it necessary."""
        values = super().as_dict()
        return values if self.swept else {key: value for key, value in values.items() if key != "swept"}

    def dump(self) -> str:
        """The text of `config.yaml`."""
        return yaml.dump(self.as_dict(), Dumper=Dumper, sort_keys=False, allow_unicode=True)

    def deciding(self) -> dict[str, Any]:
        """The values that decide a frozen run's numbers, and those that vary in its sweep; nested, keys as in `conf/`.

        Data enter by their fingerprint, never by their path.
        """
        values = self.as_dict()
        for dotted in OUTSIDE_IDENTITY:
            if dotted not in self.swept:
                group, _, key = dotted.rpartition(".")
                (values[group] if group else values).pop(key, None)
        return values

    def identity(self) -> str:
        """The hash of what decides a frozen run's numbers (SHA-256, hex)."""
        return identity_hash(self.deciding())

    def identities(self) -> tuple[str, ...]:
        """The identity, and the hash that earlier versions of cnnbench gave the same run, if they could make it."""
        values = self.deciding()
        former = former_hash(values)
        return (identity_hash(values), former) if former else (identity_hash(values),)


def _outside(keys: type[Keys], prefix: str = "") -> Iterator[str]:
    """Dotted keys of a schema that are marked as outside the identity."""
    for name, field in keys.model_fields.items():
        if field.json_schema_extra == OUTSIDE:
            yield f"{prefix}{name}"
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Keys):
            yield from _outside(field.annotation, f"{prefix}{name}.")


OUTSIDE_IDENTITY = tuple(_outside(Config))


def _explain(error: ValidationError, values: dict[str, Any]) -> str:
    """The first complaint, in one line: key, what came, what was expected, an example."""
    first = error.errors()[0]
    if not first["loc"]:
        return first["msg"].removeprefix("Value error, ")
    dotted, field, came = _at(first["loc"], values)
    if first["type"] == "extra_forbidden":
        return f"{dotted}: no such key; `python -m cnnbench --help` lists them"
    example = f"; for instance {dotted}={field.examples[0]}" if field and field.examples else ""
    if first["type"] == "missing":
        return f"{dotted}: a value is missing{example}"
    expected = (field and field.description) or first["msg"]
    return f"{dotted}={as_typed(came)}: expected {expected}{example}"


def _at(location: tuple[int | str, ...], values: Any) -> tuple[str, FieldInfo | None, Any]:
    """The dotted key, the schema's field and the value that an error's location leads to."""
    keys: type[BaseModel] = Config
    dotted, field = [], None
    for part in location:
        dotted.append(str(part))
        field = {info.alias or name: info for name, info in keys.model_fields.items()}.get(str(part))
        values = values.get(part) if isinstance(values, dict) else None
        if field is not None and field.annotation == dict[str, Node]:
            return _at_step(location[len(dotted) :], dotted, values)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            break
        keys = field.annotation
    return ".".join(dotted), field, values


def _at_step(
    location: tuple[int | str, ...], dotted: list[str], steps: dict[str, Any]
) -> tuple[str, FieldInfo | None, Any]:
    """The same below `augment`, whose keys are the names of steps."""
    if not location:
        return ".".join(dotted), None, steps
    name, *rest = map(str, location)
    if not rest:
        return ".".join([*dotted, name]), None, steps[name]
    field = {info.alias or key: info for key, info in Node.model_fields.items()}.get(rest[0])
    return ".".join([*dotted, name, *rest]), field, None
