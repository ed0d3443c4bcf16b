"""Evaluating a run from somebody else: nothing is fetched to their folder, and the checkpoint must belong to config.yaml."""

from __future__ import annotations

import pytest
import torch
import yaml

from cnnbench.__main__ import main


@pytest.fixture
def change(copied):
    """Changes values of config.yaml."""

    def call(**groups) -> None:
        values = yaml.safe_load(copied.config.read_text())
        for group, value in groups.items():
            values[group] = {**values[group], **value} if isinstance(value, dict) else value
        copied.config.write_text(yaml.safe_dump(values))

    return call


def refusal(capsys, *arguments) -> str:
    capsys.readouterr()
    code = main(list(map(str, arguments)))
    out, error = capsys.readouterr()
    assert (code, out, error.count("\n")) == (2, "", 1), (code, out, error)
    return error


@pytest.mark.parametrize("folder", ["absent", "there"])
@pytest.mark.parametrize("command", ["evaluate", "reproduce", "resume"])
def test_nothing_is_fetched_to_a_folder_that_only_the_run_names(
    copied, change, capsys, tmp_path, monkeypatch, command, folder
):
    monkeypatch.setattr("cnnbench.data.download.fetch.download", None)
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.iterdir())
    change(data={"_target_": "cnnbench.data.sets.mnist.MNIST", "root": str(tmp_path / folder)})
    if command == "resume":
        copied.result.unlink()
    arguments = [f"resume={copied.path}"] if command == "resume" else [command, copied.path]
    error = refusal(capsys, *arguments)
    assert f"its config has the data in {tmp_path / folder}, which " in error
    assert "if you know where this run comes from, trust it" in error
    assert (sorted(tmp_path.iterdir()), list((tmp_path / "there").iterdir())) == (before, [])


def test_a_typed_data_set_is_read_though_the_runs_folder_is_absent(copied, change, capsys, tmp_path):
    assert main(["evaluate", str(copied.path), "data=mnist5k", "data.test_size=50"]) == 0


def test_another_net_in_config_yaml_is_refused_with_both_names(copied, change, capsys):
    change(model={"_target_": "cnnbench.models.lenet.LeNet"})
    error = refusal(capsys, "evaluate", copied.path)
    assert (
        "its checkpoint has the net cnnbench.models.lenet5.LeNet5, its config.yaml names cnnbench.models.lenet.LeNet;"
        in error
    )


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"optimizer": {"lr": 0.123}}, "optimizer.lr=0.123; restore the file"),
        ({"data": {"mean": [0.5]}}, "data.mean=[0.5]; restore"),
        ({"data": {"std": [0.5]}}, "data.std=[0.5]; restore"),
        ({"data": {"image_size": 28}}, "data.image_size=28; restore"),
        ({"data": {"split_seed": 7}}, "data.split_seed=7; restore"),
        ({"seed": 5}, "seed=5; restore"),
        ({"model": {"pooling": "max"}}, "model.pooling=max; restore"),
        ({"init": "normal"}, "init=normal; restore"),
    ],
    ids=str,
)
def test_a_config_yaml_that_differs_from_the_checkpoint_is_refused_with_the_key(copied, change, capsys, groups, words):
    change(**groups)
    assert words in refusal(capsys, "evaluate", copied.path)


def test_keys_that_decide_no_number_may_differ(copied, change, capsys):
    change(threads=2, name="other", swept=["threads"], trainer={"checkpoint_every_s": 7.0})
    assert main(["evaluate", str(copied.path)]) == 0


def test_a_net_whose_loss_is_no_number_is_one_line(copied, capsys):
    content = torch.load(copied.best, weights_only=True)
    for name, value in content["state_dict"].items():
        if name.startswith("linear"):
            value.fill_(1e38)
    torch.save(content, copied.best)
    code = main(["evaluate", str(copied.path)])
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (2, 1)
    assert "gives numbers that are infinite or NaN" in error
