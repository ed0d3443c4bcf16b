"""The console on which commands print: text from files, which may be of somebody else, moves no cursor and sets no colour."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from cnnbench.text import printable, shorten

FILE_WIDTH = 160  # characters a line in a file or a pipe


class Console(rich.console.Console):
    """A console that shows every text as it is: `printable`, without markup as `[red]` and codes as `:smile:`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, **settings)

    @property
    def file(self) -> IO[str]:
        """The stream to write to; one that makes text printable gets it with the console's own colours."""
        stream = super().file
        return getattr(stream, "styled", stream)

    @file.setter
    def file(self, stream: IO[str]) -> None:
        self._file = stream

    def render_str(self, text: str, **settings: Any) -> Text:
        """A text of one line, as in a cell of a table; made printable before its width is measured."""
        return super().render_str(printable(shorten(text, 1000)), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Makes every text printable, from wherever it comes; leaves rich's own control codes."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text, keep="\n"))


def make_console() -> Console:
    """A console on stdout, as wide as the terminal; a file or a pipe takes wider tables."""
    console = Console()
    return console if console.is_terminal else Console(width=FILE_WIDTH)


def plain_text(text: str, style: str = "", **settings: Any) -> Text:
    """A text in one line for a console: printable, without highlighting and markup, shortened where it is very long."""
    return Text(printable(shorten(text)), style, **settings)


def print_plain(console: rich.console.Console, text: str, style: str | None = None) -> None:
    """Prints text as it is, in one line: without wrapping, highlighting or markup."""
    console.print(plain_text(text), style=style, soft_wrap=True, highlight=False)


def plain_table(*heads: str) -> Table:
    """An empty table without borders, with these column heads."""
    return Table(*heads, box=None, padding=(0, 2, 0, 0))
