"""Paths with an umlaut, also where the locale is ASCII and Python would read them byte by byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import cnnbench.__main__ as program
from cnnbench.config.compose import compose
from cnnbench.errors import ConfigError
from picturefolders import folders
from small_nets import TINY

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def in_ascii_locale(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "cnnbench", *arguments]
    own = {**os.environ, **ASCII, **variables}
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, encoding="utf-8", check=False)


def test_in_an_ascii_locale_a_message_has_the_path_as_it_was_typed(tmp_path):
    (tmp_path / "Bücher").mkdir()
    for arguments in (["status", "runs/Größe"], ["report", "runs/Größe"], ["--config-dir", "Größe", "seed=1"]):
        done = in_ascii_locale(tmp_path / "Bücher", *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "Größe" in done.stderr


@pytest.mark.slow
def test_in_an_ascii_locale_every_path_may_have_an_umlaut(tmp_path):
    here = tmp_path / "Bücher"
    folders(here / "Bilder ä", {"Kätzchen": 15, "Hund": 15})
    (here / "Bilder ä" / "Hund" / "000.png").rename(here / "Bilder ä" / "Hund" / "größer.png")
    (here / "König" / "experiment").mkdir(parents=True)
    (here / "König" / "experiment" / "mine.yaml").write_text("# @package _global_\nepochs: 1\n")
    typed = ["data.root=Bilder ä", "runs_dir=Läufe", "--config-dir", "König", "experiment=mine"]
    net = ["data=imagefolder", "model=simplecnn", "threads=1"]
    done = in_ascii_locale(here, *typed, *net, CNNBENCH_DATA=str(tmp_path / "Höhle"))
    assert done.returncode == 0, done.stderr
    (path,) = here.glob("Läufe/*/*")
    saved = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    assert (saved["data"]["root"], saved["data"]["typed_root"]) == (str(here / "Bilder ä"), "Bilder ä")
    assert json.loads((path / "result.json").read_text(encoding="utf-8"))["classes"] == ["Hund", "Kätzchen"]
    assert str(path.relative_to(here)) in done.stdout
    assert "Kätzchen" in in_ascii_locale(here, "evaluate", str(path.relative_to(here))).stdout


@pytest.mark.parametrize(
    ("encoding", "options", "restarts"),
    [("ascii", {}, True), ("utf-8", {}, False), ("iso8859-1", {}, False), ("ascii", {"utf8": "0"}, False)],
)
def test_the_command_restarts_once_in_utf8_mode_where_names_are_read_as_ascii(monkeypatch, encoding, options, restarts):
    started = []
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    monkeypatch.setattr(sys, "_xoptions", options)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-W", "error", "-m", "cnnbench", "seed=1"])
    monkeypatch.setattr(os, "execv", lambda path, arguments: started.append((path, arguments)))
    program.restart_in_utf8_mode()
    again = (sys.executable, [sys.executable, "-X", "utf8", "-W", "error", "-m", "cnnbench", "seed=1"])
    assert started == [again] * restarts


@pytest.mark.parametrize("key", ["runs_dir", "data.root"])
@pytest.mark.parametrize(
    ("encoding", "advice"),
    [("utf-8", "rename it"), ("ascii", "the locale is ASCII, type LC_ALL=C.UTF-8 before the command")],
)
def test_a_folder_whose_name_cannot_be_saved_is_refused_in_one_line(monkeypatch, key, encoding, advice):
    typed = f"{key}=" + os.fsdecode(b"caf\xe9/x")
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    with pytest.raises(ConfigError) as raised:
        compose([*TINY[:2], typed])
    assert str(raised.value) == (
        f"{key}=caf?/x: expected a folder with a name in UTF-8; {advice}, or choose another one"
    )


@pytest.mark.parametrize("name", ["Bücher", "a b", "a,b", "it's", "[x]", "a=b", os.fsdecode(b"caf\xe9")])
def test_a_conf_folder_may_have_any_name(tmp_path, name):
    (tmp_path / name / "experiment").mkdir(parents=True)
    (tmp_path / name / "experiment" / "mine.yaml").write_text("# @package _global_\nepochs: 7\n")
    assert compose(["experiment=mine"], tmp_path / name).epochs == 7
