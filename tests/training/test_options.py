"""Whole runs with each option of training, compared with loops of plain PyTorch on the same batches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.training.classifier import logits_and_auxiliary
from cnnbench.training.factories import build_net
from options import (
    LINEAR,
    LR,
    Plain,
    assert_close,
    composed,
    cross_entropy,
    descend,
    rows,
    set_accuracies,
    slow,
    validations,
    weights,
)

# ---- the loss --------------------------------------------------------------------------------------------------------


def test_without_options_a_run_is_plain_gradient_descent(train):
    plain = Plain()
    for _, x, y in plain.batches():
        descend(plain.net, cross_entropy(plain.net(x), y))
    assert_close(weights(train().directory.last), plain.net.state_dict())


def test_label_smoothing_smooths_the_training_targets_only(train):
    keys = "label_smoothing=0.3"
    plain, losses = Plain(keys), []
    for _, x, y in plain.batches():
        loss = cross_entropy(plain.net(x), y, 0.3)
        losses.append(loss.item())
        descend(plain.net, loss)
    directory = train(keys).directory
    assert_close(weights(directory.last), plain.net.state_dict())
    last = rows(directory)[-1]
    assert last["train/loss"] == pytest.approx(sum(losses[3:]) / 3, rel=1e-5)
    assert (last["val/loss"], last["val/acc"]) == pytest.approx(plain.evaluate("val"), rel=1e-5)


@pytest.mark.parametrize("keys", ["mixup=0.4", slow("cutmix=1.0"), "mixup=0.4 cutmix=1.0 label_smoothing=0.1"])
def test_a_mixed_batch_has_class_shares_as_targets(keys, train):
    plain, correct = Plain(keys), []
    for _, x, y in plain.batches():
        assert y.shape == (32, 10)
        logits = plain.net(x)
        correct.append((logits.argmax(1) == y.argmax(1)).float().mean().item())
        descend(plain.net, cross_entropy(logits, y, plain.config.label_smoothing))
    directory = train(keys).directory
    assert_close(weights(directory.last), plain.net.state_dict())
    assert rows(directory)[-1]["train/acc"] == pytest.approx(sum(correct[3:]) / 3)


@pytest.mark.parametrize(("net", "weight"), [("Small", 0.3), slow("HeavyHeads", 2.0)])
def test_auxiliary_losses_are_added_but_not_reported(net, weight, train):
    keys = f"model._target_=small_nets.{net} model.heads=true model.dropout=0 label_smoothing=0.1"
    plain, losses = Plain(keys), []
    for _, x, y in plain.batches():
        loss, *auxiliary = (cross_entropy(logits, y, 0.1) for logits in plain.net(x))
        losses.append(loss.item())
        descend(plain.net, loss + weight * sum(auxiliary))
    directory = train(keys).directory
    assert_close(weights(directory.last), plain.net.state_dict())
    assert rows(directory)[-1]["train/loss"] == pytest.approx(sum(losses[3:]) / 3, rel=1e-5)


@pytest.mark.slow
def test_googlenet_adds_0_3_times_the_losses_of_its_two_heads(train):
    keys = "model=googlenet model.aux_heads=true data.image_size=32 data.train_size=16 batch_size=8"
    plain = Plain(keys)
    optimizer = torch.optim.SGD(plain.net.parameters(), LR)  # not `descend`: a difference of one bit grows
    for _, x, y in plain.batches():
        optimizer.zero_grad()
        main, first, second = (nn.functional.cross_entropy(logits, y) for logits in plain.net(x))
        (main + 0.3 * first + 0.3 * second).backward()
        optimizer.step()
    assert_close(weights(train(keys).directory.last), plain.net.state_dict())


def test_a_net_may_leave_out_an_auxiliary_head():
    logits, head = torch.zeros(2, 3), torch.ones(2, 3)
    assert logits_and_auxiliary(logits) == (logits, [])
    assert logits_and_auxiliary((logits, None, head)) == (logits, [head])


# ---- the gradient ----------------------------------------------------------------------------------------------------


def norm_of(net: nn.Module) -> Tensor:
    return torch.stack([parameter.grad.square().sum() for parameter in net.parameters()]).sum().sqrt()


def test_clip_grad_bounds_the_norm_of_the_gradient(train):
    keys = "clip_grad=0.4"
    plain, norms = Plain(keys), []
    for _, x, y in plain.batches():
        plain.net.zero_grad()
        cross_entropy(plain.net(x), y).backward()
        norms.append(norm_of(plain.net).item())
        for parameter in plain.net.parameters():
            parameter.data -= LR * parameter.grad * min(1.0, 0.4 / norms[-1])
    assert min(norms) < 0.4 < max(norms)
    assert_close(weights(train(keys).directory.last), plain.net.state_dict())


@pytest.mark.parametrize("n", [90, slow(96)])
def test_accumulation_gives_the_weights_of_the_whole_batch(n, train):
    keys = f"{LINEAR} data.train_size={n} optimizer=momentum scheduler=cosine clip_grad=1.0"
    whole, parts = (train(f"{keys} accumulate={accumulate}").directory for accumulate in (1, 4))
    assert_close(weights(whole.last), weights(parts.last), 1e-5)
    for one, other in zip(rows(whole), rows(parts), strict=True):
        for column in one.keys() - {"epoch_s", "samples_per_s"}:
            assert one[column] == pytest.approx(other[column], rel=1e-4), column


def test_parts_of_unequal_size_are_weighted_by_their_images(train):
    keys = f"{LINEAR} data.train_size=38 accumulate=4"  # 38 images are one batch, in parts of 9 or 10
    plain = Plain(keys)
    for _ in range(2):
        parts = list(plain.loader)
        assert sorted(len(y) for _, y in parts) == [9, 9, 10, 10]
        x, y = map(torch.cat, zip(*parts, strict=True))
        descend(plain.net, cross_entropy(plain.net(x), y))
    assert_close(weights(train(keys).directory.last), plain.net.state_dict())


def test_steps_count_batches_not_parts(train):
    directory = train(f"{LINEAR} accumulate=4 epochs=3 trainer.val_every_steps=2 trainer.max_steps=7").directory
    assert [record["step"] for record in validations(directory)] == [2, 4, 6, 7]
    assert [record["epoch"] for record in validations(directory)] == pytest.approx([2 / 3, 4 / 3, 2, 7 / 3], abs=1e-6)


@pytest.mark.slow
def test_decay_weights_does_not_decay_biases_and_norms(train):
    keys = "optimizer.weight_decay=0.2 optimizer.decay=weights"
    plain = Plain(keys)
    for _, x, y in plain.batches():
        plain.net.zero_grad()
        cross_entropy(plain.net(x), y).backward()
        for name, parameter in plain.net.named_parameters():
            decay = 0.2 if name in ("conv.weight", "linear.weight") else 0
            parameter.data -= LR * (parameter.grad + decay * parameter.data)
    assert_close(weights(train(keys).directory.last), plain.net.state_dict())


# ---- the learning rate --------------------------------------------------------------------------------------------------------


def test_warmup_and_cosine_give_each_step_the_rate_of_their_formula(train):
    keys = "scheduler=cosine scheduler.warmup_epochs=0.67 scheduler.final_lr=0.01"  # two of six steps
    rates = [LR / 3, 2 * LR / 3] + [0.01 + (LR - 0.01) * (1 + math.cos(math.pi * t / 4)) / 2 for t in range(4)]
    plain = Plain(keys)
    for number, x, y in plain.batches():
        descend(plain.net, cross_entropy(plain.net(x), y), rates[number])
    directory = train(keys).directory
    assert_close(weights(directory.last), plain.net.state_dict())
    assert [row["lr"] for row in rows(directory)] == pytest.approx([rates[2], rates[5]])


def test_a_learning_rate_that_never_drops_is_logged_once(train):
    log = train("scheduler=step").directory.log.read_text()
    assert log.count("WARNING scheduler.every_epochs=30: the learning rate never drops, as the run has 2 epochs;") == 1


@pytest.mark.parametrize("adam", [False, slow(True)])
def test_onecycle_equals_torchs_stepped_after_each_batch(adam, train):
    optimizer = "adam optimizer.eps=0.001" if adam else "momentum"  # eps: a bias before batch norm has no gradient
    keys = f"scheduler=onecycle scheduler.warmup_epochs=1 epochs=3 optimizer={optimizer}"
    plain = Plain(keys)
    lr, parameters = plain.config.optimizer.lr, list(plain.net.parameters())
    optimizer = torch.optim.Adam(parameters, lr, eps=0.001) if adam else torch.optim.SGD(parameters, lr, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=9, pct_start=1 / 3)
    for _, x, y in plain.batches():
        optimizer.zero_grad()
        cross_entropy(plain.net(x), y).backward()
        optimizer.step()
        scheduler.step()
    assert_close(weights(train(keys).directory.last), plain.net.state_dict())


@pytest.mark.parametrize("every", [slow(3), 2])
def test_plateau_equals_torchs_stepped_with_each_validation_loss(every, train):
    keys = "scheduler=plateau scheduler.patience=0 scheduler.threshold=0.2 scheduler.factor=0.5 epochs=4"
    keys += f" trainer.val_every_steps={every}" if every != 3 else ""
    plain = Plain(keys)
    optimizer = torch.optim.SGD(plain.net.parameters(), LR)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.2)
    for number, x, y in plain.batches():
        optimizer.zero_grad()
        cross_entropy(plain.net(x), y).backward()
        optimizer.step()
        if (number + 1) % every == 0:
            scheduler.step(plain.evaluate("val")[0])
    assert scheduler.get_last_lr()[0] < LR / 3
    assert_close(weights(train(keys).directory.last), plain.net.state_dict())


# ---- the average -----------------------------------------------------------------------------------------------------


class Average:
    """The recursion of the average, for weights and batch norm's statistics."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.values: dict[str, Tensor] = {}

    def update(self, net: nn.Module) -> None:
        for key, value in net.state_dict().items():
            if value.is_floating_point():
                before = self.values.get(key, value.double())
                self.values[key] = self.decay * before + (1 - self.decay) * value.double()

    def net(self, plain: Plain) -> nn.Module:
        net = build_net(plain.config, plain.data)
        net.load_state_dict({key: value.float() for key, value in self.values.items()}, strict=False)
        return net


