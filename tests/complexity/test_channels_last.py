"""The memory format of a net's weights: which nets can be channels-last, and that a run keeps its format."""

import copy
import subprocess
import sys

import pytest
import torch
import yaml
from torch import nn

from cnnbench.complexity.channels_last import takes_channels_last
from cnnbench.config.compose import compose, groups
from cnnbench.config.schema import Config
from cnnbench.errors import Interrupted
from cnnbench.runs.load_net import load_checkpoint, load_net
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.callbacks.checkpoints import optimizer_state_to_memory_format
from cnnbench.training.evaluate import evaluate
from cnnbench.training.factories import data_for_net
from cnnbench.training.run import run
from cnnbench.training.validate import measure_net, prepare
from layouts import LAYERS, After, Viewing
from small_nets import TINY

WITHOUT = {"lenet5_by_hand"}  # its convolutions are written by hand


def takes(keys):
    config = compose(keys)
    return measure_net(config, data_for_net(config)).channels_last


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(groups()["model"].keys() - {"custom"}))
def test_all_nets_except_those_by_hand_can_be_channels_last(model):
    assert takes([f"model={model}"]) == (model not in WITHOUT)


def works(net, images):
    """Whether the net runs forward and backward on the CPU."""
    try:
        for training in (False, True):
            net.train(training)(images).sum().backward()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("layer", LAYERS)
def test_the_prediction_for_a_net_equals_what_happens_on_the_cpu(layer):
    net = After(LAYERS[layer])
    real = copy.deepcopy(net).to(memory_format=torch.channels_last)
    for channels_last_images in (False, True):
        images = torch.randn(2, 3, 12, 12)
        if channels_last_images:
            images = images.contiguous(memory_format=torch.channels_last)
        expected = works(real, images)
        assert takes_channels_last(copy.deepcopy(net).to("meta"), images.to("meta")) == expected


@pytest.mark.parametrize("where", ["always", "training", "scoring"])
def test_a_net_that_views_its_maps_needs_channels_first(where):
    assert not takes(["model=custom", "model._target_=layouts.Viewing", f"+model.where={where}"])


def test_the_same_net_without_view_can_be_channels_last():
    assert takes(["model=custom", "model._target_=layouts.Viewing", "+model.where=never"])


@pytest.mark.parametrize("where", ["always", "never"])
def test_a_net_that_fails_on_the_meta_device_is_tried_on_the_cpu(where):
    assert takes(["model=custom", "model._target_=layouts.NoMetaViewing", f"+model.where={where}"]) == (
        where == "never"
    )


def test_a_net_without_convolutions_stays_channels_first():
    assert not takes_channels_last(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("precision", "accelerator", "last"), [("32", "cpu", True), ("32", "gpu", False), ("bf16", "gpu", True)]
)
def test_on_a_gpu_only_half_precision_is_channels_last(precision, accelerator, last, monkeypatch):
    monkeypatch.setattr("cnnbench.training.validate.resolve_pipeline", lambda *_: ("memory", ""))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config = compose([*TINY, "model=lenet5", f"precision={precision}", f"trainer.accelerator={accelerator}"])
    assert prepare(config).config.channels_last == last


def train_in(folder, *keys):
    return run(compose([*TINY, "epochs=2", f"runs_dir={folder}", *keys]))


VIEWING = ["model=custom", "model._target_=layouts.Viewing"]


def test_a_net_that_views_its_maps_trains_channels_first(tmp_path):
    outcome = train_in(tmp_path, *VIEWING)
    assert outcome.result.numerics["channels_last"] is False
    found = evaluate(outcome.directory, Config.load(outcome.directory.config), "test", trust=True)
    assert found.acc == pytest.approx(outcome.result.metrics["test/acc"])


