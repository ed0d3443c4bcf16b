"""The jobs of a sweep against written loops, their configs against single compositions, names and error messages."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.config.compose import compose, groups
from cnnbench.config.overrides import hydra_override, read_overrides
from cnnbench.errors import ConfigError
from cnnbench.runs.run_dir import HASHED
from cnnbench.sweep import composer as composing
from cnnbench.sweep import expand as sweeper
from cnnbench.sweep.expand import expand_grid, expand_sweep, setting_label
from cnnbench.sweep.plan import unused_directory
from cnnbench.sweep.schema import SweepKeys
from cnnbench.text import NAME, safe_filename
from sweeping import experiment, settings_of

pytestmark = pytest.mark.usefixtures("in_this_process")
LRS = {"optimizer.lr": [0.1, 0.2]}


def settings_of_typed(*overrides):
    """The settings of typed overrides; composes nothing."""
    typed = read_overrides(overrides, groups())
    return expand_grid(SweepKeys.from_values({}), typed.swept, dict.fromkeys(typed.fixed))[0]


# ---- what is typed ---------------------------------------------------------------------------------------------------


def test_typed_values_are_combined_with_the_seeds_innermost():
    assert settings_of_typed("seed=0,1,2", "model=plain18,resnet18") == [
        {"model": model, "seed": seed} for model in ("plain18", "resnet18") for seed in (0, 1, 2)
    ]


def test_the_seed_is_the_last_key():
    assert expand_sweep(["seed=0,1", "optimizer.lr=0.1,0.2", "epochs=1,2"]).keys == ("optimizer.lr", "epochs", "seed")


def test_range_gives_numbers():
    assert settings_of_typed("seed=range(1,6,2)") == [{"seed": 1}, {"seed": 3}, {"seed": 5}]


def test_glob_gives_the_choices_that_match():
    named = {name for name in groups()["model"] if name.startswith("lenet") and "_" in name}
    assert {setting["model"] for setting in settings_of_typed("model=glob(lenet*_*)")} == named


def test_a_list_in_brackets_is_one_value():
    request = expand_sweep(["augment=[crop,flip],none"])
    assert request.settings == [{"augment": ["crop", "flip"]}, {"augment": "none"}]
    assert [list(config.augment) for config in request.configs] == [["crop", "flip"], []]
    assert [config.choices["augment"] for config in request.configs] == ["crop+flip", "none"]


def test_an_added_key_may_vary():
    request = expand_sweep(["model=custom", "model._target_=torch.nn.Flatten", "+model.start_dim=1,2"])
    assert [config.model.arguments for config in request.configs] == [{"start_dim": 1}, {"start_dim": 2}]
    assert request.keys == ("model.start_dim",)


def test_single_values_give_one_job():
    assert settings_of_typed("epochs=3") == [{}]


def test_a_key_typed_twice_has_its_last_values():
    assert settings_of_typed("seed=1,2", "epochs=1,2", "seed=5", "epochs=3,4") == [{"epochs": 3}, {"epochs": 4}]


def test_values_keep_their_types():
    assert [s["early_stopping"] for s in settings_of_typed("early_stopping=null,2")] == [None, 2]


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True)),
       st.lists(st.integers(0, 5), max_size=3, unique=True))  # fmt: skip
def test_a_grid_is_every_combination_once(swept, seeds):
    found = settings_of({**swept, **({"seed": seeds} if seeds else {})})
    every = [
        {**dict(zip(swept, values, strict=True)), **({"seed": seed} if seeds else {})}
        for values in product(*swept.values())
        for seed in (seeds or [None])
    ]
    assert found == every


# ---- experiments -----------------------------------------------------------------------------------------------------


def test_factors_make_a_grid_and_seeds_count_from_zero():
    assert settings_of(factors={"model": ["plain18", "resnet18"], **LRS}, seeds=3) == [
        {"model": model, "optimizer.lr": lr, "seed": seed}
        for model in ("plain18", "resnet18")
        for lr in (0.1, 0.2)
        for seed in range(3)
    ]


def test_seeds_may_be_listed():
    assert settings_of(seeds=[7, 3]) == [{"seed": 7}, {"seed": 3}]


def test_the_lists_of_a_zip_block_are_paired():
    assert settings_of(zip={"model": ["vgg11", "vgg16"], "epochs": [5, 8]}) == [
        {"model": "vgg11", "epochs": 5},
        {"model": "vgg16", "epochs": 8},
    ]


def test_two_zip_blocks_and_a_factor_are_combined():
    blocks = [{"a": [1, 2], "b": [3, 4]}, {"c": [5, 6], "d": [7, 8]}]
    assert settings_of(factors={"e": [0, 9]}, zip=blocks) == [
        {"e": e, "a": a, "b": b, "c": c, "d": d}
        for e in (0, 9)
        for a, b in ((1, 3), (2, 4))
        for c, d in ((5, 7), (6, 8))
    ]


def test_cells_are_added_to_the_grid():
    cells = [{"model": "vgg11", "optimizer.lr": 0.5}]
    assert settings_of(factors=LRS, cells=cells, seeds=2) == [
        {"optimizer.lr": 0.1, "seed": 0},
        {"optimizer.lr": 0.1, "seed": 1},
        {"optimizer.lr": 0.2, "seed": 0},
        {"optimizer.lr": 0.2, "seed": 1},
        {"model": "vgg11", "optimizer.lr": 0.5, "seed": 0},
        {"model": "vgg11", "optimizer.lr": 0.5, "seed": 1},
    ]


def test_cells_without_factors_are_the_only_jobs():
    cells = [{"model": "plain18", "optimizer.lr": 0.005}, {"model": "resnet18", "optimizer.lr": 0.01}]
    assert settings_of(cells=cells) == cells


def test_typed_values_are_combined_with_cells():
    assert settings_of({"optimizer": ["adam", "sgd"]}, cells=[{"epochs": 1}, {"epochs": 2}]) == [
        {"epochs": epochs, "optimizer": optimizer} for epochs in (1, 2) for optimizer in ("adam", "sgd")
    ]


def test_an_exclusion_removes_settings_with_all_its_values():
    found = settings_of(factors={"model": ["a", "b"], **LRS}, exclude=[{"model": "a", "optimizer.lr": 0.2}])
    assert found == [
        {"model": "a", "optimizer.lr": 0.1},
        {"model": "b", "optimizer.lr": 0.1},
        {"model": "b", "optimizer.lr": 0.2},
    ]


def test_a_list_in_an_exclusion_matches_each_of_its_items():
    found = settings_of(factors={"a": [1, 2, 3], "b": [4, 5]}, exclude=[{"a": [1, 3], "b": 5}])
    assert found == [{"a": 1, "b": 4}, {"a": 2, "b": 4}, {"a": 2, "b": 5}, {"a": 3, "b": 4}]


def test_a_swept_list_is_excluded_as_one_value():
    found = settings_of(factors={"augment": [["crop", "flip"], "none"]}, exclude=[{"augment": ["crop", "flip"]}])
    assert found == [{"augment": "none"}]


def test_a_list_that_equals_a_swept_list_does_not_match_its_items():
    augments = [["crop", "flip"], "crop", "none"]
    found = settings_of(factors={"augment": augments}, exclude=[{"augment": ["crop", "flip"]}])
    assert found == [{"augment": "crop"}, {"augment": "none"}]


def test_an_exclusion_applies_if_one_of_its_keys_is_typed():
    policy = SweepKeys.from_values({"factors": {"a": [1, 2], "b": [3, 4]}, "exclude": [{"a": 1, "b": 3}]})
    assert expand_grid(policy, {}, {"a": 1})[0] == [{"b": 4}]
    assert expand_grid(policy, {}, {"a": 2})[0] == [{"b": 3}, {"b": 4}]


def test_seed_and_sweep_seeds_together_are_an_error():
    with pytest.raises(ConfigError, match=r"sweep\.seeds: seed is typed, too"):
        expand_sweep(["seed=3", "sweep.seeds=2", "epochs=1,2"])


def test_a_list_in_quotes_is_an_error(tmp_path):
    folder = experiment(tmp_path, sweep={"factors": {"augment": ["none", "[crop,flip]"]}})
    with pytest.raises(ConfigError, match=r"in YAML a list has no quotes"):
        expand_sweep(["experiment=mine"], folder)


def test_seeds_can_be_excluded():
    found = settings_of(factors={"a": [1, 2]}, seeds=3, exclude=[{"a": 1, "seed": [1, 2]}])
    assert found == [{"a": 1, "seed": 0}, {"a": 2, "seed": 0}, {"a": 2, "seed": 1}, {"a": 2, "seed": 2}]


def test_a_note_counts_the_excluded_jobs():
    _, _, notes = expand_grid(SweepKeys.from_values({"factors": {"a": [1, 2, 3]}, "exclude": [{"a": [1, 3]}]}), {}, {})
    assert notes == ["2 of 3 jobs are excluded"]


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        ([{"b": 1}], "sweep.exclude: b is no key that varies"),
        ([{"a": 1, "b": 1}], "sweep.exclude: b is no key that varies"),
        ([{}], "sweep.exclude: an empty setting is no key that varies"),
        ([{"a": [1, 2]}], "sweep.exclude: leaves no job"),
    ],
)
def test_an_exclusion_that_fits_nothing_or_everything_is_an_error(exclude, message):
    with pytest.raises(ConfigError) as raised:
        settings_of(factors={"a": [1, 2]}, exclude=exclude)
    assert str(raised.value) == message


def test_jobs_requested_twice_run_once_and_are_counted_in_a_note():
    request = expand_sweep(["epochs=1,2,1", "seed=0,0"])
    assert request.settings == [{"epochs": 1, "seed": 0}, {"epochs": 2, "seed": 0}]
    assert request.notes == ("4 of 6 jobs were requested twice, and are run once",)


def test_a_cell_that_is_also_in_the_grid_runs_once():
    assert settings_of(factors=LRS, cells=[{"optimizer.lr": 0.2}]) == [{"optimizer.lr": 0.1}, {"optimizer.lr": 0.2}]


@pytest.mark.parametrize("typed", ["seed=range(0)", "epochs=range(3,3)"])
def test_a_key_without_values_is_an_error(typed):
    with pytest.raises(ConfigError, match=rf"^{typed.partition('=')[0]}: no value to sweep over$"):
        settings_of_typed(typed, "model=lenet5,simplecnn")


# ---- typed values replace those of an experiment ---------------------------------------------------------------------


def test_typed_values_replace_those_of_a_factor():
    assert settings_of({"a": [7]}, factors={"a": [1, 2], "b": [3, 4]}) == [{"b": 3, "a": 7}, {"b": 4, "a": 7}]


def test_a_factor_typed_with_one_value_no_longer_varies():
    assert settings_of(fixed=("a",), factors={"a": [1, 2], "b": [3, 4]}) == [{"b": 3}, {"b": 4}]


def test_typed_seeds_replace_the_experiments():
    assert settings_of({"seed": [7, 8]}, seeds=5) == [{"seed": 7}, {"seed": 8}]


def test_a_typed_seed_replaces_sweep_seeds():
    assert settings_of(fixed=("seed",), factors={"a": [1, 2]}, seeds=5) == [{"a": 1}, {"a": 2}]


def test_typing_one_key_of_a_zip_block_keeps_the_others():
    assert settings_of(fixed=("b",), zip={"a": [1, 2], "b": [3, 4]}) == [{"a": 1}, {"a": 2}]


def test_typing_a_key_removes_it_from_the_cells():
    assert settings_of(fixed=("a",), cells=[{"a": 1, "b": 2}, {"a": 2, "b": 3}]) == [{"b": 2}, {"b": 3}]


def test_typed_values_replace_those_of_an_experiments_file(tmp_path):
    conf = experiment(
        tmp_path,
        name="mine",
        epochs=4,
        sweep={"question": "why?", "factors": {"optimizer": ["adam", "sgd"]}, "zip": {"init": ["torch", "paddle"], "ema": [0.5, 0.9]},
               "seeds": 2},
    )  # fmt: skip
    request = expand_sweep(["experiment=mine", "optimizer=sgd", "batch_size=32"], conf)
    assert request.settings == [
        {"init": init, "ema": ema, "seed": seed} for init, ema in (("torch", 0.5), ("paddle", 0.9)) for seed in (0, 1)
    ]
    assert request.name == "mine"
    assert request.policy.question == "why?"
    assert {(config.choices["optimizer"], config.epochs, config.batch_size) for config in request.configs} == {
        ("sgd", 4, 32)
    }


def test_sweep_factors_may_be_typed():
    assert expand_sweep(["sweep.factors={optimizer.lr:[0.1,0.2]}", "sweep.seeds=2"]).settings == [
        {"optimizer.lr": lr, "seed": seed} for lr in (0.1, 0.2) for seed in (0, 1)
    ]


def test_sweep_zip_may_be_typed():
    assert expand_sweep(["sweep.zip={init:[torch,paddle],epochs:[1,2]}"]).settings == [
        {"init": "torch", "epochs": 1},
        {"init": "paddle", "epochs": 2},
    ]


# ---- composing -------------------------------------------------------------------------------------------------------

ALIKE = {
    "plain values of every kind": [
        "sweep.zip={data.mean:[0.5,[0.1],auto],early_stopping:[null,2,3],precision:[bf16,32,'32'],data.train_size:[[0,9],50,null]}"
    ],
    "choices of groups and plain values": ["model=lenet5,lenet_leaky", "model.kernel_size=3,5", "optimizer.lr=0.05"],
    "a recipe that sets what varies": ["recipe=nndl_lenet,none", "optimizer.lr=0.3,0.4", "epochs=1"],
    "several augmentations": ["augment=[crop,flip],none"],
    "added keys, in quotes": ["model=custom", "model._target_=torch.nn.Flatten", "+model.x='a b,c',\"it's\",1,'1',null,'null'"],
    "a value made from another": ["batch_size=16,32", "accumulate=1,${batch_size}"],
}  # fmt: skip


@pytest.mark.parametrize("what", ALIKE)
def test_each_job_composes_as_it_would_alone(what):
    request = expand_sweep(ALIKE[what])
    varied = {key.lstrip("+") for setting in request.settings for key in setting}
    typed = {typed.partition("=")[0].lstrip("+"): typed for typed in ALIKE[what]}
    fixed = [text for key, text in typed.items() if key not in varied and not key.startswith("sweep.")]
    assert len(request.settings) > 1
    for setting, config in zip(request.settings, request.configs, strict=True):
        assert config == compose([*fixed, *(hydra_override(key, value) for key, value in setting.items())])


def test_cells_with_different_keys_compose_as_each_would_alone(tmp_path):
    cells = [{"model": "lenet_leaky", "model.se": True}, {"model": "simplecnn", "epochs": 3}, {"optimizer.lr": 0.5}]
    request = expand_sweep(["experiment=mine"], experiment(tmp_path, sweep={"cells": cells}))
    for cell, config in zip(cells, request.configs, strict=True):
        alone = compose([hydra_override(key, value) for key, value in cell.items()])
        assert config.model_copy(update={"choices": {}}) == alone.model_copy(update={"choices": {}})


def test_hydra_composes_each_choice_of_two_groups_once(monkeypatch):
    calls = []
    theirs = composing.compose_values
    monkeypatch.setattr(
        composing, "compose_values", lambda overrides, config_dir: calls.append(overrides) or theirs(overrides, config_dir)
    )  # fmt: skip
    request = expand_sweep(
        ["model=lenet5,simplecnn,resnet20", "optimizer=sgd,adam,adamw", "epochs=1,2,3", "seed=range(20)"]
    )
    assert len(request.configs) == 540
    assert len(calls) == 5  # three models with sgd, and the first with adam and adamw


@pytest.mark.slow
def test_every_combination_of_choices_composes_as_it_would_alone():
    request = expand_sweep(
        [
            "model=lenet5,resnet20",
            "optimizer=glob(*adam*)",
            "scheduler=cosine,onecycle",
            "recipe=none,modern",
            "augment=[crop,flip],none",
        ]
    )
    for setting, config in zip(request.settings, request.configs, strict=True):
        assert config == compose([hydra_override(key, value) for key, value in setting.items()])


def test_progress_is_reported_after_each_job():
    texts = []
    expand_sweep(["seed=0,1,2"], progress=texts.append)
    assert texts == [f"composing {number} of 3 jobs" for number in (1, 2, 3)]


# ---- error messages --------------------------------------------------------------------------------------------------

MISTAKES = {
    ("epochs=1,2,zwei",): "epochs=zwei: expected an integer above 0; for instance epochs=10 (job epochs-zwei)",
    ("model=lenet5,simplecnn", "seed=0,1,-1"): "seed=-1: expected an integer from 0 to 4294967295; for instance seed=0 "
    "(job lenet5_seed-1)",
    ("trainer.devices=1,2", "batch_size=3"): "batch_size=3: it is global, and cannot be shared evenly by 2 devices; "
    "type batch_size=2 or batch_size=4 (job devices2)",
    ("model=lenet5,simplecnn", "model.kernel_size=3"): "model.kernel_size: SimpleCNN has no kernel_size; it has: none (job simplecnn)",
    ("modle=lenet5,simplecnn",): "modle: no such key; did you mean model? (job modle-lenet5)",
    ("optimizer=adam,sdg",): "optimizer=sdg: no such optimizer; did you mean sgd? choices: adam, adamw, momentum, nesterov, rmsprop, sgd",
    ("optimizer.lr=interval(0,1)",): "optimizer.lr=interval(0,1): an interval has infinitely many values; type some of them, "
    "as in optimizer.lr=0.01,0.1",
    ("seed=0,1", "epochs"): "epochs: cannot be read; expected key=value, with quotes around a value that holds = or brackets",
    ("name=a,b",): "name=a,b: a sweep has one name; type one value",
    ("experiment=demo,lenet5_init",): "experiment=demo,lenet5_init: a sweep has one experiment; type one value",
    ("sweep.slots=1,2",): "sweep.slots=1,2: a sweep has one sweep.slots; type one value",
    ("resume=never", "seed=0,1"): "resume=never: a sweep finds its runs itself; type it without",
    ("sweep.slot=2", "seed=0,1"): "sweep.slot: no such key; did you mean sweep.slots?",
    ("name=a/b", "seed=0,1"): "name=a/b: expected at most 80 letters, digits, '.', '_', '-'; for instance name=my_run (job seed0)",
}  # fmt: skip


@pytest.mark.parametrize("typed", MISTAKES, ids=" ".join)
def test_the_error_is_one_line_that_names_the_job(typed):
    with pytest.raises(ConfigError) as raised:
        expand_sweep(typed)
    assert str(raised.value) == MISTAKES[typed]


def test_an_error_in_the_last_of_many_jobs_is_found():
    with pytest.raises(ConfigError) as raised:
        expand_sweep(["seed=range(200)", "epochs=1,0"])
    assert str(raised.value).endswith("(job epochs0_seed0)")


def test_the_error_of_a_single_job_names_no_job():
    with pytest.raises(ConfigError, match=r"for instance epochs=10$"):
        expand_sweep(["epochs=0"])


def test_a_glob_without_matches_is_an_error_that_lists_the_choices():
    with pytest.raises(ConfigError, match=r"^optimizer=glob\(foo\*\): matches no choice; choices: adam, adamw"):
        expand_sweep(["optimizer=glob(foo*)"])


# ---- names -----------------------------------------------------------------------------------------------------------

FIRST = ["optimizer.lr=0.1,0.2", "seed=0,1"]
SAME = [
    ["seed=0,1,2", "optimizer.lr=0.1,0.2"],
    ["optimizer.lr=0.1,0.2,0.3", "seed=5,6"],
    [*FIRST, "threads=1", "sweep.slots=2", "sweep.retry=all"],
]
OTHER = [
    [*FIRST, "epochs=3"],
    [*FIRST, "optimizer=sgd"],
    [*FIRST, "epochs=10,11"],
    ["optimizer.lr=0.1,0.2", "seed=0"],
    ["init=torch,paddle", "seed=0,1"],
    [*FIRST, "recipe=modern"],
]


@pytest.mark.parametrize("typed", SAME, ids=" ".join)
def test_more_values_or_seeds_keep_the_default_name(typed):
    assert expand_sweep(typed).name == expand_sweep(FIRST).name


@pytest.mark.parametrize("typed", OTHER, ids=" ".join)
def test_another_fixed_part_or_other_keys_change_the_default_name(typed):
    assert expand_sweep(typed).name != expand_sweep(FIRST).name


def test_the_default_name_starts_with_the_swept_keys():
    assert re.fullmatch(r"lr_seed_[0-9a-f]{8}", expand_sweep(FIRST).name)


def test_the_hash_in_the_default_name_does_not_depend_on_the_order_of_the_keys():
    one, other = (expand_sweep(["epochs=1,2", "init=torch,paddle"][::step]).name for step in (1, -1))
    assert one.rpartition("_")[2] == other.rpartition("_")[2]


def test_a_typed_key_below_a_swept_group_belongs_to_the_fixed_part():
    one, other = (expand_sweep(["model=lenet5,lenet_leaky", f"model.kernel_size={size}"]) for size in (3, 5))
    assert one.fixed["model.kernel_size"] == "3"
    assert one.name != other.name


def test_a_typed_name_is_the_name():
    assert expand_sweep([*FIRST, "name=mine"]).name == "mine"


def test_a_sweep_over_classes_has_a_valid_name():
    request = expand_sweep(["model=custom", "model._target_=torch.nn.Flatten,torch.nn.Identity"])
    assert NAME.fullmatch(request.name)


KEYS = st.lists(st.text(min_size=1, max_size=90), min_size=1, max_size=6, unique=True)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=200)
ANY = PLAIN | st.lists(PLAIN, max_size=4) | st.dictionaries(st.text(max_size=5), PLAIN, max_size=3)
NOWHERE = Path("/nowhere")
HASH = st.text("0123456789abcdef", min_size=64, max_size=64)


@settings(max_examples=50, deadline=None)
@given(KEYS)
def test_the_default_name_is_valid_for_any_keys(keys):
    assert NAME.fullmatch(sweeper.default_name(tuple(keys), {}, NOWHERE))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=30), ANY, max_size=5), HASH)
def test_a_jobs_directory_has_a_valid_name_that_ends_in_its_hash_for_any_values(setting, identity):
    name = unused_directory(NOWHERE, setting_label(setting, ["model"]), identity).path.name
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,80}", name)
    assert HASHED.search(name)[1] == identity[:8]


@settings(max_examples=50, deadline=None)
@given(ANY, ANY, HASH, HASH)
def test_two_identities_never_share_a_directory(one, other, first, second):
    names = [
        unused_directory(NOWHERE, setting_label({"k": value}, []), identity).path.name.casefold()
        for value, identity in ((one, first), (other, second))
    ]
    assert (names[0] == names[1]) <= (first[:8] == second[:8])


def test_a_job_is_labelled_by_its_values():
    setting = {"model": "plain18", "optimizer.lr": 0.01, "augment": ["crop", "flip"], "compile": True, "seed": 3}
    assert safe_filename(setting_label(setting, groups())) == "plain18_lr0.01_-crop-flip-_compile-true_seed3"