def floats(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.double() for key, value in state.items() if value.is_floating_point()}


@pytest.mark.parametrize("accumulate", [1, slow(4)])
def test_averaged_weights_follow_their_recursion_and_are_scored_too(accumulate, train):
    keys = f"ema=0.8 epochs=4 optimizer=momentum accumulate={accumulate}"
    plain, average, expected, best = Plain(keys), Average(0.8), [], (-1.0, 0.0, 0.0)
    optimizer = torch.optim.SGD(plain.net.parameters(), 0.01, momentum=0.9)
    for number, x, y in plain.batches():
        (cross_entropy(plain.net(x), y) / accumulate).backward()
        if (number + 1) % accumulate:
            continue
        optimizer.step()
        optimizer.zero_grad()
        average.update(plain.net)
        if (number + 1) % (3 * accumulate) == 0:
            averaged = average.net(plain)
            loss, accuracy = plain.evaluate("val", averaged)
            expected.append((loss, accuracy))
            if accuracy > best[0]:
                best, best_state = (accuracy, *plain.evaluate("test", averaged)), dict(average.values)
    outcome = train(keys)
    directory, metrics = outcome.directory, outcome.result.metrics
    assert_close(weights(directory.last), plain.net.state_dict())
    assert_close(floats(weights(directory.last, "averaged")), average.values)
    assert_close(floats(weights(directory.best_ema, "")), best_state)
    for row, (loss, accuracy) in zip(rows(directory), expected, strict=True):
        assert (row["val/ema_loss"], row["val/ema_acc"]) == pytest.approx((loss, accuracy), rel=1e-5)
    found = (metrics["best/val/ema_acc"], metrics["test/ema_loss"], metrics["test/ema_acc"])
    assert found == pytest.approx(best, rel=1e-5)


