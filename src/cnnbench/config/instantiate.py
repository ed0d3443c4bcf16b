"""`_target_` nodes to objects: found by dotted name, checked against the signature, built."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

from cnnbench.config.schema import Node
from cnnbench.errors import ConfigError, did_you_mean
from cnnbench.text import as_typed

NUMBERS = (int, float, "int", "float")  # annotations for which true is not 1


def locate(node: Node, group: str) -> Callable[..., Any]:
    """The class or function that the node names."""
    try:
        found = pkgutil.resolve_name(node.target)
    except Exception as error:  # whatever a module of the user's own raises
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{group}._target_={node.target}: cannot be imported ({reason}); expected a dotted name such as mypkg.MyNet, "
            "importable from the folder you are in"
        ) from error
    if not callable(found):
        raise ConfigError(f"{group}._target_={node.target}: is a {type(found).__name__}, expected a class or function")
    return found


def construct(node: Node, group: str, *positional: Any, **facts: Any) -> Any:
    """Calls the node's target with its arguments, and with those of `facts` that it names.

    Raises:
        ConfigError: the target has no such argument, or refuses a value.
    """
    target = locate(node, group)
    try:
        signature = inspect.signature(target)
    except ValueError as error:  # some classes written in C have none
        raise ConfigError(
            f"{group}._target_={node.target}: its arguments are unknown; expected a Python class"
        ) from error
    named = [name for name, p in signature.parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    unnamed = sum(p.kind is p.POSITIONAL_ONLY for p in signature.parameters.values())
    free = [key for key in named[max(0, len(positional) - unnamed) :] if key not in facts]
    name = getattr(target, "__name__", node.target)
    for key in node.arguments:
        if key not in free and not open_ended:
            near = did_you_mean(key, free) or ";"
            raise ConfigError(f"{group}.{key}: {name} takes no {key}{near} it takes: {', '.join(free) or 'nothing'}")
    for key, value in node.arguments.items():
        if isinstance(value, bool) and key in free and signature.parameters[key].annotation in NUMBERS:
            raise ConfigError(f"{group}.{key}={as_typed(value)}: {name} expects a number")
    wanted = {key: value for key, value in facts.items() if key in named}
    lacking = [
        n for n in free if signature.parameters[n].default is inspect.Parameter.empty and n not in node.arguments
    ]
    if lacking:
        raise ConfigError(f"{group}.{lacking[0]}: {name} needs it; type +{group}.{lacking[0]}=...")
    try:
        return target(*positional, **node.arguments, **wanted)
    except (ValueError, TypeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        odd = [key for key, value in node.arguments.items() if _of_another_kind(value, signature.parameters.get(key))]
        if len(odd) == 1:
            key, default = odd[0], as_typed(signature.parameters[odd[0]].default)
            raise ConfigError(
                f"{group}.{key}={as_typed(node.arguments[key])}: {name} refuses it ({reason}); its default is {default}"
            ) from error
        given = ", ".join(f"{key}={as_typed(value)}" for key, value in node.arguments.items())
        raise ConfigError(f"{group}: {name}({given}) is refused: {reason}") from error


def _of_another_kind(value: Any, parameter: inspect.Parameter | None) -> bool:
    """A value is a list where the default is none, or the other way round; a number where it is a text, ..."""
    default = parameter.default if parameter else None
    if default is None or default is inspect.Parameter.empty or value is None:
        return False
    kinds = [
        list if isinstance(item, Sequence) and not isinstance(item, str) else type(item) for item in (value, default)
    ]
    return len({float if kind is int else kind for kind in kinds}) > 1


def takes(target: Callable[..., Any], key: str) -> bool:
    """Whether a class or function has an argument of that name, or takes any."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except ValueError:  # some classes written in C have none
        return False
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return any(p.kind is p.VAR_KEYWORD or (p.name == key and p.kind in named) for p in parameters)
