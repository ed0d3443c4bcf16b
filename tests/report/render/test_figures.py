"""Figures as SVG and PNG: which there are, and what they show."""

from __future__ import annotations

import numpy as np
import pytest

import made_sweeps as made
from cnnbench.report.analysis.report_data import make_report
from cnnbench.report.render.figures import draw
from cnnbench.report.render.styles import COLORS, DASHES, SYMBOLS, style_of

TARGETS = [0, 1, 0, 1]


def outcome(accuracy, predicted):
    result = {"classes": ["cat", "dog"], "params": 10, "macs": 100}
    return {
        "accuracy": accuracy, "logits": made.logits_for(predicted, 2), "targets": TARGETS, "epochs": made.epochs([1.0, 0.5]),
        "result": result, "images": {0: np.zeros((4, 4, 1), np.uint8)},
    }  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    cells = [({"model": "a"}, {0: outcome(0.5, [0, 0, 0, 0])}), ({"model": "b"}, {0: outcome(1.0, [0, 1, 0, 1])})]
    folder = made.sweep(tmp_path_factory.mktemp("made") / "s", cells)
    return draw(make_report(folder), folder / "figures")


def test_each_figure_is_an_svg_and_a_png(files):
    assert {path.stem for path in files} >= {"accuracy", "curves", "confusion", "reliability"}
    for path in files:
        assert path.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r")
    assert len({path.stem for path in files}) * 2 == len(files)


def svg(files, stem):
    return next(path for path in files if path.name == f"{stem}.svg").read_text()


def test_the_confusion_matrix_has_true_and_predicted_classes(files):
    text = svg(files, "confusion")
    assert "predicted class" in text
    assert "true class" in text
    assert {"cat", "dog"} <= {name for name in ("cat", "dog") if name in text}


def test_the_accuracy_figure_names_the_settings_with_their_number_of_runs(files):
    text = svg(files, "accuracy")
    assert "a (1)" in text
    assert "b (1)" in text


def test_a_sweep_without_results_has_no_figures(tmp_path):
    folder = made.sweep(tmp_path / "s", [({"model": "a"}, {0: "failed"})])
    assert draw(make_report(folder), folder / "figures") == []


def test_styles_of_the_first_settings_differ():
    number = len(COLORS) * len(DASHES)
    assert len({style_of(setting) for setting in range(number)}) == number
    assert len(DASHES) == len(SYMBOLS)
