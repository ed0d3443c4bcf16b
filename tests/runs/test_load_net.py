"""Loading the trained net of a run directory from its checkpoint alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from cnnbench.errors import ConfigError
from cnnbench.runs.load_net import load_checkpoint, load_net


def test_load_net_returns_the_facts_of_the_data(finished):
    _, facts = load_net(finished.path)
    assert facts == {
        "channels": 1,
        "classes": list("0123456789"),
        "image_size": 32,
        "mean": [0.1307],
        "std": [0.3081],
        "fit": "pad",
    }


def test_load_net_returns_a_net_in_evaluation_mode_on_the_cpu(finished):
    net, _ = load_net(str(finished.path))
    assert not any(module.training for module in net.modules())
    assert {value.device.type for value in net.state_dict().values()} == {"cpu"}


def test_load_net_loads_the_weights_of_best_ckpt(copied):
    before = {name: value.clone() for name, value in load_net(copied.path)[0].state_dict().items()}
    content = torch.load(copied.best, weights_only=True)
    for value in content["state_dict"].values():
        value.mul_(2)
    torch.save(content, copied.best)
    after = load_net(copied.path)[0].state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], 2 * before[name]) for name in before)


def test_load_net_needs_best_ckpt_and_config_yaml_alone(copied):
    expected = load_net(copied.path)[0].state_dict()
    for path in [
        path for path in copied.path.rglob("*") if path.is_file() and path not in (copied.best, copied.config)
    ]:
        path.unlink()
    found = load_net(copied.path)[0].state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.slow
def test_load_net_imports_neither_lightning_nor_hydra_nor_data_sets(finished, tmp_path):
    script = (
        "import sys; from cnnbench.runs.load_net import load_net; load_net(sys.argv[1]);"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'pytorch_lightning', 'hydra', 'torchvision'}),"
        "sorted(name for name in sys.modules if name.startswith('cnnbench.data')))"
    )
    command = [sys.executable, "-c", script, str(finished.path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.stdout, done.returncode) == ("[] []\n", 0)


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_checkpoint_loads_without_executing_code(finished, name):
    assert torch.load(getattr(finished, name), weights_only=True)["state_dict"]


def test_an_absent_checkpoint_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="absent; the run has not validated yet"):
        load_checkpoint(tmp_path / "best.ckpt")
