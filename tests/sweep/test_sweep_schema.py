"""What may stand under `sweep:`, and how a mistake in it is told."""

import pytest

from cnnbench.config.compose import conf_dir
from cnnbench.config.schema import Loader
from cnnbench.errors import ConfigError
from cnnbench.sweep.schema import SweepKeys

MISTAKES = {
    "seeds": (0, "sweep.seeds=0: expected how many, a list of them, or null; for instance sweep.seeds=5"),
    "slots": (0, "sweep.slots=0: expected auto or an integer above 0; for instance sweep.slots=2"),
    "timeout": (-1, "sweep.timeout=-1: expected seconds, a number above 0, or null; for instance sweep.timeout=3600"),
    "on_failure": ("die", "sweep.on_failure=die: expected continue or stop; for instance sweep.on_failure=stop"),
    "max_failures": (0, "sweep.max_failures=0: expected an integer above 0, or null; for instance sweep.max_failures=3"),
    "retry": ("yes", "sweep.retry=yes: expected none, failed, diverged or all; for instance sweep.retry=failed"),
    "stale": ("maybe", "sweep.stale=maybe: expected keep, rerun or refuse; for instance sweep.stale=rerun"),
    "extend": ("perhaps", "sweep.extend=perhaps: expected true or false; for instance sweep.extend=true"),
    "cells": ({"model": "lenet5"}, "sweep.cells={model:lenet5}: expected a list of settings; "
              "for instance sweep.cells=[{model:plain18,epochs:5}]"),
    "exclude": ("vgg19", "sweep.exclude=vgg19: expected a list of settings; "
                "for instance sweep.exclude=[{model:vgg19,augment:none}]"),
    "factors": ({"epochs": 3}, "sweep.factors.epochs=3: expected a list; for instance epochs: [3]"),
}  # fmt: skip


@pytest.mark.parametrize("key", MISTAKES)
def test_a_mistake_says_what_is_expected(key):
    value, told = MISTAKES[key]
    with pytest.raises(ConfigError) as raised:
        SweepKeys.check({key: value})
    assert str(raised.value) == told


@pytest.mark.parametrize("seeds", [True, 1.5, [], [1, -1], [2**32], ["a"], {"a": 1}])
def test_seeds_are_a_count_or_a_list_of_seeds(seeds):
    with pytest.raises(ConfigError, match=r"^sweep\.seeds=.*: expected how many, a list of them, or null"):
        SweepKeys.check({"seeds": seeds})


def test_a_key_that_there_is_not_is_told_with_its_nearest():
    with pytest.raises(ConfigError, match=r"^sweep\.factor: no such key; did you mean factors\? keys: question, cost"):
        SweepKeys.check({"factor": {}})


def test_lists_that_go_in_pairs_have_one_length():
    with pytest.raises(ConfigError) as raised:
        SweepKeys.check({"zip": {"model": ["vgg11", "vgg16"], "epochs": [1, 2, 3]}})
    assert str(raised.value) == "sweep.zip: its lists go in pairs, and need one length; they have model 2, epochs 3"


def test_the_second_block_of_pairs_is_checked_as_well():
    with pytest.raises(ConfigError, match="they have init 1, ema 2"):
        SweepKeys.check({"zip": [{"epochs": [1]}, {"init": ["torch"], "ema": [0.5, 0.9]}]})


@pytest.mark.parametrize("none", [None, [], {}])
def test_there_may_be_no_pairs(none):
    assert SweepKeys.check({"zip": none}).zip == []


def test_conf_lists_every_key_with_its_default():
    import yaml

    listed = yaml.load((conf_dir() / "config.yaml").read_text(), Loader=Loader)["sweep"]
    assert listed.keys() == SweepKeys.model_fields.keys()
    assert SweepKeys.check(listed) == SweepKeys.check({})
