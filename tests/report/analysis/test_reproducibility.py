"""The comparison of a run with its repetition, on directories made by hand."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from cnnbench.config.compose import compose
from cnnbench.report.analysis.reproducibility import compare_with_repetition, prediction_interval, seed_spread
from cnnbench.runs.run_dir import RunDir
from sweeping import result_values, write_run_in

EPOCHS = "epoch,train/loss,val/acc,epoch_s\n1,0.5,0.8,{0}\n2,0.25,0.9,{0}\n"
LOGITS = np.array([[1.0, 2.0], [3.0, 1.0], [0.0, 1.0]], np.float32)


@pytest.fixture(scope="module")
def config():
    return compose(["data=synthetic"])


@pytest.fixture
def runs(tmp_path, config):
    """A finished run and its repetition, which took longer."""
    for name, seconds in {"r_seed0_01234567": 1.0, "r_seed0_01234567-2": 2.0}.items():
        run = write_run_in(tmp_path / name, config, "done", time={"fit_s": seconds}, numerics={"deterministic": True})
        run.metrics.write_text(EPOCHS.format(seconds))
        np.savez(run.predictions, logits=LOGITS, targets=[1, 0, 1])
    return RunDir(tmp_path / "r_seed0_01234567"), RunDir(tmp_path / "r_seed0_01234567-2")


def change(run: RunDir, **result) -> None:
    run.result.write_text(json.dumps({**json.loads(run.result.read_text()), **result}))


def metrics(**values: float) -> dict[str, float]:
    return {**result_values()["metrics"], **{name.replace("_", "/"): value for name, value in values.items()}}


def other_seed(like: RunDir, config, seed: int, accuracy: float, **keys) -> None:
    path = like.path.parent / f"r_seed{seed}_{seed:08d}"
    write_run_in(path, config.model_copy(update={"seed": seed, **keys}), "done", metrics=metrics(test_acc=accuracy))


# ---- equal ----------------------------------------------------------------------------------------------------------------


def test_runs_that_differ_only_in_their_times_are_equal(runs):
    found = compare_with_repetition(*runs)
    assert (found.equal, found.verdict) == (True, "equal")
    assert found.compared == "every metric, loss and accuracy of 2 epochs, logits of 3 test images"


def test_without_logits_the_rest_is_compared(runs):
    runs[0].predictions.unlink()
    found = compare_with_repetition(*runs)
    assert (found.equal, found.compared) == (True, "every metric, loss and accuracy of 2 epochs")


@pytest.mark.parametrize(
    ("result", "differences"),
    [
        ({"metrics": metrics(test_loss=0.6000000000000001)}, ["test/loss 0.6, now 0.6 (+1.1e-16)"]),
        ({"metrics": {**metrics(), "test/ema_acc": 0.5}}, ["test/ema_acc exists only now"]),
        ({"best_epoch": 1}, ["best_epoch 2, now 1"]),
        ({"split_hash": "99"}, ["split_hash None, now 99"]),
    ],
)
def test_metrics_and_facts_that_differ_are_listed(runs, result, differences):
    change(runs[1], **result)
    assert compare_with_repetition(*runs).differences == differences


def test_an_epoch_that_differs_is_listed(runs):
    runs[1].metrics.write_text(EPOCHS.format(1.0).replace("0.25", "0.2505"))
    assert compare_with_repetition(*runs).differences == [
        "train/loss of 1 of 2 epochs, first in epoch 2, by at most 5.0e-04"
    ]


def test_a_missing_epoch_is_listed(runs):
    runs[1].metrics.write_text("".join(EPOCHS.format(1.0).splitlines(keepends=True)[:2]))
    assert compare_with_repetition(*runs).differences == ["2 epochs, now 1"]


def test_logits_that_differ_are_listed_with_the_changed_predicted_classes(runs):
    logits = LOGITS.copy()
    logits[0] = [2.5, 2.0]
    np.savez(runs[1].predictions, logits=logits, targets=[1, 0, 1])
    assert compare_with_repetition(*runs).differences == ["logits by at most 1.5e+00; 1 of 3 predicted classes"]


def test_logits_that_cannot_be_read_are_not_equal(runs):
    runs[1].predictions.write_bytes(b"PK")
    assert "predictions.npz cannot be read" in compare_with_repetition(*runs).differences[0]


# ---- possible causes ------------------------------------------------------------------------------------------------------


def test_differences_of_the_environment_are_possible_causes(runs):
    change(runs[0], code="c0de", threads=1)
    change(runs[1], code="beef", threads=2)
    assert compare_with_repetition(*runs).reasons == ["code: c0de → beef", "machine: threads 1 → 2"]


def test_a_run_that_is_not_deterministic_is_a_possible_cause(runs):
    change(runs[1], numerics={"deterministic": False})
    assert compare_with_repetition(*runs).reasons == ["deterministic=false: the order of additions may vary"]


# ---- within the spread ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[0.9, 0.91], [0.7, 0.8, 0.75, 0.72]])
def test_the_prediction_interval_is_that_of_student(values):
    n, mean = len(values), statistics.fmean(values)
    half = t.ppf(0.975, n - 1) * statistics.stdev(values) * (1 + 1 / n) ** 0.5
    assert prediction_interval(values) == pytest.approx((mean - half, mean + half))


@pytest.mark.parametrize("values", [[], [0.9], [0.9, 0.9, 0.9]])
def test_without_two_different_values_the_spread_is_unknown(values):
    assert prediction_interval(values) is None


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.64, "within"), (0.2, "outside")])
def test_a_repetition_is_within_the_spread_of_the_other_seeds_or_not(runs, config, accuracy, verdict):
    for seed, value in {1: 0.60, 2: 0.65, 3: 0.63}.items():
        other_seed(runs[0], config, seed, value)
    change(runs[1], metrics=metrics(test_acc=accuracy))
    found = compare_with_repetition(*runs)
    assert found.verdict == f"{verdict} the spread of the seeds"
    assert found.within == (verdict == "within")


def test_a_run_that_was_outside_the_spread_is_not_within_it(runs, config):
    for seed, value in {1: 0.60, 2: 0.65, 3: 0.63}.items():
        other_seed(runs[0], config, seed, value)
    change(runs[0], metrics=metrics(test_acc=0.95))
    assert compare_with_repetition(*runs).verdict == "outside the spread of the seeds"


def test_with_one_other_seed_the_spread_is_unknown(runs, config):
    other_seed(runs[0], config, 1, 0.625)
    change(runs[1], metrics=metrics(test_loss=0.7))
    found = compare_with_repetition(*runs)
    assert (found.within, found.verdict) == (False, "not equal")
    assert found.spread.sentence() == "the spread of the seeds is unknown: 1 other seed of its setting finished"


def test_the_spread_is_that_of_the_other_seeds_of_the_cell(runs, config):
    other_seed(runs[0], config, 1, 0.6)
    other_seed(runs[0], config, 2, 0.7)
    other_seed(runs[0], config, 3, 0.1, epochs=config.epochs + 1)
    write_run_in(runs[0].path.parent / "r_seed4_00000004", config.model_copy(update={"seed": 4}), "failed")
    assert seed_spread(runs[0]).values == {1: 0.6, 2: 0.7}


def test_a_folder_that_is_not_a_run_is_skipped(runs):
    Path(runs[0].path.parent / "x").mkdir()
    (runs[0].path.parent / "x" / "config.yaml").write_text("a: [")
    shutil.rmtree(runs[1].path)
    assert seed_spread(runs[0]).values == {}
