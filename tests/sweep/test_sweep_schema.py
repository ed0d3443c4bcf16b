"""The keys under `sweep:` and their error messages."""

import pytest

from cnnbench.config.compose import conf_dir
from cnnbench.config.yaml_file import Loader
from cnnbench.errors import ConfigError
from cnnbench.sweep.schema import SweepKeys

MISTAKES = {
    "seeds": (0, "sweep.seeds=0: expected a number of seeds, a list of seeds, or null; for instance sweep.seeds=5"),
    "slots": (0, "sweep.slots=0: expected auto or an integer from 1 to 1024; for instance sweep.slots=2"),
    "part": ("3/2", "sweep.part=3/2: expected i/n, the i-th of n parts, or null; for instance sweep.part=1/2"),
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
def test_a_wrong_value_is_an_error_that_says_what_is_expected(key):
    value, message = MISTAKES[key]
    with pytest.raises(ConfigError) as raised:
        SweepKeys.from_values({key: value})
    assert str(raised.value) == message


@pytest.mark.parametrize("part", ["0/2", "1/0", "x", "1", 1, 0.5, "", "-1/2", "1/2/3", "1/", "01/2", [1, 2]])
def test_a_part_is_one_of_n(part):
    with pytest.raises(ConfigError, match=r"^sweep\.part=.*: expected i/n, the i-th of n parts, or null; for instance"):
        SweepKeys.from_values({"part": part})


@pytest.mark.parametrize("seeds", [True, [], [1, -1], [2**32], ["a"]])
def test_seeds_are_a_count_or_a_list_of_seeds(seeds):
    with pytest.raises(ConfigError, match=r"^sweep\.seeds=.*: expected a number of seeds, a list of seeds, or null"):
        SweepKeys.from_values({"seeds": seeds})


def test_an_unknown_key_is_an_error_that_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"^sweep\.factor: no such key; did you mean factors\? keys: question, cost"):
        SweepKeys.from_values({"factor": {}})


def test_zipped_lists_must_have_equal_length():
    with pytest.raises(ConfigError) as raised:
        SweepKeys.from_values({"zip": {"model": ["vgg11", "vgg16"], "epochs": [1, 2, 3]}})
    assert str(raised.value) == "sweep.zip: expected lists of equal length, got model 2, epochs 3"


def test_the_second_zip_block_is_checked_too():
    with pytest.raises(ConfigError, match="got init 1, ema 2"):
        SweepKeys.from_values({"zip": [{"epochs": [1]}, {"init": ["torch"], "ema": [0.5, 0.9]}]})


@pytest.mark.parametrize("none", [None, []])
def test_zip_may_be_empty(none):
    assert SweepKeys.from_values({"zip": none}).zip == []


def test_conf_lists_every_key_with_its_default():
    import yaml

    listed = yaml.load((conf_dir() / "config.yaml").read_text(), Loader=Loader)["sweep"]
    assert listed.keys() == SweepKeys.model_fields.keys()
    assert SweepKeys.from_values(listed) == SweepKeys.from_values({})


def test_a_question_of_several_lines_becomes_one():
    keys = SweepKeys.from_values(
        {"question": "why\n\tthis?\r\n", "claims": [{"says": "a\nb", "of": {"model": "x"}, "above": 0}]}
    )
    assert keys.question == "why this?"
    assert keys.claims[0].says == "a b"


@pytest.mark.parametrize(
    "values",
    [
        {"question": "a\x1bb"},
        {"cost": "a\u202eb"},
        {"claims": [{"says": "a\x9b", "of": {"model": "x"}, "above": 0}]},
        {"factors": {"model": ["a\x07"]}},
        {"factors": {"model.\n": ["a"]}},
        {"baseline": {"model": "a\nb"}},
    ],
    ids=str,
)
def test_a_text_with_control_characters_is_refused(values):
    with pytest.raises(ConfigError, match=r"^sweep\.\w.*: expected text without control characters; leave \\\w+ out$"):
        SweepKeys.from_values(values)
