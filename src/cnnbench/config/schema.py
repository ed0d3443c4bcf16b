"""Defines the typed schema of a run's keys, the checks across keys, and a run's identity.

`conf/` composes to a `Config`. In a *frozen* config every `auto` is resolved; `config.yaml` in a run directory holds the frozen
config, and nothing else configures the run.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, TypeGuard, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from cnnbench.config.identity import add_earlier_values, former_hash, identity_hash
from cnnbench.config.shipped_parts import current_path
from cnnbench.config.yaml_file import read_yaml, require_few_values, write_yaml
from cnnbench.errors import PROGRAM, ConfigError, did_you_mean
from cnnbench.text import NAME, Values, flatten, printable, shorten, to_override

if TYPE_CHECKING:
    from typing_extensions import Self

Number = TypeVar("Number")
Positive = Annotated[FiniteFloat, Field(gt=0)]
NotNegative = Annotated[FiniteFloat, Field(ge=0)]
# of pixels; far beyond, float32 cannot hold the normalized pixels
Mean = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]
Deviation = Annotated[FiniteFloat, Field(ge=1e-6, le=1e6)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
SeedNumber = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[PositiveInt, Field(strict=True)]
MAX_PROCESSES = 1024  # threads of a run, its devices, machines, and jobs of a sweep at a time
MAX_INTEGER = 2**63 - 1  # PyTorch's largest
MAX_SIDE = 4096  # pixels; larger pictures are shrunk when they are read
UpTo1024 = Annotated[int, Field(ge=1, le=MAX_PROCESSES)]
PerChannel: TypeAlias = Literal["auto"] | Number | Annotated[list[Number], Field(min_length=1)]
# of terminals, line ends, and those that change the direction of writing
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
OUTSIDE: Values = {"in_identity": False}
INITS = ("torch", "paddle", "paddle_create", "normal", "xavier_normal", "kaiming_normal")


def _ascending(bounds: list[int]) -> list[int]:
    """Checks a range [a,b] of images.

    Raises:
        ValueError: a is not below b.
    """
    if bounds[0] >= bounds[1]:
        raise ValueError("range")
    return bounds


def _zero_or_drawable(parameter: float) -> float:
    """Checks the a of a distribution Beta(a, a), whose draws are no numbers for an extreme a.

    Raises:
        ValueError: it is neither 0 nor from 0.001 to 1000.
    """
    if parameter and not 0.001 <= parameter <= 1000:
        raise ValueError("range")
    return parameter


BetaParameter = Annotated[FiniteFloat, AfterValidator(_zero_or_drawable)]
Index = Annotated[int, Field(ge=0, strict=True)]
Size = Count | Annotated[list[Index], Field(min_length=2, max_length=2), AfterValidator(_ascending)] | None


def key(expected: str, example: Any, **limits: Any) -> Any:
    """Declares a key whose errors state what was `expected` and give an `example`."""
    return Field(description=expected, examples=[example], **limits)


def outside_key(expected: str, example: Any, **limits: Any) -> Any:
    """Declares a `key` that changes a run's numbers in their last bits at most.

    It does not enter the run's identity, unless the run's sweep varies it.
    """
    return key(expected, example, json_schema_extra=OUTSIDE, **limits)


class Keys(BaseModel):
    """Base class of a group of keys; an unknown key is an error.

    Attributes:
        group: the dotted name of the keys' group, for messages; empty for the whole config.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)
    group: ClassVar[str] = ""

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_1(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        given = value if isinstance(value, list) else [value]
        if bool in map(type, given) and "bool" not in str(field.annotation):
            raise ValueError("true or false")
        return value

    @classmethod
    def from_values(cls, values: Values) -> Self:
        """Checks composed `values`, nested as in `conf/`.

        Raises:
            ConfigError: one line on the first value that is wrong: its key, what came, what was expected, an example.
        """
        try:
            keys = cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_explain(error, values, cls)) from error
        _require_machine_numbers(values, cls.group)
        return keys

    def as_dict(self) -> Values:
        """Returns plain types, with keys as in `conf/`."""
        return self.model_dump(by_alias=True)


class Node(Keys):
    """A class or function, by its dotted name `_target_`, and its arguments."""

    model_config = ConfigDict(extra="allow")
    # a shipped part may have moved
    target: Annotated[str, AfterValidator(current_path)] = Field(alias="_target_", examples=["mypkg.MyNet"])
    not_arguments: ClassVar[tuple[str, ...]] = ("target",)

    @property
    def arguments(self) -> Values:
        """The keyword arguments of the target."""
        return {key: value for key, value in self if key not in self.not_arguments}


