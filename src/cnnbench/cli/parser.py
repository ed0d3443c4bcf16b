"""The argument parser of the commands, which raises ConfigError with a one-line message."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from cnnbench.errors import PROGRAM, ConfigError

IMAGE_SUFFIXES = (".png", ".pdf", ".svg", ".jpg")  # image formats that matplotlib writes


class Parser(argparse.ArgumentParser):
    """Parses the arguments of `cnnbench COMMAND`; flags may come before, between or after the others."""

    def __init__(self, command: str, description: str, add_help: bool = True) -> None:
        super().__init__(
            prog=f"{PROGRAM} {command}".strip(),
            description=description,
            allow_abbrev=False,
            add_help=add_help,
        )

    def parse_args(self, arguments: Any = None, namespace: Any = None) -> Any:
        """Parses the arguments.

        Raises:
            ConfigError: an argument is missing, unknown or wrong.
        """
        options, others = self.parse_known_intermixed_args(arguments, namespace)
        if others:  # with an unknown flag these may hold a path, which its value has displaced
            flag = next((each.partition("=")[0] for each in others if each.startswith("-")), None)
            self.error(f"{flag}: no such flag" if flag else f"unrecognized arguments: {' '.join(others)}")
        return options

    def add_path(self, name: str, metavar: str, text: str, **settings: Any) -> None:
        """Adds a file or folder, by its place in the command or, if the name begins with --, by its flag."""
        self.add_argument(name, type=Path, metavar=metavar, help=text, **settings)

    def add_switch(self, flag: str, text: str) -> None:
        """Adds a flag without a value: true if it is typed."""
        self.add_argument(flag, action="store_true", help=text)

    def add_overrides(self, text: str, metavar: str = "key=value") -> None:
        """Adds the overrides that change a config, and `--config-dir`."""
        self.add_argument("overrides", nargs="*", metavar=metavar, help=text)
        self.add_config_dir()

    def add_config_dir(self) -> None:
        """Adds `--config-dir`, for commands that read the config groups."""
        self.add_path("--config-dir", "DIR", "a conf folder of yours, added to cnnbench's")

    def add_trust(self) -> None:
        """Adds `--trust`, for commands that load a run."""
        self.add_switch(
            "--trust",
            "you trust the run: import and run code that its config names from outside cnnbench, torch and torchvision, "
            "such as a net of your own",
        )

    def add_ema(self) -> None:
        """Adds `--ema`, for commands that use a run's weights."""
        self.add_switch("--ema", "use the averaged weights of a run with ema=...")

    def check_picture(self, flag: str, path: Path | None) -> None:
        """Checks that an image can be written to the path of a flag.

        Raises:
            ConfigError: the suffix is unknown, or the path is a folder or in no existing folder.
        """
        if path is None:
            return
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            self.error(f"{flag} {path}: expected a name that ends in {', '.join(IMAGE_SUFFIXES)}")
        if path.is_dir():
            self.error(f"{flag} {path}: cannot be written, it is a folder")
        if not path.parent.is_dir():
            self.error(f"{flag} {path}: there is no folder {path.parent}")

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError instead of exiting."""
        raise ConfigError(f"{message}; type {self.prog} --help")
