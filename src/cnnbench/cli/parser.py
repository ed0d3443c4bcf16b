"""An argument parser whose mistakes are one line, like everybody's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from cnnbench.errors import ConfigError

PICTURES = (".png", ".pdf", ".svg", ".jpg")  # what matplotlib draws to


class Parser(argparse.ArgumentParser):
    """`python -m cnnbench COMMAND`'s arguments; flags may stand among the others."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"python -m cnnbench {command}", description=description, allow_abbrev=False)

    def parse_args(self, arguments: Any = None, namespace: Any = None) -> Any:
        """The arguments, positional ones before or after flags."""
        return self.parse_intermixed_args(arguments, namespace)

    def add_trust(self) -> None:
        """The flag of commands that load a run."""
        self.add_argument(
            "--trust",
            action="store_true",
            help="the run is yours or from somebody you trust: what it names beyond cnnbench, torch and torchvision, such as a net "
            "of your own, is imported and run",
        )

    def add_ema(self) -> None:
        """The flag of commands that use a run's weights."""
        self.add_argument("--ema", action="store_true", help="the averaged weights of a run with ema=...")

    def check_picture(self, flag: str, path: Path | None) -> None:
        """Whether a picture can be written there, before there is one."""
        if path and path.suffix.lower() not in PICTURES:
            self.error(f"{flag} {path}: expected a name that ends in {', '.join(PICTURES)}")
        if path and path.is_dir():
            self.error(f"{flag} {path}: cannot be written, it is a folder")
        if path and not path.parent.is_dir():
            self.error(f"{flag} {path}: there is no folder {path.parent}")

    def error(self, message: str) -> NoReturn:
        """Raises instead of exiting."""
        raise ConfigError(f"{message}; type {self.prog} --help")
