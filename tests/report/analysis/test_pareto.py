"""Accuracy against cost, computed by hand."""

from __future__ import annotations

import made_sweeps as made
from cnnbench.report.analysis.comparisons import review
from cnnbench.report.analysis.pareto import cost_points
from cnnbench.report.load.sweep import read_runs

A, B, C = ({"model": model} for model in "abc")


def cells_of(tmp_path, *cells):
    return review(read_runs(made.sweep(tmp_path / "s", cells))).cells


def priced(accuracy, params):
    return {"accuracy": accuracy, "result": {"params": params}}


def test_a_point_is_on_the_front_if_no_cheaper_point_is_better(tmp_path):
    found = cost_points(
        cells_of(tmp_path, (A, {0: priced(0.8, 100)}), (B, {0: priced(0.7, 200)}), (C, {0: priced(0.9, 300)}))
    )
    assert [(point.cell_index, point.cost, point.accuracy, point.front) for point in found["parameters"]] == [
        (0, 100, 0.8, True), (1, 200, 0.7, False), (2, 300, 0.9, True),
    ]  # fmt: skip


def test_a_cost_that_is_equal_for_all_settings_is_left_out(tmp_path):
    assert cost_points(cells_of(tmp_path, (A, {0: 0.8}), (B, {0: 0.9}))) == {}


def test_a_setting_without_results_has_no_point_and_the_others_keep_their_index(tmp_path):
    found = cost_points(cells_of(tmp_path, (A, {0: "failed"}), (B, {0: priced(0.7, 200)}), (C, {0: priced(0.9, 300)})))
    assert [point.cell_index for point in found["parameters"]] == [1, 2]


def test_seconds_are_the_mean_over_the_finished_runs(tmp_path):
    timed = {seed: {"accuracy": 0.8, "result": {"time": {"fit_s": fit_s}}} for seed, fit_s in enumerate((10.0, 20.0))}
    found = cost_points(cells_of(tmp_path, (A, {**timed, 2: "failed"}), (B, {0: 0.9})))
    assert [(point.cell_index, point.cost) for point in found["seconds of training"]] == [(0, 15.0), (1, 10.0)]
    assert found.keys() == {"seconds of training"}
