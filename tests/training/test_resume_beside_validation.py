"""A stop in the step before a validation waits for it; the resumed run neither repeats nor skips a validation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_resume import assert_same, signalled  # noqa: F401

from cnnbench.config.compose import compose
from cnnbench.errors import Interrupted
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.run import run

STEPS = 10  # two epochs of five
QUICK = {(1, 1, 2), (1, 1, 4), (2, 2, 4)}  # after each step; before an epoch's last step; with parts of batches


def cases():
    for every in (1, 2, 3):
        for accumulate in (1, 2):
            for step in range(1, STEPS + 1):
                case = (every, accumulate, step)
                yield pytest.param(*case, marks=() if case in QUICK else pytest.mark.soak)


@pytest.mark.slow
@pytest.mark.parametrize(("every", "accumulate", "step"), cases())
def test_a_run_stopped_before_a_validation_ends_with_the_same_bits(
    every,
    accumulate,
    step,
    tmp_path,
    signalled,
):
    base = [
        *("threads=1", "trainer=cpu", "epochs=2", "batch_size=64", f"accumulate={accumulate}", "ema=0.9"),
        *("data=synthetic", "data.train_size=320", "data.val_size=32", "data.test_size=32"),
        *("model=custom", "model._target_=nets.Signalled", f"trainer.val_every_steps={every}"),
        *("scheduler=plateau", "scheduler.patience=0"),
    ]
    whole = run(compose([*base, f"runs_dir={tmp_path}/whole"])).directory
    signalled(step * accumulate, "SIGTERM")
    with pytest.raises(Interrupted):
        run(compose([*base, f"runs_dir={tmp_path}/stopped"]))
    stopped = RunDir(next(Path(tmp_path, "stopped").glob("*/*")))
    assert torch.load(stopped.last, weights_only=True)["global_step"] == step
    signalled(0, "SIGTERM")
    run(compose([*base, f"runs_dir={tmp_path}/stopped", "resume=auto"]))
    assert_same(stopped, whole)
