"""What all schedules of conf/scheduler have in common: they resume, keep their bounds, and refuse wrong values."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from cnnbench.config.compose import compose, conf_dir
from cnnbench.config.schema import Node
from cnnbench.errors import ConfigError
from cnnbench.training.factories import build_scheduler
from cnnbench.training.validate import prepare
from schedules import SIX_STEPS, rates_of, sgd

# ---- every schedule --------------------------------------------------------------------------------------------------


def built(name: str, max_steps: int | None = None, lr: float = 0.2, **keys: Any):
    """Builds a schedule of conf/scheduler with changed keys, for four epochs of six batches; returns the optimizer too."""
    values = yaml.safe_load((conf_dir() / "scheduler" / f"{name}.yaml").read_text())
    config = SimpleNamespace(
        scheduler=Node.model_validate({**values, **keys}), epochs=4, trainer=SimpleNamespace(max_steps=max_steps)
    )
    optimizer = sgd(lr, momentum=0.9)
    return optimizer, build_scheduler(config, SIX_STEPS, optimizer)


CHOICES = sorted(path.stem for path in (conf_dir() / "scheduler").glob("*.yaml"))


def test_all_schedules_of_conf_are_tested_here():
    assert CHOICES == ["constant", "cosine", "multistep", "onecycle", "plateau", "step"]


def trained(optimizer, scheduler, steps: range) -> list[tuple[float, float]]:
    """Returns rate and momentum of each step; a schedule that waits for validations gets one after every other step."""
    found = []
    for number in steps:
        group = optimizer.param_groups[0]
        found.append((group["lr"], group["momentum"]))
        optimizer.step()
        scheduler.step()
        if number % 2 and hasattr(scheduler, "validated"):
            scheduler.validated(1.0 if number < 3 else 0.7)
    return found


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("stop", [2, 9, 23])
def test_every_schedule_continues_to_the_bit_from_a_checkpoint(name, stop):
    keys = {"warmup_epochs": 1, **({"patience": 1} if name == "plateau" else {})}
    keys |= {"step": {"every_epochs": 1.5}, "multistep": {"milestones": [1.5, 2]}}.get(name, {})
    whole = trained(*built(name, **keys), range(24))
    optimizer, scheduler = built(name, **keys)
    begun = trained(optimizer, scheduler, range(stop))
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
    file.seek(0)
    of_optimizer, of_scheduler = torch.load(file, weights_only=True)
    optimizer, scheduler = built(name, **keys)
    optimizer.load_state_dict(of_optimizer)
    scheduler.load_state_dict(of_scheduler)
    assert begun + trained(optimizer, scheduler, range(stop, 24)) == whole
    assert len({rate for rate, _ in whole}) > 5


@pytest.mark.parametrize("name", CHOICES)
def test_no_learning_rate_is_negative_or_above_the_optimizers(name):
    assert all(0 <= rate <= 0.2 for rate in rates_of(*built(name), 24))


@pytest.mark.parametrize(("name", "last"), [("cosine", 0.0), ("onecycle", 0.2 / 25 / 1e4)])
@pytest.mark.parametrize(("max_steps", "steps"), [(None, 24), (10, 10), (99, 24)])
def test_cosine_and_onecycle_end_with_the_run(name, last, max_steps, steps):
    found = rates_of(*built(name, max_steps), steps)
    assert found[steps if name == "cosine" else steps - 1] == pytest.approx(last, abs=1e-12)
    assert min(found[: steps - 1]) > 10 * last


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("step", {"every_epochs": 0}, "every_epochs=0: expected a number above 0"),
    ("step", {"every_epochs": "two"}, "every_epochs=two: expected a number"),
    ("step", {"every_epochs": True}, "scheduler.every_epochs=true: step expects a number"),
    ("step", {"gamma": 0}, "gamma=0: expected a number above 0"),
    ("step", {"gamma": math.inf}, "gamma=inf: expected a number"),
    ("multistep", {"milestones": [0]}, "milestones=0: expected a number above 0"),
    ("multistep", {"milestones": 5}, "milestones=5: expected a list of numbers"),
    ("multistep", {"milestones": "30"}, "milestones=30: expected a list of numbers"),
    ("multistep", {"gamma": -1}, "gamma=-1: expected a number above 0"),
    ("constant", {"warmup_epochs": -1}, "warmup_epochs=-1: expected a number at least 0"),
    ("constant", {"warmup_epochs": None}, "warmup_epochs=None: expected a number"),
    *((name, {"warmup_epochs": 4}, "warmup_epochs=4: 24 steps, and the run has 24; expected less") for name in CHOICES),
    ("cosine", {"warmup_epochs": 1, "max_steps": 3}, "6 steps, and the run has 3; expected less"),
    ("cosine", {"final_lr": 5}, "final_lr=5: expected a number from 0 to the optimizer's lr, 0.2"),
    ("cosine", {"final_lr": "low"}, "scheduler.final_lr=low: cosine refuses it"),
    ("onecycle", {"div_factor": 0}, "div_factor=0: expected a number above 0"),
    ("onecycle", {"final_div_factor": 0}, "final_div_factor=0: expected a number above 0"),
    ("plateau", {"factor": 1}, "factor=1: expected a number above 0, below 1"),
    ("plateau", {"factor": 0}, "factor=0: expected a number above 0, below 1"),
    ("plateau", {"patience": -1}, "patience=-1: expected a number at least 0"),
    ("plateau", {"threshold": -1}, "threshold=-1: expected a number at least 0"),
    ("plateau", {"min_lr": -1}, "min_lr=-1: expected a number at least 0"),
    ("plateau", {"pateince": 3}, "scheduler.pateince: Plateau takes no pateince; did you mean patience?"),
    ("constant", {"steps_per_epoch": 3}, "scheduler.steps_per_epoch: constant takes no steps_per_epoch"),
]


@pytest.mark.parametrize(("name", "keys", "message"), REFUSED)
def test_a_wrong_value_of_a_schedule_is_refused_in_one_line(name, keys, message):
    with pytest.raises(ConfigError) as raised:
        built(name, **keys)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("scheduler")
    assert message in str(raised.value)


def warnings_of(keys: str) -> tuple[str, ...]:
    """Returns the warnings about a schedule in a run of two epochs of two batches."""
    data = "data=synthetic data.train_size=64 data.val_size=10 data.test_size=10 batch_size=32 epochs=2"
    return prepare(compose(f"trainer=cpu threads=1 {data} {keys}".split())).warnings


@pytest.mark.parametrize(
    ("keys", "typed", "epochs"),
    [
        ("scheduler=step", "every_epochs=30", "2"),
        ("scheduler=step scheduler.every_epochs=2", "every_epochs=2", "2"),
        ("scheduler=step scheduler.every_epochs=1 trainer.max_steps=1", "every_epochs=1", "0.5"),
        ("scheduler=multistep scheduler.milestones=[9,2]", "milestones=[9,2]", "2"),
    ],
)
def test_a_schedule_whose_first_drop_comes_after_the_run_gives_a_warning(keys, typed, epochs):
    start = f"scheduler.{typed}: the learning rate never drops, as the run has {epochs} epochs; "
    (line,) = warnings_of(keys)
    assert line == f"{start}type a smaller scheduler.{typed.partition('=')[0]}, or scheduler=constant"


@pytest.mark.parametrize(
    "keys", ["", "scheduler=step scheduler.every_epochs=1.5", "scheduler=multistep scheduler.milestones=[9,1]"]
)
def test_a_schedule_that_drops_gives_no_warning(keys):
    assert warnings_of(keys) == ()


def test_torchs_plateau_is_refused_with_the_name_of_ours():
    config = SimpleNamespace(
        scheduler=Node(_target_="torch.optim.lr_scheduler.ReduceLROnPlateau"),
        epochs=1,
        trainer=SimpleNamespace(max_steps=None),
    )
    with pytest.raises(ConfigError, match=r"one that waits for validations is scheduler=plateau$"):
        build_scheduler(config, SIX_STEPS, sgd(0.1))
