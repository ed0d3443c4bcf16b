"""Reads and writes `key=value` overrides in Hydra's grammar."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnbench.errors import ConfigError

PATH_KEYS = ("data.root", "runs_dir")  # keys whose values are folders
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
    for text in map(quote_path, overrides):
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
            typed.swept[key] = list(parsed.sweep_iterator(Override._convert_value))  # without quotes
    return typed


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
            plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./:-]*", value) and value.lower() not in RESERVED_WORDS
            return value if plain else QuotedString(text=value, quote=Quote.single)
        if isinstance(value, list):
            return [in_quotes(item) for item in value]
        if isinstance(value, dict):
            return {name: in_quotes(item) for name, item in value.items()}
        return value

    return f"{key}={Override._get_value_element_as_str(in_quotes(value))}"


def quote_path(override: str) -> str:
    """Puts a folder's name in quotes, which Hydra's grammar needs for many characters; a quoted one stays as it is."""
    key, equals, value = override.partition("=")
    if key not in PATH_KEYS or value[:1] in ("'", '"') or not value:
        return override
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return f"{key}{equals}'{escaped}'"


def unreadable_message(override: str) -> str:
    """The error message for an override that Hydra's grammar cannot read."""
    return f"{override}: cannot be read; expected key=value, with quotes around a value that holds = or brackets"
