"""The records of a fit, its clocks, and when early stopping ends it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cnnbench.errors import Diverged
from cnnbench.training.callbacks import history as module
from cnnbench.training.callbacks.early_stopping import EarlyStopping
from cnnbench.training.callbacks.history import History, Stopwatch
from cnnbench.training.epoch_records import ValidationRecord


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now.seconds)
    return now


def test_a_stopwatch_measures_only_while_it_runs(clock):
    watch = Stopwatch(5.0)
    clock.seconds += 1
    watch.start()
    clock.seconds += 2
    watch.start()  # runs already
    clock.seconds += 3
    assert watch.seconds == 10
    watch.stop()
    clock.seconds += 4
    assert watch.seconds == 10


def history_of(*accuracies: tuple[float, float | None]) -> History:
    """Returns a history of validations with accuracies of the net and of the average, after each of ten steps an epoch."""
    history = History(SimpleNamespace(config=SimpleNamespace(accumulate=2)))
    for step, (accuracy, averaged) in enumerate(accuracies, 1):
        ema_scores = {} if averaged is None else {"loss": 0.5, "acc": averaged}
        net = SimpleNamespace(scores={"loss": 0.25, "acc": accuracy}, ema_scores=ema_scores)
        history.on_validation_end(SimpleNamespace(global_step=step, num_training_batches=20), net)
    return history


def test_the_best_validation_is_the_first_of_the_highest_accuracy():
    history = history_of((0.25, 0.5), (0.75, 0.25), (0.75, 0.5), (0.5, 0.625))
    assert history.best == ValidationRecord(0.2, 2, 0.25, 0.75, 0.5, 0.25)
    assert history.best_ema == ValidationRecord(0.4, 4, 0.25, 0.5, 0.5, 0.625)


def test_a_history_continues_from_its_state():
    history, copy = history_of((0.25, 0.5), (0.75, 0.25)), history_of()
    copy.load_state_dict(history.state_dict())
    assert copy.state_dict() == history.state_dict()
    assert copy.best is copy.validations[1]


def test_a_validation_that_is_not_finite_is_not_recorded():
    history = history_of((0.5, None))
    net = SimpleNamespace(scores={"loss": float("nan"), "acc": 0.1}, ema_scores={})
    with pytest.raises(Diverged, match="the validation loss is nan after step 2, lr nan"):
        history.on_validation_end(SimpleNamespace(global_step=2, num_training_batches=20), net)
    assert len(history.validations) == 1


@pytest.mark.parametrize(
    ("patience", "accuracies", "ends"),
    [
        (None, [0.5, 0.4, 0.3], False),
        (2, [0.5, 0.4], False),
        (2, [0.5, 0.4, 0.5], True),
        (2, [0.5, 0.4, 0.6, 0.5], False),
        (1, [], False),
    ],
)
def test_early_stopping_ends_a_fit_after_patience_validations_without_a_better_one(patience, accuracies, ends):
    trainer = SimpleNamespace(should_stop=False)
    stopping = EarlyStopping(history_of(*((accuracy, None) for accuracy in accuracies)), patience)
    stopping.on_validation_end(trainer, None)
    assert trainer.should_stop == stopping.exhausted == ends
