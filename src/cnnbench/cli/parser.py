"""The argument parser of the commands, which raises ConfigError with a one-line message."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from cnnbench.errors import ConfigError

IMAGE_SUFFIXES = (".png", ".pdf", ".svg", ".jpg")  # image formats that matplotlib writes


class Parser(argparse.ArgumentParser):
    """Parses the arguments of `python -m cnnbench COMMAND`; flags may come before, between or after the others."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"python -m cnnbench {command}", description=description, allow_abbrev=False)

    def parse_args(self, arguments: Any = None, namespace: Any = None) -> Any:
        """Parses the arguments.

        Raises:
            ConfigError: an argument is missing, unknown or wrong.
        """
        return self.parse_intermixed_args(arguments, namespace)

    def add_trust(self) -> None:
        """Adds `--trust`, for commands that load a run."""
        self.add_argument(
            "--trust",
            action="store_true",
            help="you trust the run: import and run code that its config names from outside cnnbench, torch and torchvision, "
            "such as a net of your own",
        )

    def add_ema(self) -> None:
        """Adds `--ema`, for commands that use a run's weights."""
        self.add_argument("--ema", action="store_true", help="use the averaged weights of a run with ema=...")

    def check_picture(self, flag: str, path: Path | None) -> None:
        """Checks that an image can be written to the path of a flag.

        Raises:
            ConfigError: the suffix is unknown, or the path is a folder or in no existing folder.
        """
        if path and path.suffix.lower() not in IMAGE_SUFFIXES:
            self.error(f"{flag} {path}: expected a name that ends in {', '.join(IMAGE_SUFFIXES)}")
        if path and path.is_dir():
            self.error(f"{flag} {path}: cannot be written, it is a folder")
        if path and not path.parent.is_dir():
            self.error(f"{flag} {path}: there is no folder {path.parent}")

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError instead of exiting."""
        raise ConfigError(f"{message}; type {self.prog} --help")
