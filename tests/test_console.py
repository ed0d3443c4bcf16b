"""The console of the commands."""

from __future__ import annotations

import io

import pytest

from cnnbench.console import FILE_WIDTH, PipeSafeConsole, make_console, print_plain


class ClosedPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_file_gets_wide_tables(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert make_console().width == FILE_WIDTH


def test_plain_text_is_neither_wrapped_nor_interpreted():
    console = PipeSafeConsole(file=io.StringIO(), width=20)
    text = "[bold]runs/a[0]/b[/bold] " * 5
    print_plain(console, text)
    assert console.file.getvalue() == text + "\n"


def test_a_closed_pipe_raises_instead_of_exiting():
    with pytest.raises(BrokenPipeError):
        print_plain(PipeSafeConsole(file=ClosedPipe()), "text")
