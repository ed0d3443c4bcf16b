"""Early stopping: which validations count, and where a run ends."""

from __future__ import annotations

import pytest
import torch

from cnnbench.errors import RunFailed
from options import LINEAR, rows, set_accuracies, slow, validations

# ---- early stopping --------------------------------------------------------------------------------------------------

PEAKING = "model._target_=nets.Peaking epochs=9 early_stopping=3"  # the second validation is the best


@pytest.mark.parametrize(("every", "steps"), [("", [3, 6, 9, 12, 15]), ("trainer.val_every_steps=2", [2, 4, 6, 8, 10])])
def test_early_stopping_counts_validations_without_a_better_one(every, steps, train):
    outcome = train(f"{PEAKING} {every}")
    assert [record["step"] for record in validations(outcome.directory)] == steps
    assert torch.load(outcome.directory.last, weights_only=True)["global_step"] == steps[-1]
    assert outcome.directory.status().state == "done"
    assert outcome.result.best_epoch == 2
    assert "early_stopping=3: no better validation accuracy since epoch" in outcome.directory.log.read_text()


def test_only_a_better_validation_resets_the_count(train, monkeypatch):
    set_accuracies(monkeypatch, 0.5, 0.4, 0.6, 0.6, 0.5, 0.9)
    directory = train(f"{LINEAR} epochs=9 early_stopping=2").directory
    assert [record["step"] for record in validations(directory)] == [3, 6, 9, 12, 15]


def test_without_early_stopping_a_run_trains_all_epochs(train):
    assert len(rows(train("model._target_=nets.Peaking epochs=6").directory)) == 6


@pytest.mark.parametrize("every", [slow(""), "trainer.val_every_steps=2"])
def test_a_resumed_run_that_had_stopped_early_trains_no_further(every, train, only, monkeypatch):
    whole = train(f"{PEAKING} {every}").result

    def fails(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("cnnbench.training.run.save_predictions", fails)
        with pytest.raises(RunFailed, match="No space left"):
            train(f"{PEAKING} {every} name=again")
    directory = only("again")
    trained = directory.last.read_bytes()
    resumed = train(f"{PEAKING} {every} name=again resume=auto")
    assert resumed.directory == directory
    assert directory.last.read_bytes() == trained
    assert resumed.result.metrics == whole.metrics
