"""Instantiates `_target_` nodes: imports the dotted name, checks the arguments against its signature, calls it."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

from cnnbench.config.import_path import append_allowed_folder, hiding_module
from cnnbench.config.schema import Node
from cnnbench.config.trusted_names import TRUSTED_NAME
from cnnbench.errors import CnnbenchError, ConfigError, did_you_mean
from cnnbench.text import one_line, to_override

NUMBER_ANNOTATIONS = (int, float, "int", "float")
BOOL_ANNOTATIONS = (bool, "bool")
NAMED_KINDS = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def locate(node: Node, group: str) -> Callable[..., Any]:
    """Imports the class or function that the node names.

    Raises:
        ConfigError: the name cannot be imported, or is no class or function.
    """
    try:
        found = _resolve(node.target)
    except Exception as error:  # a user's module may raise anything
        top = node.target.partition(".")[0]
        hiding = hiding_module(top)
        expected = (
            f"{top} is {hiding}, which comes before the {top} of this folder: give that another name"
            if hiding
            else "expected a dotted name such as mypkg.MyNet, importable from the folder you are in"
        )
        raise ConfigError(
            f"{group}._target_={node.target}: cannot be imported ({one_line(error)}); {expected}"
        ) from error
    if not callable(found):
        raise ConfigError(f"{group}._target_={node.target}: is a {type(found).__name__}, expected a class or function")
    return found


def _resolve(name: str) -> Any:
    """Imports a dotted name; one that no installed module has is searched in the current folder, too."""
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        if TRUSTED_NAME.fullmatch(name) or not append_allowed_folder():
            raise
        return pkgutil.resolve_name(name)


def construct(node: Node, group: str, *positional: Any, **facts: Any) -> Any:
    """Calls the node's target with its arguments, and with those of `facts` that its signature names.

    Args:
        node: the target and its arguments.
        group: the config group of the node, for messages.
        positional: the first arguments of the target.
        facts: values that no config may set, such as `num_classes`.

    Raises:
        ConfigError: the target has no such argument, lacks one, or refuses a value.
    """
    target = locate(node, group)
    name = getattr(target, "__name__", node.target)
    try:
        parameters = signature(target).parameters
    except ValueError as error:  # some classes written in C have no signature
        raise ConfigError(
            f"{group}._target_={node.target}: its arguments are unknown; expected a Python class"
        ) from error
    kinds = [parameter.kind for parameter in parameters.values()]
    named = [key for key, parameter in parameters.items() if parameter.kind in NAMED_KINDS]
    filled = len(positional) - kinds.count(Parameter.POSITIONAL_ONLY)  # named ones that `positional` fills
    free = [key for key in named[max(0, filled) :] if key not in facts]
    for key, value in node.arguments.items():
        if key not in free and Parameter.VAR_KEYWORD not in kinds:
            near = did_you_mean(key, free) or ";"
            raise ConfigError(f"{group}.{key}: {name} takes no {key}{near} it takes: {', '.join(free) or 'nothing'}")
        if isinstance(value, bool) and key in free and parameters[key].annotation in NUMBER_ANNOTATIONS:
            raise ConfigError(f"{group}.{key}={to_override(value)}: {name} expects a number")
        if not isinstance(value, bool) and key in free and parameters[key].annotation in BOOL_ANNOTATIONS:
            raise ConfigError(f"{group}.{key}={to_override(value)}: {name} expects true or false")
    for key in free:
        if key not in node.arguments and parameters[key].default is Parameter.empty:
            raise ConfigError(f"{group}.{key}: {name} needs it; type +{group}.{key}=...")
    try:
        return target(*positional, **node.arguments, **{key: facts[key] for key in named if key in facts})
    except CnnbenchError:
        raise
    except Exception as error:  # a target may raise anything for a value that it does not expect
        raise ConfigError(_refusal(error, node, group, name, parameters)) from error


def _refusal(error: Exception, node: Node, group: str, name: str, parameters: Mapping[str, Parameter]) -> str:
    """Returns one line on an error that the target raised; names the argument, if exactly one has an unusual type."""
    reason = one_line(error)
    defaults = {key: parameters[key].default for key in node.arguments if key in parameters}
    odd = [key for key, default in defaults.items() if _differ_in_kind(node.arguments[key], default)]
    if len(odd) == 1:
        (key,) = odd
        value, default = to_override(node.arguments[key]), to_override(defaults[key])
        return f"{group}.{key}={value}: {name} refuses it ({reason}); its default is {default}"
    given = ", ".join(f"{key}={to_override(value)}" for key, value in node.arguments.items())
    return f"{group}: {name}({given}) is refused: {reason}"


def _differ_in_kind(value: Any, default: Any) -> bool:
    """Whether a value and an argument's default are of different kinds, as a list and a number are."""
    if value is None or default is None or default is Parameter.empty:
        return False

    def kind(item: Any) -> type:
        if isinstance(item, Sequence) and not isinstance(item, str):
            return list
        return float if type(item) is int else type(item)

    return kind(value) is not kind(default)


def accepts(target: Callable[..., Any], argument: str) -> bool:
    """Whether a class or function has an argument of that name, or takes any keyword argument."""
    try:
        parameters = signature(target).parameters
    except ValueError:  # some classes written in C have no signature
        return False
    return any(
        parameter.kind is Parameter.VAR_KEYWORD or (name == argument and parameter.kind in NAMED_KINDS)
        for name, parameter in parameters.items()
    )
