"""Writes a figure to the file that a flag names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, flag: str, path: Path, dpi: int = 120) -> None:
    """Writes a figure to a PNG, PDF, SVG or JPEG file, by the ending of its name.

    Raises:
        ConfigError: the file cannot be written; the message names the flag.
    """
    try:
        figure.savefig(path, dpi=dpi)
    except OSError as error:
        raise ConfigError(f"{flag} {path}: cannot be written ({error.strerror or error}); type another file") from error
    except ValueError as error:
        raise ConfigError(f"{flag} {path}: cannot be written ({error}); type a name that ends in .png") from error
