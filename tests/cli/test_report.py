"""`cnnbench report`: the files that it writes, the text that it prints, the folders that it refuses."""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import made_sweeps as made
from cnnbench.__main__ import main
from cnnbench.runs.sweep_dir import SweepDir

A, B = {"model": "a"}, {"model": "b"}
GOOD, BETTER = {0: 0.80, 1: 0.82, 2: 0.81}, {0: 0.85, 1: 0.88, 2: 0.86}
ANSWER = "b raises test accuracy by 5.3 points against a"


def make_sweep(folder):
    """A sweep of two settings with three seeds each, as `runs/mine` in a folder."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 50)

    def run_with(accuracy):
        logits = rng.normal(0, 1, (50, 3))
        return {"accuracy": accuracy, "epochs": made.epochs([1.0, 0.5]), "logits": logits, "targets": targets}

    settings = ((A, GOOD), (B, BETTER))
    cells = [(setting, {seed: run_with(value) for seed, value in values.items()}) for setting, values in settings]
    return made.sweep(folder / "runs" / "mine", cells, question="Does it?", baseline=A)


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_sweep(tmp_path)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A sweep after its report: its folder, its files before, and the text that was printed."""
    folder = make_sweep(tmp_path_factory.mktemp("reported"))
    before, printed = files(folder), io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["report", str(folder)]) == 0
    return SimpleNamespace(folder=folder, before=before, printed=printed.getvalue())


def report(capsys, *arguments, code=0):
    assert main(["report", *map(str, arguments)]) == code
    return capsys.readouterr().out


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# ---- what it writes ----------------------------------------------------------------------------------------------------------


def test_it_writes_page_text_table_and_figures_and_prints_the_answer(reported):
    names = ("accuracy", "curves", "confusion", "reliability")
    pictures = {f"figures/{name}.{kind}" for name in names for kind in ("svg", "png")}
    assert files(reported.folder) - reported.before == {"report.html", "report.md", "summary.csv"} | pictures
    assert ANSWER in reported.printed


def test_figures_have_the_format_of_their_suffix(reported):
    assert (reported.folder / "figures" / "accuracy.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "<svg" in (reported.folder / "figures" / "accuracy.svg").read_text()[:2000]


def test_a_second_report_writes_the_same_files(reported, capsys):
    first = {name: (reported.folder / name).read_bytes() for name in files(reported.folder)}
    report(capsys, reported.folder)
    changed = {name for name in first if (reported.folder / name).read_bytes() != first[name]}
    assert changed <= {"report.html"}  # it states the time


def test_the_markdown_has_question_answer_and_figures(reported):
    text = (reported.folder / "report.md").read_text()
    assert text.startswith("# Does it?\n")
    assert ANSWER in text
    assert "| b | 3 | ★ 0.8633 |" in text
    assert "![accuracy](figures/accuracy.svg)" in text


def test_summary_csv_has_one_row_per_run(reported):
    rows = list(csv.DictReader((reported.folder / "summary.csv").open()))
    assert [(row["model"], row["seed"], row["state"], float(row["test/acc"])) for row in rows] == [
        (name, str(seed), "done", accuracy)
        for name, values in (("a", GOOD), ("b", BETTER))
        for seed, accuracy in values.items()
    ]


def test_text_prints_answer_and_settings_and_writes_nothing(sweep, capsys):
    before = files(sweep)
    printed = report(capsys, "runs/mine", "--text")
    assert " ".join(ANSWER.split()) in " ".join(printed.split())
    assert "0.8633" in printed
    assert files(sweep) == before


@pytest.mark.slow
def test_out_names_another_folder(sweep, capsys, tmp_path):
    before = files(sweep)
    report(capsys, "runs/mine", "--out", tmp_path / "out")
    assert files(sweep) == before
    assert {"report.html", "report.md", "summary.csv"} <= files(tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_refused_with_the_option_to_type(sweep, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert main(["report", "runs/mine", "--out", str(tmp_path / "file")]) == 2
    assert "choose another folder with --out DIR" in capsys.readouterr().err


# ---- folders -----------------------------------------------------------------------------------------------------------------


def test_a_running_sweep_is_reported_as_incomplete(tmp_path, capsys):
    folder = made.sweep(
        tmp_path / "s",
        [(A, {**GOOD, 3: {"state": "running", "epochs": made.epochs([1.0])}}), (B, {**BETTER, 3: "missing"})],
    )
    with SweepDir(folder).lock():
        assert "Incomplete: 1 running of 8 runs" in report(capsys, folder, "--text")


def test_a_sweep_without_finished_runs_has_a_report(tmp_path, capsys):
    folder = made.sweep(tmp_path / "s", [(A, {0: "pending", 1: "failed"})])
    assert "Nothing is known yet: none of 2 runs is done." in report(capsys, folder)


def test_copied_runs_without_sweep_json_give_the_same_differences(sweep, capsys, tmp_path):
    for path in sweep.glob("*_seed[01]_*"):
        shutil.copytree(path, tmp_path / "copy" / path.name)
    printed = report(capsys, tmp_path / "copy", "--text")
    # 5 and 6 points
    assert printed.splitlines()[1].startswith("Undecided whether b differs from a in test accuracy: 5.5 points higher")


def test_a_single_run_is_reported(sweep, capsys):
    assert "one run" in report(capsys, sweep / made.directory(B, 0), "--text")


def test_broken_files_are_named_and_do_not_stop_the_report(sweep, capsys):
    runs = sorted(path for path in sweep.iterdir() if path.is_dir())
    for path, name in zip(
        runs, ("result.json", "config.yaml", "metrics.csv", "predictions.npz", "status.json"), strict=False
    ):
        (path / name).write_bytes(b"{\x00\xff")
    report(capsys, "runs/mine")
    text = (sweep / "report.md").read_text()
    assert "files could not be read" in text or "file could not be read" in text


@pytest.mark.parametrize("typed", ["runs", "runs/none", "runs/mine/none"])
def test_a_folder_without_runs_is_refused_in_one_line(sweep, capsys, typed):
    assert main(["report", typed]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"cnnbench: {typed}: holds no runs; ")
    assert error.count("\n") == 1
