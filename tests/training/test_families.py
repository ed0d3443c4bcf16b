"""One net of each family from the command line: train, test, evaluate, features."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from cnnbench.__main__ import main
from cnnbench.cli.info import describe
from cnnbench.config.compose import compose

FAMILIES = {
    "lenet": ["model.activation=relu", "model.pooling=mean"],
    "lenet5": ["model.kernel_size=3"],
    "lenet5_by_hand": [],
    "lenet_leaky": ["init=kaiming_normal"],
    "lenet_3x3": ["model.se=true"],
    "simplecnn": [],
    "mnist_cnn": [],
    "alexnet": [],
    "vgg11": ["model.width=0.125", "model.norm=none"],
    "vgg_c": ["model.width=0.125", "model.head=pool"],
    "googlenet": ["model.aux_heads=true", "model.branch5x5=double3"],
    "resnet18": ["model.stem=imagenet", "init=paddle"],
    "resnet20": ["model.shortcut=C", "model.preactivation=true"],
    "plain18": ["data.image_size=8"],
    "notes_resnet": [],
}


QUICK = ("lenet_3x3", "vgg11", "resnet20")


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [model if model in QUICK else pytest.param(model, marks=pytest.mark.soak) for model in FAMILIES]
)
def test_a_net_of_each_family_trains_evaluates_and_shows_features_from_the_command_line(model, tiny, tmp_path, capsys):
    overrides = [*tiny, f"model={model}", *FAMILIES[model]]
    assert main([*overrides, f"runs_dir={tmp_path}"]) == 0
    run = next(tmp_path.glob("*/*/result.json")).parent
    result = json.loads((run / "result.json").read_text())
    assert result["params"] == describe(compose(overrides))["totals"]["params"]
    assert result["n"] == {"train": 128, "val": 32, "test": 32}

    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["acc"] == result["metrics"]["test/acc"]

    picture = tmp_path / "picture.png"
    Image.linear_gradient("L").save(picture)
    assert main(["features", str(run), str(picture), "--out", str(tmp_path / "maps.png")]) == 0
    assert Image.open(tmp_path / "maps.png").width > 1000
