"""`python -m cnnbench [command] [key=value ...]`: chooses the command, and returns its exit code."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable
from importlib import import_module

from cnnbench.errors import CnnbenchError, ConfigError, Untrusted, did_you_mean, exit_code_of

PROGRAM = ("python", "-m", "cnnbench")
COMMANDS = (  # each is the function `main` of a module of cnnbench.cli, imported when called
    "plan status report compare reproduce evaluate predict info features fetch preview ops list"
).split()


def main(arguments: list[str] | None = None) -> int:
    """Runs the command of these arguments, by default of the command line; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # × and – on an ASCII terminal

    def hint(error: CnnbenchError) -> str:
        return f": {shlex.join([*PROGRAM, *arguments, '--trust'])}" if isinstance(error, Untrusted) else ""

    return exit_code_of(lambda: _command(arguments), hint)


def _command(arguments: list[str]) -> int | None:
    first = arguments[0] if arguments else ""
    if first in COMMANDS:
        return _load(first)(arguments[1:])
    if first in ("--help", "-h", "help") or "--help" in arguments or "-h" in arguments:
        return _load("list", "usage")(arguments)
    if first == "--version":
        return _load("list", "version")(arguments)
    if first and "=" not in first and not first.startswith(("-", "+", "~")):
        raise ConfigError(
            f"{first}: no such command{did_you_mean(first, COMMANDS) or ';'} commands: {', '.join(COMMANDS)}, or key=value to train"
        )
    return _load("train")(arguments, shlex.join([*PROGRAM, *arguments]))


def _load(command: str, function: str = "main") -> Callable[..., int | None]:
    return getattr(import_module(f"cnnbench.cli.{command}"), function)


if __name__ == "__main__":
    sys.exit(main())