class DataKeys(Node):
    """The data set, its preprocessing and its splits; a data set may have further keys."""

    group = "data"
    not_arguments = ("target", "fingerprint", "typed_root")
    root: str = outside_key("a folder", "auto", default="auto", min_length=1)
    # the root as it was typed, None for `auto`; freezing the config fills it, and resolves the root
    typed_root: str | None = Field(None, json_schema_extra=OUTSIDE)
    image_size: Literal["auto"] | Annotated[int, Field(ge=1, le=MAX_SIDE, strict=True)] = key(
        f"auto or pixels a side, an integer from 1 to {MAX_SIDE}", 32, default="auto"
    )
    mean: PerChannel[Mean] = key("auto, a number from -1e+06 to 1e+06 or one for each channel", "[0.5]", default="auto")
    std: PerChannel[Deviation] = key(
        "auto, a number from 1e-06 to 1e+06 or one for each channel", "[0.5]", default="auto"
    )
    train_size: Size = key("a count, a range [a,b] with a below b, or null", 1000, default=None)
    val_size: Size = key("a count, a range [a,b] with a below b, or null", "[50000,50200]", default=None)
    test_size: Size = key("a count, a range [a,b] with a below b, or null", 200, default=None)
    fraction: float = key("a number above 0, at most 1", 0.5, default=1.0, gt=0, le=1)
    label_noise: BelowOne = key("a number from 0, below 1", 0.2, default=0.0)
    split_seed: SeedNumber = key("an integer from 0 to 4294967295", 0, default=0)
    pipeline: Literal["auto", "device", "memory"] = outside_key("auto, device or memory", "auto", default="auto")
    fingerprint: str | None = None  # of the data set's files; freezing the config fills it

    @classmethod
    def of_target(cls, target: type, arguments: Values) -> DataKeys:
        """Checks the keyword arguments of a data set class.

        Raises:
            ConfigError: a key is unknown, or its value is not valid.
        """
        named = [*inspect.signature(target).parameters, *cls.model_fields]
        known = [name for name in dict.fromkeys(named) if name not in ("keys", *cls.not_arguments)]
        for name in arguments:
            if name not in cls.model_fields:
                near = did_you_mean(name, known) or ";"
                raise ConfigError(f"data.{name}: {target.__name__} takes no {name}{near} it takes: {', '.join(known)}")
        return cls.from_values({"_target_": f"{target.__module__}.{target.__qualname__}", **arguments})


class OptimizerKeys(Node):
    """A torch.optim class and its arguments; `decay` selects the parameters that get weight decay."""

    not_arguments = ("target", "decay")
    lr: Positive = key("a number above 0", 0.01)
    weight_decay: NotNegative = key("a number, at least 0", 0.0005, default=0.0)
    decay: Literal["all", "weights"] = key("all or weights", "weights", default="all")


class TrainerKeys(Keys):
    """The devices of a run, its number of steps, and how often it validates and saves."""

    accelerator: Literal["auto", "cpu", "gpu"] = key("auto, cpu or gpu", "auto")
    devices: UpTo1024 = outside_key(f"an integer from 1 to {MAX_PROCESSES}", 1)
    num_nodes: UpTo1024 = outside_key(f"an integer from 1 to {MAX_PROCESSES}", 1)
    sync_batchnorm: bool = key("true or false", "true", default=False)
    cuda_graph: bool = outside_key("true or false", "false", default=True)
    max_steps: Count | None = key("an integer above 0, or null", 100)
    val_every_steps: Count | None = key("an integer above 0, or null", 15)
    checkpoint_every_s: float = outside_key("seconds, a number above 0", 30, gt=0)


