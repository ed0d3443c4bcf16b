"""`python -m cnnbench [command] [key=value ...]`: which command, and how it ends."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable
from importlib import import_module

from cnnbench.errors import CnnbenchError, ConfigError, Untrusted, did_you_mean, ended

PROGRAM = ("python", "-m", "cnnbench")
COMMANDS = {  # name: (module, function); imported when it is called
    "plan": ("cnnbench.cli.plan", "main"),
    "status": ("cnnbench.cli.status", "main"),
    "report": ("cnnbench.cli.report", "main"),
    "compare": ("cnnbench.cli.compare", "main"),
    "reproduce": ("cnnbench.cli.reproduce", "main"),
    "evaluate": ("cnnbench.cli.evaluate", "main"),
    "predict": ("cnnbench.cli.predict", "main"),
    "info": ("cnnbench.cli.info", "main"),
    "features": ("cnnbench.cli.features", "main"),
    "fetch": ("cnnbench.cli.fetch", "main"),
    "preview": ("cnnbench.cli.preview", "main"),
    "ops": ("cnnbench.cli.ops", "main"),
    "list": ("cnnbench.cli.list", "main"),
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
        return _load("cnnbench.cli.list", "usage")(arguments)
    if first == "--version":
        return _load("cnnbench.cli.list", "version")(arguments)
    if first and "=" not in first and not first.startswith(("-", "+", "~")):
        raise ConfigError(
            f"{first}: no such command{did_you_mean(first, COMMANDS) or ';'} commands: {', '.join(COMMANDS)}, or key=value to train"
        )
    return _load("cnnbench.cli.train", "main")(arguments, shlex.join([*PROGRAM, *arguments]))


def _load(module: str, function: str) -> Callable[..., int | None]:
    return getattr(import_module(module), function)


if __name__ == "__main__":
    sys.exit(main())
