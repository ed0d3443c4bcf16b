"""The composer: as few Hydra compositions as possible, and for each setting the config that it composes to alone."""

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