class Config(Keys):
    """All keys of one run. `from_values` checks them; its errors name the key, what was expected, and an example."""

    model: Node
    data: DataKeys
    augment: dict[str, Node] = Field(default_factory=dict)  # steps by name, in their order
    optimizer: OptimizerKeys
    scheduler: Node
    trainer: TrainerKeys
    seed: SeedNumber = key("an integer from 0 to 4294967295", 0)
    epochs: PositiveInt = key("an integer above 0", 10)
    batch_size: PositiveInt = key("an integer above 0", 64)
    accumulate: PositiveInt = key("an integer above 0", 2, default=1)
    clip_grad: Positive | None = key("a number above 0, or null", 1.0, default=None)
    label_smoothing: BelowOne = key("a number from 0, below 1", 0.1, default=0.0)
    mixup: BetaParameter = key("0, or a number from 0.001 to 1000", 0.2, default=0.0)
    cutmix: BetaParameter = key("0, or a number from 0.001 to 1000", 1.0, default=0.0)
    ema: BelowOne = key("a number from 0, below 1", 0.999, default=0.0)
    early_stopping: Count | None = key("an integer above 0, or null", 5, default=None)
    init: Literal[INITS] = key(f"one of {', '.join(INITS)}", "torch")  # type: ignore[valid-type]
    init_std: Positive = key("a number above 0", 0.01)
    precision: Annotated[
        Literal["auto", "32", "bf16", "16"],
        BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),  # YAML reads 32 as a number
    ] = key("auto, 32, bf16 or 16", "auto")
    compile: bool = key("true or false", "true")
    deterministic: Literal["auto", "warn"] | bool = key("auto, true, warn or false", "true")
    threads: Literal["auto"] | UpTo1024 = outside_key(f"auto or an integer from 1 to {MAX_PROCESSES}", 2)
    # the weights' memory format; freezing the config sets it
    channels_last: bool = Field(False, json_schema_extra=OUTSIDE)
    name: str = outside_key("at most 80 letters, digits, '.', '_', '-'", "my_run", pattern=f"^{NAME.pattern}$")
    runs_dir: str = outside_key("a folder", "runs", min_length=1)
    resume: str = outside_key("never, auto or a run directory", "auto")
    log: Literal["normal", "full"] = outside_key("normal or full", "full")
    # the label of each group's choice
    choices: dict[str, str] = Field(default_factory=dict, json_schema_extra=OUTSIDE)
    # the keys outside the identity that the run's sweep varies
    swept: list[str] = Field(default_factory=list, json_schema_extra=OUTSIDE)

    @model_validator(mode="after")
    def _devices_share_the_batch(self) -> Config:
        parts = self.batch_parts
        if self.batch_size % parts:
            below = self.batch_size // parts * parts
            near = f"batch_size={below} or batch_size={below + parts}" if below else f"batch_size={parts}"
            raise ValueError(
                f"batch_size={self.batch_size}: it is global, and cannot be shared evenly by {self.batch_divisors}; type {near}"
            )
        return self

    @property
    def world_size(self) -> int:
        """The number of processes that train together: one a device."""
        return self.trainer.devices * self.trainer.num_nodes

    @property
    def batch_parts(self) -> int:
        """The number of parts that a global batch is divided into."""
        return self.world_size * self.accumulate

    @property
    def batch_divisors(self) -> str:
        """What divides the batch, for messages: `4 devices × accumulate=8`."""
        return " × ".join(
            [f"{self.world_size} devices"] * (self.world_size > 1)
            + [f"accumulate={self.accumulate}"] * (self.accumulate > 1)
        )

    @classmethod
    def from_values(cls, values: Values) -> Config:
        """Checks composed `values`, nested as in `conf/`.

        Raises:
            ConfigError: one line on the first value that is wrong, or holds control characters.
        """
        refuse_control_characters("", values)
        return super().from_values(values)

    @classmethod
    def load(cls, path: Path) -> Config:
        """Loads the frozen config from a run directory's `config.yaml`.

        Raises:
            ConfigError: the file cannot be read, or holds no run's config.
        """
        try:
            values = read_yaml(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{path}: not a readable config.yaml ({reason})") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: not the config.yaml of a run")
        return cls.from_saved(values)

    @classmethod
    def from_saved(cls, values: Values) -> Config:
        """Checks the values that a run saved, also with an earlier version of cnnbench."""
        try:
            require_few_values(values)
        except ValueError as error:
            raise ConfigError(f"not the config of a run: {error}") from error
        return cls.from_values(add_earlier_values(values))

    def as_dict(self) -> Values:
        """Returns plain types, with keys as in `conf/`; `swept` only where it is not empty."""
        values = super().as_dict()
        return values if self.swept else {key: value for key, value in values.items() if key != "swept"}

    def dump(self) -> str:
        """Returns the text of `config.yaml`."""
        return write_yaml(self.as_dict())

    def identity_values(self) -> Values:
        """Returns the values that enter a frozen run's identity, nested, with keys as in `conf/`.

        These are the keys that decide the run's numbers, and those that its sweep varies. Data enter by the fingerprint of their
        files, never by their path.
        """
        values = self.as_dict()
        for dotted in OUTSIDE_IDENTITY:
            if dotted not in self.swept:
                group, _, key = dotted.rpartition(".")
                (values[group] if group else values).pop(key, None)
        return values

    def identity(self) -> str:
        """Returns the identity of a frozen run: the SHA-256 hash, in hex, of the values that decide its numbers."""
        return identity_hash(self.identity_values())

    def identities(self) -> tuple[str, ...]:
        """Returns the identity, then the hash that earlier versions gave the same run, if they had its parts."""
        values = self.identity_values()
        return tuple(filter(None, (identity_hash(values), former_hash(values))))


