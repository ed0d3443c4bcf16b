"""The console of the commands."""

from __future__ import annotations

import io

import pytest
from rich.console import Group
from rich.text import Text

from cnnbench.console import FILE_WIDTH, Console, make_console, plain_table, plain_text, print_plain


def test_a_file_gets_wide_tables(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert make_console().width == FILE_WIDTH


def test_plain_text_is_neither_wrapped_nor_interpreted():
    console = Console(file=io.StringIO(), width=20)
    text = "[bold]runs/a[0]/b[/bold] " * 5
    print_plain(console, text)
    assert console.file.getvalue() == text + "\n"


HOSTILE = "[red]a[/] [/] :smile: \x1b[8m\x1b]8;;http://x\x9b\u202e"
SHOWN = r"[red]a[/] [/] :smile: \x1b[8m\x1b]8;;http://x\x9b\u202e"


def table_of(text):
    table = plain_table(text)
    table.add_row(text)
    return table


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    "made",
    [str, Text, plain_text, table_of, lambda text: Group(text, Text(text)), lambda text: Text.assemble((text, "bold"))],
)
def test_every_text_is_shown_as_it_is(made, terminal):
    console = Console(file=io.StringIO(), width=200, force_terminal=terminal, color_system=None)
    console.print(made(HOSTILE))
    lines = console.file.getvalue().splitlines()
    assert lines
    assert {line.rstrip() for line in lines} == {SHOWN}


def test_a_line_stays_a_line():
    console = Console(file=io.StringIO())
    print_plain(console, "a\ncnnbench: b\rc", "bold")
    assert console.file.getvalue() == r"a\ncnnbench: b\rc" + "\n"


def test_colours_of_ours_are_kept():
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard")
    print_plain(console, "a", "red")
    assert console.file.getvalue() == "\x1b[31ma\x1b[0m\n"


def test_a_very_long_text_is_shortened():
    console = Console(file=io.StringIO())
    print_plain(console, "a" * 1_000_000)
    console.print(table_of("b" * 1_000_000))
    assert len(console.file.getvalue()) < 20_000
