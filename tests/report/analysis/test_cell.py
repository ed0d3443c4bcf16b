"""One cell: its mean, deviation and interval against scipy, its labels, its difference from another cell."""

from __future__ import annotations

import statistics

import pytest
from scipy import stats

import made_sweeps as made
from cnnbench.report.analysis.cell import difference_by_seed, level_label, setting_label
from cnnbench.report.analysis.comparisons import review
from cnnbench.report.load.sweep import read_runs
from made_reviews import review_of

A = {"model": "a"}
ALONE = (0.80, 0.82, 0.81, 0.85, 0.83)


def test_the_mean_deviation_and_interval_of_a_cell_are_those_of_student():
    (cell,) = review_of([(A, ALONE)]).cells
    assert (cell.n, cell.mean) == (5, pytest.approx(0.822))
    assert cell.sd == pytest.approx(statistics.stdev(ALONE))
    assert cell.interval == pytest.approx(stats.t.interval(0.95, 4, statistics.mean(ALONE), stats.sem(ALONE)))


def test_a_failed_run_is_counted_but_not_averaged():
    (cell,) = review_of([(A, [0.8, None, 0.9])]).cells
    assert (cell.n, len(cell.runs), cell.mean) == (2, 3, pytest.approx(0.85))


def test_a_cell_with_one_seed_has_neither_deviation_nor_interval():
    (cell,) = review_of([(A, [0.8])]).cells
    assert (cell.mean, cell.sd, cell.interval) == (0.8, None, None)


def test_a_cell_of_failed_runs_has_no_mean():
    assert review_of([(A, [None, None])]).cells[0].mean is None


def test_the_interval_of_an_accuracy_ends_at_1():
    (cell,) = review_of([(A, [0.99, 1.0, 0.95])]).cells
    assert cell.interval[1] == 1.0
    assert cell.interval[0] == pytest.approx(stats.t.interval(0.95, 2, 0.98, stats.sem([0.99, 1.0, 0.95]))[0])


def test_the_cost_of_a_cell_is_the_mean_over_its_finished_runs(tmp_path):
    outcomes = {seed: {"result": {"time": {"fit_s": fit_s}}} for seed, fit_s in enumerate((10.0, 20.0))}
    cells = [(A, {**outcomes, 2: "failed", 3: {"result": {"time": {"fit_s": float("nan")}}}})]
    (cell,) = review(read_runs(made.sweep(tmp_path / "s", cells))).cells
    assert cell.mean_result("fit_s") == 15.0
    assert cell.mean_result("best_epoch") == 2


def test_a_cell_without_runs_that_have_the_number_has_no_mean_of_it():
    assert review_of([(A, ALONE)]).cells[0].mean_result("params") is None


@pytest.mark.parametrize(
    ("key", "value", "label"),
    [
        ("model", "resnet18", "resnet18"), ("optimizer.lr", 0.01, "lr 0.01"), ("augment", ["crop", "flip"], "augment crop+flip"),
        ("augment", [], "augment none"), ("early_stopping", None, "early_stopping null"), ("ema", False, "ema false"),
    ],
)  # fmt: skip
def test_a_level_is_labelled_by_its_value_and_by_its_key_unless_that_is_the_model_or_the_data(key, value, label):
    assert level_label(key, value) == label


def test_a_setting_is_labelled_by_its_levels():
    assert setting_label({"model": "vgg16", "optimizer.lr": 0.1}) == "vgg16, lr 0.1"


def test_a_cell_without_swept_keys_is_called_the_run():
    assert review_of([({}, [0.5])]).cells[0].label == "the run"


def test_two_cells_are_compared_by_the_seeds_that_they_share():
    difference = difference_by_seed({0: 0.9, 1: 0.8, 2: 0.1}, {0: 0.7, 1: 0.7, 5: 0.9})
    assert (difference.point, difference.n, difference.paired) == (pytest.approx(0.15), 2, True)


def test_two_cells_without_shared_seeds_are_compared_unpaired():
    difference = difference_by_seed({0: 0.9, 1: 0.8}, {2: 0.7, 3: 0.7})
    assert (difference.point, difference.n, difference.paired) == (pytest.approx(0.15), 2, False)


def test_single_seeds_that_are_not_shared_are_not_compared():
    assert difference_by_seed({0: 0.9}, {1: 0.8}) is None