def ordered_last(net):
    """For each kernel, whether it is channels-last; kernels of one channel or one pixel are both and left out."""
    kernels = [p for p in net.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    return [kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels]


def test_a_run_is_evaluated_in_the_format_of_its_training(tmp_path):
    outcome = train_in(tmp_path, "model=lenet5")
    assert outcome.result.numerics["channels_last"] is True
    net, _ = load_net(outcome.directory.path)
    assert all(ordered_last(net))
    scores = evaluate(outcome.directory, Config.load(outcome.directory.config), "test")
    assert (scores.acc, scores.loss) == tuple(outcome.result.metrics[f"test/{name}"] for name in ("acc", "loss"))


def made_before(directory: RunDir) -> None:
    """Rewrites the run as an earlier version without the key channels_last would have written it."""
    values = yaml.safe_load(directory.config.read_text())
    del values["channels_last"]
    directory.config.write_text(yaml.safe_dump(values, sort_keys=False))
    for path in (directory.best, directory.best_ema):
        if path.is_file():
            content = load_checkpoint(path)
            del content["config"]["channels_last"]
            content["state_dict"] = {name: value.contiguous() for name, value in content["state_dict"].items()}
            torch.save(content, path)


def test_a_run_of_an_earlier_version_is_evaluated_channels_first(tmp_path):
    directory = train_in(tmp_path, "model=lenet5", "ema=0.9").directory
    now = evaluate(directory, Config.load(directory.config), "test")
    made_before(directory)
    before = evaluate(directory, Config.load(directory.config), "test")
    assert not any(ordered_last(load_net(directory.path)[0]))
    assert before.confusion == now.confusion
    assert before.loss == pytest.approx(now.loss, rel=1e-5)
    evaluate(directory, Config.load(directory.config), "test", ema=True)


@pytest.mark.parametrize("before", [False, True])
def test_a_resumed_run_keeps_its_memory_format(before, tmp_path, monkeypatch):
    monkeypatch.setenv("NETS_SIGNAL", "SIGTERM")
    monkeypatch.setenv("NETS_STEP", "3")
    monkeypatch.setattr("nets.Signalled.steps", 0)
    small = ["model=custom", "model._target_=nets.Signalled", "data.image_size=32"]
    with pytest.raises(Interrupted):
        train_in(tmp_path, *small)
    directory = RunDir(next(tmp_path.glob("*/*")))
    if before:
        made_before(directory)
    outcome = train_in(tmp_path, *small, "resume=auto")
    assert outcome.directory.path == directory.path
    assert outcome.result.numerics["channels_last"] is not before
    assert Config.from_values(load_checkpoint(directory.best)["config"]).channels_last is not before


def test_optimizer_state_gets_the_memory_format_of_its_weights():
    saved, kernel = (nn.Parameter(torch.randn(4, 3, 2, 2)) for _ in range(2))
    saved.data = saved.data.contiguous(memory_format=torch.channels_last)
    before, after = (torch.optim.Adam([parameter]) for parameter in (saved, kernel))
    saved.square().sum().backward()
    before.step()
    after.load_state_dict(before.state_dict())
    assert after.state[kernel]["exp_avg"].stride() != kernel.stride()
    optimizer_state_to_memory_format(after)
    for name in ("exp_avg", "exp_avg_sq"):
        assert after.state[kernel][name].stride() == kernel.stride()
        assert torch.equal(after.state[kernel][name], before.state[saved][name])


@pytest.mark.slow
def test_two_processes_share_gradients_in_the_format_of_the_weights(tmp_path):
    """PyTorch warns where it must copy each of them: kernels of one pixel have both orders."""
    keys = [*TINY, "model=resnet18", "data.train_size=32", "batch_size=16", "trainer.devices=2", f"runs_dir={tmp_path}"]
    done = subprocess.run([sys.executable, "-m", "cnnbench", *keys], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    directory = next(tmp_path.glob("*/*"))
    output = done.stdout + done.stderr + "".join(path.read_text() for path in directory.glob("log*.txt"))
    assert "strides" not in output


def test_the_memory_format_is_not_part_of_a_runs_identity():
    config = compose(["model=lenet5"])
    assert config.model_copy(update={"channels_last": True}).identity() == config.identity()


def test_a_net_computes_the_same_in_both_memory_formats():
    torch.manual_seed(0)
    net, images = Viewing(10, 3, 12, where="never").eval(), torch.randn(4, 3, 12, 12)
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(images), net(images))


@pytest.mark.slow
@pytest.mark.parametrize("keys", [["ema=0.9"], ["accumulate=2"], ["compile=true"]], ids=" ".join)
def test_channels_last_works_together_with(keys, tmp_path):
    outcome = train_in(tmp_path, "model=lenet5", *keys)
    assert outcome.result.numerics["channels_last"] is True