def refuse_control_characters(key: str, value: Any, prose: Collection[str] = ()) -> None:
    """Checks that the texts of a key, and the names of the keys below it, have no characters that steer a terminal.

    Args:
        key: dotted, empty for a whole config.
        value: its value, nested as in `conf/`.
        prose: names of keys whose texts may have tabs and several lines.

    Raises:
        ConfigError: one of them has; names the key and the character.
    """
    if isinstance(value, dict):
        for name, below in value.items():
            refuse_control_characters(key or "config", name)
            refuse_control_characters(f"{key}.{name}" if key else str(name), below, prose)
    elif isinstance(value, list | tuple):
        for item in value:
            refuse_control_characters(key, item, prose)
    elif isinstance(value, str):
        text = " ".join(value.split()) if key.rpartition(".")[2] in prose else value
        if found := CONTROL_CHARACTER.search(text):
            came = printable(shorten(value, 100))
            raise ConfigError(
                f"{key}={came}: expected text without control characters; leave {printable(found[0])} out"
            )


def _require_machine_numbers(values: Values, group: str) -> None:
    """Checks that the integers of all keys, also of arguments that no schema types, are numbers that PyTorch takes.

    Raises:
        ConfigError: names the first that is not.
    """
    for key, value in flatten(values, f"{group}." if group else "").items():
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, int) and abs(number) > MAX_INTEGER for number in numbers):
            raise ConfigError(f"{key}={to_override(value)}: expected a number of at most {MAX_INTEGER}")


def require_utf8(key: str, text: str) -> None:
    """Checks that the text of a key can be saved in a file.

    Raises:
        ConfigError: it is the name of a folder in another encoding than UTF-8.
    """
    readable = text.encode("utf-8", "replace").decode()
    if readable != text:
        ascii_locale = sys.getfilesystemencoding() == "ascii"
        advice = "the locale is ASCII, type LC_ALL=C.UTF-8 before the command" if ascii_locale else "rename it"
        raise ConfigError(f"{key}={readable}: expected a folder with a name in UTF-8; {advice}, or choose another one")


def _outside(keys: type[Keys], prefix: str = "") -> Iterator[str]:
    """Yields the dotted keys of a schema that are declared outside the identity."""
    for name, field in keys.model_fields.items():
        if field.json_schema_extra == OUTSIDE:
            yield f"{prefix}{name}"
        elif _is_group(field.annotation):
            yield from _outside(field.annotation, f"{prefix}{name}.")


def _is_group(kind: Any) -> TypeGuard[type[Keys]]:
    """Whether the type of a key is a class of keys."""
    return Keys in getattr(kind, "__mro__", ())


OUTSIDE_IDENTITY = tuple(_outside(Config))


def _explain(error: ValidationError, values: Values, schema: type[Keys]) -> str:
    """Returns one line on the first error: the key, what came, what was expected, an example.

    Args:
        error: raised by the schema.
        values: those that were checked, nested as in the schema.
        schema: the class of keys that refused them.
    """
    first = error.errors()[0]
    if not first["loc"]:
        return first["msg"].removeprefix("Value error, ")
    dotted, field, came = _find(first["loc"], values, schema)
    if first["type"] == "string_unicode":
        require_utf8(dotted, came)
    if first["type"] == "extra_forbidden" and field is None:
        return f"{dotted}: no such key; `{PROGRAM} --help` lists them"
    example = f"; for instance {dotted}={field.examples[0]}" if field and field.examples else ""
    if first["type"] == "missing" and came is None:
        return f"{dotted}: a value is missing{example}"
    expected = (field and field.description) or first["msg"]
    return f"{dotted}={to_override(came)}: expected {expected}{example}"


def _find(location: tuple[int | str, ...], values: Any, schema: type[Keys]) -> tuple[str, FieldInfo | None, Any]:
    """Follows an error's location as far as the schema has keys; returns the dotted key, its field and its value."""
    dotted = [schema.group] if schema.group else []
    field: FieldInfo | None = None
    kind: Any = schema
    for part in map(str, location):
        if kind == dict[str, Node]:  # the steps of `augment`, by name
            field, kind = None, Node
        elif _is_group(kind):
            field = {info.alias or name: info for name, info in kind.model_fields.items()}.get(part)
            kind = field and field.annotation
        else:
            break
        dotted.append(part)
        values = values.get(part) if isinstance(values, dict) else None
    return ".".join(dotted), field, values
