"""Records of epochs and validations, as rows of metrics.csv and of checkpoints."""

from __future__ import annotations

import csv

from cnnbench.training.callbacks.curves import plot_curves
from cnnbench.training.callbacks.progress import epoch_line
from cnnbench.training.epoch_records import EpochRecord, ValidationRecord, write_metrics_csv

EPOCH = EpochRecord(2, 26, 0.5, 0.75, 0.625, 0.5, None, None, 0.003, 1.25, 640.0)
ROW = {
    "epoch": 2, "step": 26, "train/loss": 0.5, "train/acc": 0.75, "val/loss": 0.625, "val/acc": 0.5, "val/ema_loss": None,
    "val/ema_acc": None, "lr": 0.003, "epoch_s": 1.25, "samples_per_s": 640.0,
}  # fmt: skip


def test_a_record_becomes_a_row_with_slashes_and_back():
    assert EPOCH.as_row() == ROW
    assert list(EPOCH.as_row()) == list(ROW)
    assert EpochRecord.from_row(ROW) == EPOCH


def test_a_row_of_an_earlier_version_without_averaged_weights_can_be_read():
    row = {"epoch": 1.5, "step": 3, "val/loss": 0.25, "val/acc": 0.5}
    assert ValidationRecord.from_row(row) == ValidationRecord(1.5, 3, 0.25, 0.5, None, None)


def test_metrics_csv_has_the_columns_in_order_and_empty_cells_for_none(tmp_path):
    write_metrics_csv(tmp_path / "metrics.csv", [EPOCH])
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [list(ROW), ["" if value is None else str(value) for value in ROW.values()]]


def test_an_epochs_line_has_no_score_that_it_lacks():
    line = "epoch  2/10  loss 0.5000  acc 0.7500  val loss 0.6250  val acc 0.5000  lr 0.003  1.2 s  640 images/s"
    assert epoch_line(EPOCH, 10) == line


def test_curves_show_every_record_and_the_best_validation():
    validations = [ValidationRecord(0.5, 7, 0.75, 0.25, None, None), ValidationRecord(2, 26, 0.625, 0.5, None, None)]
    losses, accuracies = plot_curves([EPOCH], validations, validations[1], "a run").axes
    expected = [
        (losses, [0.5], [0.75, 0.625], [0.625], "loss"),
        (accuracies, [0.75], [0.25, 0.5], [0.5], "accuracy"),
    ]
    for axes, train, validation, best, label in expected:
        lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines if len(line.get_xdata())}
        assert lines["train"] == train
        assert lines["validation"] == validation
        assert lines[f"best, epoch 2: {best[0]:.4f}"] == best
        assert axes.get_ylabel() == label