@pytest.mark.slow
def test_averaging_changes_nothing_else_of_the_run(train):
    keys = "model._target_=small_nets.Small model.dropout=0.5"
    without, with_ema = train(keys), train(f"{keys} ema=0.9")
    assert_close(weights(without.directory.last), weights(with_ema.directory.last), 0)
    assert_close(weights(without.directory.best, ""), weights(with_ema.directory.best, ""), 0)
    metrics = with_ema.result.metrics
    assert {key: metrics[key] for key in metrics if "ema" not in key} == without.result.metrics
    assert {key for key in metrics if "ema" in key} == {
        f"{of}/ema_{measure}" for of in ("best/val", "test") for measure in ("acc", "loss")
    }
    assert not without.directory.best_ema.exists()


@pytest.mark.slow
def test_the_best_averaged_weights_are_chosen_by_their_own_accuracy(train, monkeypatch):
    # of the net and of the average in turn; the last two are of the test
    set_accuracies(monkeypatch, 0.5, 0.2, 0.7, 0.9, 0.8, 0.6, 0.1, 0.9, 0.3, 0.4)
    outcome = train("ema=0.95 epochs=4")
    for path, best in ((outcome.directory.best, (9, 0.8)), (outcome.directory.best_ema, (6, 0.7))):
        checkpoint = torch.load(path, weights_only=True)
        assert (checkpoint["step"], checkpoint["val/acc"]) == best
    metrics = outcome.result.metrics
    assert [metrics[key] for key in ("best/val/acc", "best/val/ema_acc", "test/acc", "test/ema_acc")] == [
        0.8, 0.9, 0.3, 0.4,
    ]  # fmt: skip


