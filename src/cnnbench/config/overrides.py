"""`key=value`, as typed and as Hydra's grammar reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnbench.errors import ConfigError

PATHS = ("data.root", "runs_dir")  # keys whose values are folders
RESERVED = ("null", "true", "false", "nan", "inf")  # words that mean no text in Hydra's grammar


@dataclass(frozen=True)
class Typed:
    """Overrides taken apart: by key, `fixed` has what was typed, `swept` has the values of a key that was given several."""

    fixed: dict[str, str]
    swept: dict[str, list[Any]]


def read_overrides(overrides: Iterable[str], known: dict[str, dict[str, Path]]) -> Typed:
    """Reads `key=value`, `key=a,b`, `key=range(5)`, `model=glob(resnet*)`; what is typed later wins.

    Raises:
        ConfigError: one of them cannot be read.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob
    from hydra.errors import HydraException

    typed, parser = Typed({}, {}), OverridesParser.create()
    for text in map(quoted, overrides):
        try:
            parsed = parser.parse_override(text)
        except HydraException as error:
            raise ConfigError(unreadable(text)) from error
        assert parsed.key_or_group is not None
        key = f"+{parsed.key_or_group}" if parsed.is_add() or parsed.is_force_add() else parsed.key_or_group
        typed.fixed.pop(key, None)
        typed.swept.pop(key, None)
        if not parsed.is_sweep_override():
            typed.fixed[key] = text
            continue
        if parsed.is_interval_sweep():
            raise ConfigError(f"{text}: an interval has no end of values; type some of them, as in {key}=0.01,0.1")
        values = parsed.value()
        if isinstance(values, Glob):
            typed.swept[key] = values.filter(list(known.get(key, {})))
            if not typed.swept[key]:
                raise ConfigError(f"{text}: none of the choices; they are: {', '.join(known.get(key, {})) or 'none'}")
        else:
            typed.swept[key] = [_plain(value) for value in parsed.sweep_iterator()]
    return typed


def value_of(override: str) -> Any:
    """The value of a `key=value` that `read_overrides` took for fixed."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return _plain(OverridesParser.create().parse_override(override).value())


def _plain(value: Any) -> Any:
    """A value of Hydra's grammar as Python has it."""
    from hydra.core.override_parser.types import QuotedString

    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(name): _plain(item) for name, item in value.items()}
    return value


def as_override(key: str, value: Any) -> str:
    """`key=value` as Hydra's grammar reads it, whatever characters the value has."""
    from hydra.core.override_parser.types import Override, Quote, QuotedString

    def in_quotes(value: Any) -> Any:
        if isinstance(value, str):
            plain = re.fullmatch(r"[A-Za-z_][\w./:-]*", value) and value.lower() not in RESERVED
            return value if plain else QuotedString(text=value, quote=Quote.single)
        if isinstance(value, list):
            return [in_quotes(item) for item in value]
        if isinstance(value, dict):
            return {name: in_quotes(item) for name, item in value.items()}
        return value

    return f"{key}={Override._get_value_element_as_str(in_quotes(value))}"


def quoted(override: str) -> str:
    """A path in quotes, for Hydra's grammar refuses many a folder's name; one that has them already stays as it is."""
    key, equals, value = override.partition("=")
    if key not in PATHS or value[:1] in ("'", '"') or not value:
        return override
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return f"{key}{equals}'{escaped}'"


def unreadable(override: str) -> str:
    """What is said of an override that the grammar does not know."""
    return f"{override}: cannot be read; expected key=value, with quotes around a value that holds = or brackets"
