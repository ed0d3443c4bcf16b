"""`_target_` nodes to objects: found by dotted name, checked against the signature, built."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

from cnnbench.config import Node, as_typed
from cnnbench.errors import ConfigError, did_you_mean


def locate(node: Node, group: str) -> Callable[..., Any]:
    """The class or function that the node names."""
    try:
        found = pkgutil.resolve_name(node.target)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{group}._target_={node.target}: cannot be imported ({error}); expected a dotted name such as mypkg.MyNet, "
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
    free = [name for name in named[len(positional) :] if name not in facts]
    for key in node.arguments:
        if key not in free and not open_ended:
            near = did_you_mean(key, free) or ";"
            raise ConfigError(
                f"{group}.{key}: {target.__name__} takes no {key}{near} it takes: {', '.join(free) or 'nothing'}"
            )
    wanted = {name: value for name, value in facts.items() if name in named}
    lacking = [
        n for n in free if signature.parameters[n].default is inspect.Parameter.empty and n not in node.arguments
    ]
    if lacking:
        raise ConfigError(f"{group}.{lacking[0]}: {target.__name__} needs it; type +{group}.{lacking[0]}=...")
    try:
        return target(*positional, **node.arguments, **wanted)
    except (ValueError, TypeError, AssertionError) as error:
        given = ", ".join(f"{key}={as_typed(value)}" for key, value in node.arguments.items())
        raise ConfigError(f"{group}: {target.__name__}({given}) is refused: {' '.join(str(error).split())}") from error
