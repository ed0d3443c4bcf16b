"""Curves and what they cost, by hand."""

from __future__ import annotations

import statistics

import pytest

import made_sweeps as made
from cnnbench.report.analysis.comparisons import review
from cnnbench.report.analysis.learning_curves import averaged, band, curves
from cnnbench.report.analysis.pareto import costs
from cnnbench.report.load.sweep import read

A, B, C = ({"model": model} for model in "abc")


def cells_of(tmp_path, *cells):
    return review(read(made.sweep(tmp_path / "s", cells))).cells


def losses(*values, epoch_s=2.0):
    return {"epochs": made.epochs(values, epoch_s=epoch_s)}


def test_a_curve_is_a_run_over_epochs_and_seconds(tmp_path):
    (cell,) = cells_of(tmp_path, (A, {0: losses(1.0, 0.5, 0.25)}))
    (curve,) = curves(cell.runs, "train/loss")
    assert (curve.epochs, curve.seconds, curve.values) == ([1, 2, 3], [2.0, 4.0, 6.0], [1.0, 0.5, 0.25])


def test_a_band_is_the_mean_and_a_deviation_to_either_side(tmp_path):
    (cell,) = cells_of(tmp_path, (A, {0: losses(1.0, 0.5), 1: losses(2.0, 0.7), 2: losses(4.0, 0.3)}))
    found = band(curves(cell.runs, "val/loss"))
    for place, values in enumerate(((1.0, 2.0, 4.0), (0.5, 0.7, 0.3))):
        mean, sd = statistics.mean(values), statistics.stdev(values)
        assert (found.mean[place], found.low[place], found.high[place]) == pytest.approx((mean, mean - sd, mean + sd))


def test_a_band_is_of_the_runs_that_got_so_far(tmp_path):
    (cell,) = cells_of(tmp_path, (A, {0: losses(1.0, 0.5), 1: losses(2.0)}))
    found = band(curves(cell.runs, "train/loss"))
    assert (found.mean, found.count) == ([1.5, 0.5], [2, 1])


def test_seconds_of_a_band_are_the_runs_mean(tmp_path):
    (cell,) = cells_of(tmp_path, (A, {0: losses(1.0, 1.0, epoch_s=1.0), 1: losses(1.0, 1.0, epoch_s=3.0)}))
    assert band(curves(cell.runs, "train/loss")).seconds == [2.0, 4.0]


def test_what_was_not_measured_or_is_not_finite_is_in_no_mean(tmp_path):
    (cell,) = cells_of(
        tmp_path, (A, {0: losses(1.0, None), 1: losses(float("nan"), 0.5), 2: losses(float("inf"), 0.7)})
    )
    found = band(curves(cell.runs, "train/loss"))
    assert (found.mean, found.count) == ([1.0, 0.6], [1, 2])


def test_a_run_that_diverged_is_in_no_mean(tmp_path):
    diverged = {"state": "diverged", **losses(9.0)}
    (cell,) = cells_of(tmp_path, (A, {0: losses(1.0), 1: diverged}))
    assert [run.seed for run in averaged(cell.runs)] == [0]


def test_as_long_as_no_run_has_finished_the_mean_is_of_those_that_run(tmp_path):
    (cell,) = cells_of(tmp_path, (A, {0: {"state": "running", **losses(1.0)}, 1: {"state": "running", **losses(2.0)}}))
    assert band(curves(averaged(cell.runs), "train/loss")).mean == [1.5]


def test_a_run_without_epochs_has_no_curve(tmp_path):
    (cell,) = cells_of(tmp_path, (A, {0: 0.5}))
    assert curves(cell.runs, "train/loss") == []


# ---- cost --------------------------------------------------------------------------------------------------------------------


def priced(accuracy, params):
    return {"accuracy": accuracy, "result": {"params": params}}


def test_the_front_is_what_nothing_cheaper_betters(tmp_path):
    found = costs(
        cells_of(tmp_path, (A, {0: priced(0.8, 100)}), (B, {0: priced(0.7, 200)}), (C, {0: priced(0.9, 300)}))
    )
    assert [(point.arm, point.cost, point.accuracy, point.front) for point in found["parameters"]] == [
        (0, 100, 0.8, True), (1, 200, 0.7, False), (2, 300, 0.9, True),
    ]  # fmt: skip


def test_a_cost_that_all_share_is_not_shown(tmp_path):
    assert costs(cells_of(tmp_path, (A, {0: 0.8}), (B, {0: 0.9}))) == {}


def test_a_cell_without_results_has_no_point_and_the_others_keep_their_numbers(tmp_path):
    found = costs(cells_of(tmp_path, (A, {0: "failed"}), (B, {0: priced(0.7, 200)}), (C, {0: priced(0.9, 300)})))
    assert [point.arm for point in found["parameters"]] == [1, 2]
