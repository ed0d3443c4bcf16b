"""The console on which commands print."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

FILE_WIDTH = 160  # characters a line in a file or a pipe


def make_console() -> Console:
    """A console on stdout, as wide as the terminal; a file or a pipe takes wider tables."""
    console = Console()
    return console if console.is_terminal else Console(width=FILE_WIDTH)


def print_plain(console: Console, text: str, style: str | None = None) -> None:
    """Prints text as it is: without wrapping, highlighting or markup."""
    console.print(text, style=style, soft_wrap=True, highlight=False, markup=False)


def plain_table(*heads: str) -> Table:
    """An empty table without borders, with these column heads."""
    return Table(*heads, box=None, padding=(0, 2, 0, 0))
