"""Reads and writes `key=value` overrides in Hydra's grammar."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnbench.errors import ConfigError

PATH_KEYS = ("data.root", "runs_dir")  # keys whose values are folders
OPTIONAL_TEXT_KEYS = ("sweep.question", "sweep.cost")  # text, or null
TEXT_KEYS = (*PATH_KEYS, *OPTIONAL_TEXT_KEYS, "name")  # keys whose values are text as typed, also 1e3 and true
MAX_JOBS = 100_000  # of a sweep
RESERVED_WORDS = ("null", "true", "false", "nan", "inf")  # Hydra's grammar does not read these as text


@dataclass(frozen=True)
class ParsedOverrides:
    """Overrides by key.

    Attributes:
        fixed: the override as typed, of each key with one value.
        swept: the values of each key with several.
    """

    fixed: dict[str, str]
    swept: dict[str, list[Any]]


def read_overrides(overrides: Iterable[str], known: dict[str, dict[str, Path]]) -> ParsedOverrides:
    """Parses `key=value`, `key=a,b`, `key=range(5)` and `model=glob(resnet*)`; of a repeated key the last one counts.

    Args:
        overrides: as typed.
        known: groups with their choices, for `glob`.

    Raises:
        ConfigError: an override cannot be read, is an interval, or its glob matches no choice.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob, Override
    from hydra.errors import HydraException

    typed, parser = ParsedOverrides({}, {}), OverridesParser.create()
    for text in map(quote_text, overrides):
        try:
            parsed = parser.parse_override(text)
        except HydraException as error:
            raise ConfigError(unreadable_message(text)) from error
        assert parsed.key_or_group is not None
        key = f"+{parsed.key_or_group}" if parsed.is_add() or parsed.is_force_add() else parsed.key_or_group
        typed.fixed.pop(key, None)
        typed.swept.pop(key, None)
        if not parsed.is_sweep_override():
            typed.fixed[key] = text
            continue
        if parsed.is_interval_sweep():
            raise ConfigError(
                f"{text}: an interval has infinitely many values; type some of them, as in {key}=0.01,0.1"
            )
        values = parsed.value()
        if isinstance(values, Glob):
            choices = list(known.get(key, {}))
            typed.swept[key] = values.filter(choices)
            if not typed.swept[key]:
                raise ConfigError(f"{text}: matches no choice; choices: {', '.join(choices) or 'none'}")
        else:
            _require_listable(text, values)
            typed.swept[key] = list(parsed.sweep_iterator(Override._convert_value))  # without quotes
    return typed


def _require_listable(override: str, values: Any) -> None:
    """Checks, before its values are listed, that a `range(start,stop,step)` has between 1 and `MAX_JOBS` of them."""
    from hydra.core.override_parser.types import RangeSweep

    if not isinstance(values, RangeSweep):
        return
    if not values.step:
        raise ConfigError(f"{override}: expected a step other than 0")
    count = ((values.stop or 0) - (values.start or 0)) / values.step
    if not count <= MAX_JOBS:
        raise ConfigError(f"{override}: has {count:,.0f} values; a sweep has at most {MAX_JOBS:,} jobs")


def override_value(override: str) -> Any:
    """Returns the value of a `key=value` with one value, in plain types."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(override).value()


def last_typed(overrides: Iterable[str], key: str) -> str | None:
    """Returns the text of the value that `key=value` gives the key; the last one counts; None if the key is absent."""
    typed = dict(override.partition("=")[::2] for override in overrides)
    return typed.get(key)


def hydra_override(key: str, value: Any) -> str:
    """Writes `key=value` such that Hydra's grammar reads back the same value; text is quoted where necessary."""
    from hydra.core.override_parser.types import Override, Quote, QuotedString

    def in_quotes(value: Any) -> Any:
        if isinstance(value, str):
            return value if is_plain(value) else QuotedString(text=value, quote=Quote.single)
        if isinstance(value, list):
            return [in_quotes(item) for item in value]
        if isinstance(value, dict):
            return {name: in_quotes(item) for name, item in value.items()}
        return value

    return f"{key}={Override._get_value_element_as_str(in_quotes(value))}"


def quote_text(override: str) -> str:
    """Puts text that Hydra's grammar would read as something else in quotes: folders, and single words as `name=2024`.

    Quoted text stays as it is, and so does `null` where it means that there is no text.
    """
    key, equals, value = override.partition("=")
    if key not in TEXT_KEYS or value[:1] in ("'", '"') or not value:
        return override
    if key not in PATH_KEYS and (is_plain(value) or is_no_text(key, value) or not re.fullmatch(r"[\w.:+-]+", value)):
        return override
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return f"{key}{equals}'{escaped}'"


def is_plain(text: str) -> bool:
    """Whether Hydra's grammar reads the text as itself, without quotes."""
    return bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./:-]*", text)) and text.lower() not in RESERVED_WORDS


def is_no_text(key: str, value: str) -> bool:
    """Whether a typed value stands for the absence of an optional text."""
    return key in OPTIONAL_TEXT_KEYS and value.lower() in ("null", "~")


def unreadable_message(override: str) -> str:
    """The error message for an override that Hydra's grammar cannot read."""
    return f"{override}: cannot be read; expected key=value, with quotes around a value that holds = or brackets"
