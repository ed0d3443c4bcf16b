"""`python -m cnnbench [command] [key=value ...]`: which command, and how it ends."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable
from importlib import import_module

from cnnbench.errors import CnnbenchError, ConfigError, Untrusted, did_you_mean
from cnnbench.exits import ended

PROGRAM = ("python", "-m", "cnnbench")
COMMANDS = {  # name: (module, function); imported when it is called
    "plan": ("cnnbench.plan", "main"),
    "status": ("cnnbench.status", "main"),
    "report": ("cnnbench.report.command", "main"),
    "compare": ("cnnbench.report.compare", "main"),
    "reproduce": ("cnnbench.reproduce", "main"),
    "evaluate": ("cnnbench.evaluate", "main"),
    "predict": ("cnnbench.predict", "main"),
    "info": ("cnnbench.info", "main"),
    "features": ("cnnbench.features", "main"),
    "fetch": ("cnnbench.fetch", "main"),
    "preview": ("cnnbench.preview", "main"),
    "ops": ("cnnbench.ops.command", "main"),
    "list": ("cnnbench.listing", "main"),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # × and – on a terminal that knows ASCII only

    def hint(error: CnnbenchError) -> str:
        return f": {shlex.join([*PROGRAM, *arguments, '--trust'])}" if isinstance(error, Untrusted) else ""

    return ended(lambda: _command(arguments), hint)


def _command(arguments: list[str]) -> int | None:
    first = arguments[0] if arguments else ""
    if first in COMMANDS:
        return _load(*COMMANDS[first])(arguments[1:])
    if first in ("--help", "-h", "help") or "--help" in arguments or "-h" in arguments:
        return _load("cnnbench.listing", "usage")(arguments)
    if first == "--version":
        return _load("cnnbench.listing", "version")(arguments)
    if first and "=" not in first and not first.startswith(("-", "+", "~")):
        raise ConfigError(
            f"{first}: no such command{did_you_mean(first, COMMANDS) or ';'} commands: {', '.join(COMMANDS)}, or key=value to train"
        )
    return _load("cnnbench.command", "main")(arguments, shlex.join([*PROGRAM, *arguments]))


def _load(module: str, function: str) -> Callable[..., int | None]:
    return getattr(import_module(module), function)


if __name__ == "__main__":
    sys.exit(main())
