"""`cnnbench [command] [key=value ...]`: chooses the command, and returns its exit code."""

import os
import sys

if __name__ == "__main__" and not getattr(sys.flags, "safe_path", sys.flags.isolated):
    # `python -m` has put the current folder first. It may be a stranger's, with a yaml.py: nothing is imported before it is gone.
    try:  # noqa: SIM105  (contextlib would be imported from there)
        sys.path[:1] = [folder for folder in sys.path[:1] if folder != os.getcwd()]
    except OSError:  # the folder was removed, and Python has put none
        pass

import io
import shlex
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

from cnnbench.config import import_path
from cnnbench.errors import PROGRAM, CnnbenchError, ConfigError, Untrusted, did_you_mean, exit_code_of, print_traceback
from cnnbench.output import guarded_output

COMMANDS = (  # each is the function `main` of a module of cnnbench.cli, imported when called
    "plan status report compare merge clean reproduce evaluate predict info features fetch preview ops list"
).split()
FLAGS_WITH_VALUE = "--config-dir --fail-if-worse --image --layer --out --root --show --split --top --tta".split()
LISTINGS = "list status info compare plan evaluate predict preview --help -h help --version".split()


def main(arguments: list[str] | None = None) -> int:
    """Runs the command of these arguments, by default of the command line; returns the exit code."""
    if arguments is None:
        restart_in_utf8_mode()
        arguments = sys.argv[1:]
        warnings.filterwarnings("ignore", module=r"PIL\.")  # as on damaged EXIF data: the picture is what counts
        # the message of a bug may hold text of others
        sys.excepthook = lambda kind, error, trace: print_traceback(error)
        with suppress(OSError):  # the folder was removed
            import_path.allow(os.getcwd())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # × and – on an ASCII terminal

    def hint(error: CnnbenchError) -> str:
        return f": {shlex.join([PROGRAM, *arguments, '--trust'])}" if isinstance(error, Untrusted) else ""

    def work() -> int | None:
        code = _command(arguments)
        sys.stdout.flush()
        return code

    with guarded_output(end=only_prints(arguments)):
        return exit_code_of(work, hint)


def only_prints(arguments: list[str]) -> bool:
    """Whether a command prints what it finds and does nothing else, or prints it last."""
    command = split_command(arguments)[0] or "".join(arguments[:1])
    return command in LISTINGS or "--text" in arguments or (command == "clean" and "--yes" not in arguments)


def restart_in_utf8_mode() -> None:
    """Replaces this process by one in Python's UTF-8 mode if file names are read as ASCII: an ü in a path could not be saved."""
    if sys.getfilesystemencoding() == "ascii" and "utf8" not in sys._xoptions and sys.executable:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def split_command(arguments: list[str]) -> tuple[str, list[str]]:
    """Returns the command, before which flags may be typed, and the other arguments.

    The command is the first argument that is neither a flag nor a flag's value; it is empty if that is `key=value`.
    """
    for at, argument in enumerate(arguments):
        is_value = at > 0 and arguments[at - 1] in FLAGS_WITH_VALUE
        if not is_value and not argument.startswith("-"):
            is_override = "=" in argument or argument.startswith(("+", "~"))
            return ("", arguments) if is_override else (argument, arguments[:at] + arguments[at + 1 :])
    return "", arguments


def _command(arguments: list[str]) -> int | None:
    command, others = split_command(arguments)
    if command in COMMANDS:
        return _load(command)(others)
    if command == "help" or "--help" in arguments or "-h" in arguments:
        return _load("list", "usage")(arguments)
    if "--version" in arguments:
        return _load("list", "version")(arguments)
    if command:
        near = did_you_mean(command, COMMANDS) or ";"
        raise ConfigError(f"{command}: no such command{near} commands: {', '.join(COMMANDS)}, or key=value to train")
    return _load("train")(arguments, shlex.join([PROGRAM, *arguments]))


def _load(command: str, function: str = "main") -> Callable[..., int | None]:
    return getattr(import_module(f"cnnbench.cli.{command}"), function)


if __name__ == "__main__":
    sys.exit(main())
