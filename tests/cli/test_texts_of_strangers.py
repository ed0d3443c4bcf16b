"""Texts in the files of somebody else: no command prints a character that a terminal obeys, and none offers them as a command."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.dom import minidom

import pytest

from cnnbench.__main__ import main
from strangers import ALL, COLOURS, FIELDS, TEXTS, obeyed, sweep_with

LISTINGS = (["status", "{}"], ["report", "--text", "{}"], ["compare", "{}", "other"], ["clean", "{}"])
SHOWN = (  # fields that one of these listings shows
    "question", "level", "reason", "host of the launcher", "claim", "folder that the sweep does not list",
    "value of a config", "key of a config", "choice", "hardware", "code",
)  # fmt: skip


def listings(capsys, path: str) -> str:
    """What the listings print about a sweep, on stdout and stderr."""
    texts = []
    for words in LISTINGS:
        assert main([word.format(path) for word in words]) in (0, 1, 2)
        texts += capsys.readouterr()
    return "".join(texts)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty current folder but for the sweep `other`."""
    monkeypatch.chdir(tmp_path)
    return sweep_with(tmp_path / "other", "question", "why?").parent


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_of_a_sweep_reaches_the_terminal_raw(field, folder, capsys):
    sweep_with(folder / "theirs", field, ALL)
    text = listings(capsys, "theirs")
    assert obeyed(text) == []
    assert (r"\x1b[8m" in text) >= (field in SHOWN)


@pytest.mark.slow
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("kind", TEXTS)
def test_no_text_in_no_field_reaches_the_terminal_raw(kind, field, folder, capsys):
    sweep_with(folder / "theirs", field, TEXTS[kind])
    assert obeyed(listings(capsys, "theirs")) == []


@pytest.mark.parametrize("kind", [kind for kind, text in TEXTS.items() if text.isprintable()])
def test_markup_and_other_printable_text_is_shown_as_it_is(kind, folder, capsys):
    sweep_with(folder / "theirs", "question", TEXTS[kind])
    assert main(["status", "theirs"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == TEXTS[kind]


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_reaches_a_file_of_the_report_raw(field, folder, capsys):
    sweep_with(folder / "theirs", field, ALL)
    assert main(["report", "theirs"]) == 0
    files = [path for name in ("*.md", "summary.csv", "figures/*.svg") for path in (folder / "theirs").glob(name)]
    assert len(files) > 2
    for path in files:
        assert obeyed(path.read_text()) == []
    for path in (folder / "theirs").glob("figures/*.svg"):
        minidom.parse(str(path))
    page = (folder / "theirs" / "report.html").read_text()
    ours = re.sub(r"<script>/\*\*\s.*?</script>", "", page, flags=re.DOTALL)  # plotly.js
    assert len(ours) < len(page) / 2
    assert obeyed(ours) == []


def test_nothing_but_colours_reaches_a_terminal(folder):
    """In a pseudo terminal, in which rich adds its own colours."""
    sweep_with(folder / "theirs", "question", ALL)
    for field in ("reason", "claim", "level", "host of the launcher"):
        FIELDS[field](folder / "theirs", ALL)
    for words in LISTINGS[:2]:
        shown = in_terminal([word.format("theirs") for word in words])
        assert "\x1b[" in shown  # it has colours
        assert r"\x1b[8m" in shown
        assert obeyed(COLOURS.sub("", shown).replace("\r\n", "\n")) == []
        assert "\x1b[8m" not in shown


def test_an_error_in_a_terminal_is_red_and_its_text_printable(folder):
    name = "no\x1b]0;title\x07such"
    shown = in_terminal(["status", name])
    assert shown == f"\x1b[31mcnnbench: {name}".replace("\x1b]", r"\x1b]").replace("\x07", r"\x07") + (
        ": not a sweep, it holds no sweep.json; a sweep is made by cnnbench -m key=a,b ...\x1b[0m\r\n"
    )


def in_terminal(arguments: list[str]) -> str:
    """What a command writes to a terminal of 200 columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-c", "import sys; from cnnbench.__main__ import main; sys.exit(main())", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 65536):
            written += piece
    except OSError:  # the process has ended
        pass
    process.wait(timeout=30)
    os.close(ours)
    return written.decode()


# ---- commands ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in TEXTS if kind != "a lone surrogate"])
@pytest.mark.parametrize("field", ["command", "name"])
def test_the_command_that_status_and_merge_offer_runs_nothing_else(field, kind, folder, capsys):
    sweep_with(folder / "theirs", field, TEXTS[kind])
    assert main(["status", "theirs"]) == 0
    offered = re.findall("again(?: as well)?: (.*)", " ".join(capsys.readouterr().out.split("\n")))[0]
    words = offered.partition(" to run the failed")[0].split()
    assert words[:2] == ["cnnbench", "-m"]
    assert words[2:] in ([], ["..."], ["name=theirs", "..."])


def test_a_command_that_is_a_sweeps_is_offered_with_each_word_quoted(folder, capsys):
    typed = ["-m", "experiment=demo", "sweep.question=is it $(so); or `not`?", "optimizer.lr=0.1,0.2"]
    sweep_with(folder / "theirs", "command", "x")
    values = json.loads((folder / "theirs" / "sweep.json").read_text())
    (folder / "theirs" / "sweep.json").write_text(json.dumps({**values, "command": shlex.join(["cnnbench", *typed])}))
    assert main(["status", "theirs"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"type the same command again: {shlex.join(['cnnbench', *typed])} to run" in shown


# ---- spreadsheets ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", ' "=1', "＝1"])
@pytest.mark.parametrize("field", ["reason", "level", "key"])
def test_a_cell_of_summary_csv_is_no_formula(field, text, folder):
    sweep_with(folder / "theirs", field, text)
    assert main(["report", "theirs"]) == 0
    with (folder / "theirs" / "summary.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if re.match(r"[\s\"]*[=+\-@\t\r＝]", cell) and not is_number(cell)]


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