# ---- all at once -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_options_together_equal_a_loop_of_plain_pytorch(train):
    keys = "augment=light mixup=0.3 cutmix=0.5 label_smoothing=0.1 accumulate=2 clip_grad=0.5 ema=0.7 epochs=3"
    keys += " optimizer=nesterov optimizer.weight_decay=0.01 optimizer.decay=weights scheduler=onecycle"
    keys += " model._target_=small_nets.Small model.heads=true model.dropout=0.2"
    plain, average = Plain(keys), Average(0.7)
    of_weights = [parameter for parameter in plain.net.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in plain.net.parameters() if parameter.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": of_weights, "weight_decay": 0.01}, {"params": others}], lr=0.01, momentum=0.9, nesterov=True
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=9)
    for number, x, y in plain.batches():
        main, *auxiliary = (cross_entropy(logits, y, 0.1) for logits in plain.net(x))
        ((main + 0.3 * sum(auxiliary)) / 2).backward()
        if number % 2:
            nn.utils.clip_grad_norm_(plain.net.parameters(), 0.5)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            average.update(plain.net)
    directory = train(keys).directory
    assert_close(weights(directory.last), plain.net.state_dict())
    assert_close(floats(weights(directory.last, "averaged")), average.values)


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("label_smoothing", 1, "a number from 0, below 1; for instance label_smoothing=0.1"),
        ("label_smoothing", "some", "a number from 0, below 1; for instance label_smoothing=0.1"),
        ("mixup", -0.1, "0, or a number from 0.001 to 1000; for instance mixup=0.2"),
        ("cutmix", math.inf, "0, or a number from 0.001 to 1000; for instance cutmix=1.0"),
        ("mixup", 1e-308, "0, or a number from 0.001 to 1000; for instance mixup=0.2"),
        ("ema", 1, "a number from 0, below 1; for instance ema=0.999"),
        ("early_stopping", 0, "an integer above 0, or null; for instance early_stopping=5"),
        ("early_stopping", 2.5, "an integer above 0, or null; for instance early_stopping=5"),
        ("clip_grad", 0, "a number above 0, or null; for instance clip_grad=1.0"),
        ("clip_grad", math.nan, "a number above 0, or null; for instance clip_grad=1.0"),
        ("optimizer.decay", "none", "all or weights; for instance optimizer.decay=weights"),
        ("optimizer.weight_decay", -1, "a number, at least 0; for instance optimizer.weight_decay=0.0005"),
        ("optimizer.lr", 0, "a number above 0; for instance optimizer.lr=0.01"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_its_bounds(key, value, expected):
    values = composed("").as_dict()
    group, _, name = key.rpartition(".")
    (values[group] if group else values)[name] = value
    with pytest.raises(ConfigError) as raised:
        Config.from_values(values)
    assert str(raised.value) == f"{key}={value}: expected {expected}"


MISTAKES = {
    "ema=1": "ema=1: expected a number from 0, below 1",
    "optimizer=adamx": "optimizer=adamx: no such optimizer; did you mean adam? choices: adam, adamw, momentum,",
    "scheduler=cosin": "scheduler=cosin: no such scheduler; did you mean cosine? choices: constant, cosine,",
    "scheduler=cosine scheduler.warmup_epochs=2": "warmup_epochs=2: 6 steps, and the run has 6; expected less",
    "optimizer.momentun=0.9": "optimizer.momentun",
    "labelsmoothing=0.1": "label_smoothing",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_option_is_refused_in_one_line_and_nothing_is_written(mistake, train, tmp_path):
    with pytest.raises(ConfigError) as raised:
        train(mistake)
    assert MISTAKES[mistake] in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
