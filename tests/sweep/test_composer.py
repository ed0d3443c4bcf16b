"""The composer: as few Hydra compositions as possible, and for each setting the config that it composes to alone."""

import itertools

import pytest

from cnnbench.config.compose import compose, groups
from cnnbench.config.overrides import hydra_override
from cnnbench.errors import ConfigError
from cnnbench.sweep import composer as composing
from cnnbench.sweep.composer import Composer


@pytest.fixture
def calls(monkeypatch):
    """The overrides of each Hydra composition."""
    made, hydra = [], composing.compose_values
    monkeypatch.setattr(
        composing, "compose_values", lambda overrides, folder: made.append(overrides) or hydra(overrides, folder)
    )
    return made


def alone(setting, *fixed):
    return compose([*fixed, *(hydra_override(key, value) for key, value in setting.items())])


@pytest.mark.parametrize(
    ("settings", "compositions"),
    [
        ([{"optimizer.lr": 0.1, "seed": 0}, {"optimizer.lr": 0.2, "seed": 1}], 1),  # other values of the same keys
        (
            [{"model": "lenet5", "seed": 0}, {"model": "simplecnn", "seed": 0}, {"model": "lenet5", "seed": 1}],
            2,
        ),  # other choices
        ([{"seed": 0}, {"epochs": 3}], 2),  # other keys
        ([{"optimizer": "sgd", "optimizer.lr": 0.5}, {"optimizer": "adam", "optimizer.lr": 0.5}], 2),
        ([{"+model.extra": {"a": 1}}, {"+model.extra": {"b": 2}}], 2),  # mappings are composed, not set
        ([{"epochs": "${batch_size}"}, {"epochs": 4}], 2),  # a value that is computed from another one
    ],
)
def test_settings_with_equal_choices_and_keys_share_a_composition(settings, compositions, calls):
    composer = Composer(["batch_size=32"], None, groups())
    configs = [composer(setting) for setting in settings]
    assert configs == [alone(setting, "batch_size=32") for setting in settings]
    assert len(calls) == compositions + sum("${" in str(setting) for setting in settings)


def test_a_config_does_not_change_with_later_settings():
    composer = Composer([], None, groups())
    first = composer({"data.mean": [0.1], "seed": 0})
    before = first.as_dict()
    composer({"data.mean": [0.9], "seed": 1})
    assert first.as_dict() == before


def test_a_wrong_value_of_any_setting_is_refused():
    composer = Composer([], None, groups())
    composer({"seed": 0})
    with pytest.raises(ConfigError, match=r"^seed=-1: expected an integer"):
        composer({"seed": -1})


def product(**choices):
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


@pytest.mark.parametrize(
    ("settings", "compositions"),
    [
        (product(model=["lenet5", "vgg11"], data=["mnist5k", "synthetic"], optimizer=["adam", "momentum", "sgd"]), 5),
        (
            product(recipe=["none", "modern"], model=["lenet5", "plain18"], scheduler=["step", "cosine"]),
            6,
        ),  # 3 for each recipe
        (
            product(augment=["flip", ["crop", "erase"]], model=["lenet5", "vgg11"], optimizer=["adam", "sgd"]),
            6,
        ),  # of lists, each
        (
            [{"model": "lenet5", "optimizer": "adam"}, {"model": "vgg11", "optimizer": "sgd"}],
            2,
        ),  # pairs: nothing to combine
        (
            [
                {**each, "optimizer.lr": 0.3, "seed": 1}
                for each in product(model=["lenet5", "vgg11"], optimizer=["adam", "sgd"])
            ],
            3,
        ),
        (
            [
                {**each, "+data.extra": {"a": 1}}
                for each in product(data=["mnist5k", "synthetic"], optimizer=["adam", "sgd"])
            ],
            3,
        ),
    ],
)
def test_choices_of_groups_that_do_not_touch_each_other_are_combined(settings, compositions, calls):
    composer = Composer(["batch_size=32"], None, groups())
    configs = [composer(setting) for setting in settings]
    assert configs == [alone(setting, "batch_size=32") for setting in settings]
    assert len(calls) == compositions


def write_files(folder, **files):
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("optimizer", "model"),
    [
        ("defaults: [adam]\nlr: 0.5", "defaults: [lenet5]"),  # each in its group: combined, and equal
        ("defaults: [adam, {override /scheduler@_global_.scheduler: step}]", "defaults: [lenet5]"),
        (
            "# @package _global_\ndefaults: [/optimizer/adam@optimizer]\nepochs: 3\nmodel: {kernel_size: 3}",
            "defaults: [lenet5]",
        ),
        (
            "# @package _global_\noptimizer: {_target_: torch.optim.SGD, lr: 0.1, weight_decay: 0.0, decay: all}\n"
            "model: {kernel_size: 3}",
            "defaults: [lenet5]",
        ),
        ("defaults: [inner]\nlr: 0.5", "defaults: [lenet5]"),  # the file that it includes reaches beyond the group
        ("defaults: [/optimizer/adam@_here_]\nlr: ${model.stride}", "defaults: [lenet5]\nstride: 2"),
    ],
)
def test_files_of_a_user_that_touch_other_groups_are_composed_as_hydra_does(optimizer, model, tmp_path):
    inner = "defaults: [adam, {override /scheduler@_global_.scheduler: step}]"
    write_files(tmp_path, optimizer__mine=optimizer, model__mine=model, optimizer__inner=inner)
    composer = Composer([], tmp_path, groups(tmp_path))
    for setting in product(optimizer=["sgd", "mine"], model=["lenet5", "mine"], scheduler=["step", "cosine"]):
        overrides = [hydra_override(key, value) for key, value in setting.items()]
        assert composer(setting) == compose(overrides, tmp_path)


def test_a_defaults_list_that_is_computed_from_choices_is_read_for_each_setting(tmp_path):
    write_files(
        tmp_path,
        augment__mine="# @package _global_\ndefaults: [{/tuned@_global_: '${optimizer}'}]",
        tuned__sgd="model: {kernel_size: 3}",
        tuned__adam="model: {stride: 2}",
    )
    composer = Composer(["augment=mine"], tmp_path, groups(tmp_path))
    for setting in product(optimizer=["sgd", "adam"], model=["lenet5", "lenet_3x3"]):
        overrides = [hydra_override(key, value) for key, value in setting.items()]
        assert composer(setting) == compose(["augment=mine", *overrides], tmp_path)
