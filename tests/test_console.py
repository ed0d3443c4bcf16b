"""The console of the commands."""

from __future__ import annotations

import io

from rich.console import Console

from cnnbench.console import FILE_WIDTH, make_console, print_plain


def test_a_file_gets_wide_tables(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert make_console().width == FILE_WIDTH


def test_plain_text_is_neither_wrapped_nor_interpreted():
    console = Console(file=io.StringIO(), width=20)
    text = "[bold]runs/a[0]/b[/bold] " * 5
    print_plain(console, text)
    assert console.file.getvalue() == text + "\n"
