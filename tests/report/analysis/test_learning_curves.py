"""Learning curves and their bands, computed by hand."""

from __future__ import annotations

import statistics

import pytest

import made_sweeps as made
from cnnbench.report.analysis.comparisons import review
from cnnbench.report.analysis.learning_curves import curves, mean_band, runs_to_average
from cnnbench.report.load.sweep import read_runs

A = {"model": "a"}


def cells_of(tmp_path, *cells):
    return review(read_runs(made.sweep(tmp_path / "s", cells))).cells


def losses(*values, epoch_s=2.0):
    return {"epochs": made.epochs(values, epoch_s=epoch_s)}


def test_a_curve_has_epochs_seconds_and_values(tmp_path):
    (cell,) = cells_of(tmp_path, (A, {0: losses(1.0, 0.5, 0.25)}))
    (curve,) = curves(cell.runs, "train/loss")
    assert (curve.epochs, curve.seconds, curve.values) == ([1, 2, 3], [2.0, 4.0, 6.0], [1.0, 0.5, 0.25])


def test_a_band_is_the_mean_and_one_standard_deviation_to_either_side(tmp_path):
    (cell,) = cells_of(tmp_path, (A, {0: losses(1.0, 0.5), 1: losses(2.0, 0.7), 2: losses(4.0, 0.3)}))
    found = mean_band(curves(cell.runs, "val/loss"))
    for place, values in enumerate(((1.0, 2.0, 4.0), (0.5, 0.7, 0.3))):
        mean, sd = statistics.mean(values), statistics.stdev(values)
        assert (found.mean[place], found.low[place], found.high[place]) == pytest.approx((mean, mean - sd, mean + sd))


def test_a_band_averages_the_runs_that_have_the_epoch(tmp_path):
    (cell,) = cells_of(tmp_path, (A, {0: losses(1.0, 0.5), 1: losses(2.0)}))
    found = mean_band(curves(cell.runs, "train/loss"))
    assert (found.mean, found.count) == ([1.5, 0.5], [2, 1])


def test_the_seconds_of_a_band_are_the_mean_over_the_runs(tmp_path):
    (cell,) = cells_of(tmp_path, (A, {0: losses(1.0, 1.0, epoch_s=1.0), 1: losses(1.0, 1.0, epoch_s=3.0)}))
    assert mean_band(curves(cell.runs, "train/loss")).seconds == [2.0, 4.0]


def test_values_that_are_unknown_or_not_finite_are_not_averaged(tmp_path):
    (cell,) = cells_of(
        tmp_path, (A, {0: losses(1.0, None), 1: losses(float("nan"), 0.5), 2: losses(float("inf"), 0.7)})
    )
    found = mean_band(curves(cell.runs, "train/loss"))
    assert (found.mean, found.count) == ([1.0, 0.6], [1, 2])


def test_a_diverged_run_is_not_averaged(tmp_path):
    diverged = {"state": "diverged", **losses(9.0)}
    (cell,) = cells_of(tmp_path, (A, {0: losses(1.0), 1: diverged}))
    assert [run.seed for run in runs_to_average(cell.runs)] == [0]


def test_while_no_run_is_finished_the_running_ones_are_averaged(tmp_path):
    (cell,) = cells_of(tmp_path, (A, {0: {"state": "running", **losses(1.0)}, 1: {"state": "running", **losses(2.0)}}))
    assert mean_band(curves(runs_to_average(cell.runs), "train/loss")).mean == [1.5]


def test_a_run_without_epochs_has_no_curve(tmp_path):
    (cell,) = cells_of(tmp_path, (A, {0: 0.5}))
    assert curves(cell.runs, "train/loss") == []
