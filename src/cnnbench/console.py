"""The console that commands print on."""

from __future__ import annotations

from rich.console import Console

FILE_WIDTH = 160  # characters, where it is no terminal


class Piped(Console):
    """Leaves it to the command what becomes of it where nobody reads any more, as in `| head`."""

    def on_broken_pipe(self) -> None:
        """Rich would end with 1 here."""
        raise BrokenPipeError


def make_console() -> Console:
    """Where things are shown; a file takes wider tables than a terminal."""
    console = Piped()
    return console if console.is_terminal else Piped(width=FILE_WIDTH)


def plain(console: Console, text: str, style: str | None = None) -> None:
    """A line as it is."""
    console.print(text, style=style, soft_wrap=True, highlight=False, markup=False)
