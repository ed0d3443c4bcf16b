"""Names, folders and questions are text as typed, also where YAML and Hydra read a number, a truth value or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnbench.config.compose import compose
from cnnbench.config.overrides import override_value, quote_text
from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.sweep.expand import expand_sweep

TEXTS = ["2024", "1e3", "1_000", "1.0", "0x10", "010", "2024-01-02", "true", "No", "null", "inf"]
COMMENT = "  # a comment"


def conf_folder(folder: Path, name: str, text: str) -> Path:
    """A conf folder with one file."""
    path = folder / "conf" / f"{name}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return folder / "conf"


def test_a_typed_name_is_kept_character_by_character():
    assert [override_value(quote_text(f"name={text}")) for text in TEXTS] == TEXTS
    assert compose(["name=1_000"]).name == compose(["name='1_000'"]).name == "1_000"


@pytest.mark.parametrize("text", TEXTS)
def test_a_name_in_a_users_yaml_is_kept_character_by_character(tmp_path, text):
    folder = conf_folder(
        tmp_path, "experiment/mine", f"# @package _global_\nruns_dir: '{text}'\nname:   {text}{COMMENT}\n"
    )
    config = compose(["experiment=mine"], folder)
    assert (config.name, config.runs_dir) == (text, text)


@pytest.mark.parametrize("text", ["2024", "1e3", "1_000", "true"])
def test_question_and_cost_of_a_sweep_are_kept_character_by_character(tmp_path, text):
    stated = f"sweep: {{question: {text}, cost: {text}, seeds: 1}}\n"
    folder = conf_folder(tmp_path, "experiment/mine", f"# @package _global_\n{stated}")
    policies = [
        expand_sweep(["experiment=mine"], folder).policy,
        expand_sweep([f"sweep.question={text}", f"sweep.cost={text}", "seed=0"]).policy,
    ]
    assert [(policy.question, policy.cost) for policy in policies] == [(text, text)] * 2


def test_a_sweeps_folder_has_the_name_as_it_was_typed(tmp_path):
    folder = conf_folder(tmp_path, "recipe/mine", "# @package _global_\nname: 1_000\n")
    assert expand_sweep(["seed=0,1", "name=1_000"]).name == "1_000"
    assert expand_sweep(["seed=0,1", "recipe=mine"], folder).name == "1_000"


@pytest.mark.parametrize("typed", ["null", "~", ""])
def test_null_stands_for_no_question(tmp_path, typed):
    folder = conf_folder(tmp_path, "experiment/mine", f"# @package _global_\nsweep:\n  question: {typed}\n")
    assert expand_sweep(["experiment=mine", "seed=0"], folder).policy.question is None
    assert expand_sweep(["sweep.question=null", "seed=0"]).policy.question is None


def test_a_yaml_of_a_group_sets_the_groups_own_text_keys(tmp_path):
    folder = conf_folder(tmp_path, "data/mine", "defaults: [imagefolder]\nroot: 1_000\n")
    assert compose(["data=mine"], folder).data.root == "1_000"


def test_the_arguments_of_a_net_stay_numbers(tmp_path):
    folder = conf_folder(tmp_path, "model/mine", "_target_: mypkg.Net\nname: 1_000\nroot: 1e3\nresume: true\n")
    assert compose(["model=mine"], folder).model.arguments == {"name": 1000, "root": 1000.0, "resume": True}


def test_a_name_that_no_folder_may_have_is_refused_as_it_was_typed(tmp_path):
    folder = conf_folder(tmp_path, "experiment/mine", "# @package _global_\nname: 1:30\n")
    for typed in (["experiment=mine"], ["name=1:30"]):
        with pytest.raises(ConfigError, match=r"^name=1:30: expected at most 80 letters"):
            compose(typed, folder)


def test_the_frozen_config_keeps_the_name(tmp_path):
    config = compose([])
    for text in TEXTS:
        (tmp_path / "config.yaml").write_text(config.model_copy(update={"name": text}).dump(), encoding="utf-8")
        assert Config.load(tmp_path / "config.yaml").name == text
