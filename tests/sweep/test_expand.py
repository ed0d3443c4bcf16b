"""Which jobs a sweep has, by loops written out; what each composes to, by composing it alone; names; mistakes."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.config.compose import compose, groups
from cnnbench.config.overrides import as_override, read_overrides
from cnnbench.errors import ConfigError
from cnnbench.runs.sweep_dir import HASHED, SweepDir
from cnnbench.sweep import composer as composing
from cnnbench.sweep import expand as sweeper
from cnnbench.sweep.expand import ask, label, multiplied
from cnnbench.sweep.plan import unused
from cnnbench.sweep.schema import SweepKeys
from cnnbench.text import NAME, legal
from sweeping import experiment, quickly, settings_of  # noqa: F401

pytestmark = pytest.mark.usefixtures("quickly")
LRS = {"optimizer.lr": [0.1, 0.2]}


def seen(*overrides):
    """The settings of what is typed, of which nothing is composed."""
    typed = read_overrides(overrides, groups())
    return multiplied(SweepKeys.check({}), typed.swept, dict.fromkeys(typed.fixed))[0]


# ---- what is typed -----------------------------------------------------------------------------------------------------


def test_what_is_typed_is_multiplied_out_with_the_seeds_innermost():
    assert seen("seed=0,1,2", "model=plain18,resnet18") == [
        {"model": model, "seed": seed} for model in ("plain18", "resnet18") for seed in (0, 1, 2)
    ]


def test_the_seed_is_the_last_key():
    assert ask(["seed=0,1", "optimizer.lr=0.1,0.2", "epochs=1,2"]).keys == ("optimizer.lr", "epochs", "seed")


def test_range_gives_numbers():
    assert seen("seed=range(1,6,2)") == [{"seed": 1}, {"seed": 3}, {"seed": 5}]


def test_glob_gives_the_choices_of_that_name():
    named = {name for name in groups()["model"] if name.startswith("lenet") and "_" in name}
    assert {setting["model"] for setting in seen("model=glob(lenet*_*)")} == named


def test_a_list_in_brackets_is_one_value():
    asked = ask(["augment=[crop,flip],none"])
    assert asked.settings == [{"augment": ["crop", "flip"]}, {"augment": "none"}]
    assert [list(config.augment) for config in asked.configs] == [["crop", "flip"], []]
    assert [config.choices["augment"] for config in asked.configs] == ["crop+flip", "none"]


def test_a_key_that_is_added_may_vary():
    asked = ask(["model=custom", "model._target_=torch.nn.Flatten", "+model.start_dim=1,2"])
    assert [config.model.arguments for config in asked.configs] == [{"start_dim": 1}, {"start_dim": 2}]
    assert asked.keys == ("model.start_dim",)


def test_one_value_of_each_key_is_one_job():
    assert seen("epochs=3") == [{}]


def test_a_key_that_is_typed_twice_has_its_last_values():
    assert seen("seed=1,2", "epochs=1,2", "seed=5", "epochs=3,4") == [{"epochs": 3}, {"epochs": 4}]


def test_values_keep_their_types():
    assert [s["early_stopping"] for s in seen("early_stopping=null,2")] == [None, 2]


@settings(max_examples=50, deadline=None)
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


# ---- experiments -------------------------------------------------------------------------------------------------------


def test_factors_are_a_grid_and_the_seeds_are_counted_from_zero():
    assert settings_of(factors={"model": ["plain18", "resnet18"], **LRS}, seeds=3) == [
        {"model": model, "optimizer.lr": lr, "seed": seed}
        for model in ("plain18", "resnet18")
        for lr in (0.1, 0.2)
        for seed in range(3)
    ]


def test_seeds_may_be_listed():
    assert settings_of(seeds=[7, 3]) == [{"seed": 7}, {"seed": 3}]


def test_values_of_a_block_go_in_pairs():
    assert settings_of(zip={"model": ["vgg11", "vgg16"], "epochs": [5, 8]}) == [
        {"model": "vgg11", "epochs": 5},
        {"model": "vgg16", "epochs": 8},
    ]


def test_two_blocks_and_a_factor_multiply():
    blocks = [{"a": [1, 2], "b": [3, 4]}, {"c": [5, 6], "d": [7, 8]}]
    assert settings_of(factors={"e": [0, 9]}, zip=blocks) == [
        {"e": e, "a": a, "b": b, "c": c, "d": d}
        for e in (0, 9)
        for a, b in ((1, 3), (2, 4))
        for c, d in ((5, 7), (6, 8))
    ]


def test_cells_stand_beside_the_grid():
    cells = [{"model": "vgg11", "optimizer.lr": 0.5}]
    assert settings_of(factors=LRS, cells=cells, seeds=2) == [
        {"optimizer.lr": 0.1, "seed": 0},
        {"optimizer.lr": 0.1, "seed": 1},
        {"optimizer.lr": 0.2, "seed": 0},
        {"optimizer.lr": 0.2, "seed": 1},
        {"model": "vgg11", "optimizer.lr": 0.5, "seed": 0},
        {"model": "vgg11", "optimizer.lr": 0.5, "seed": 1},
    ]


def test_cells_alone_are_all_there_is():
    cells = [{"model": "plain18", "optimizer.lr": 0.005}, {"model": "resnet18", "optimizer.lr": 0.01}]
    assert settings_of(cells=cells) == cells


def test_what_is_typed_multiplies_cells():
    assert settings_of({"optimizer": ["adam", "sgd"]}, cells=[{"epochs": 1}, {"epochs": 2}]) == [
        {"epochs": epochs, "optimizer": optimizer} for epochs in (1, 2) for optimizer in ("adam", "sgd")
    ]


def test_an_exclusion_takes_what_has_all_its_values():
    found = settings_of(factors={"model": ["a", "b"], **LRS}, exclude=[{"model": "a", "optimizer.lr": 0.2}])
    assert found == [
        {"model": "a", "optimizer.lr": 0.1},
        {"model": "b", "optimizer.lr": 0.1},
        {"model": "b", "optimizer.lr": 0.2},
    ]


def test_a_value_of_an_exclusion_may_be_several():
    found = settings_of(factors={"a": [1, 2, 3], "b": [4, 5]}, exclude=[{"a": [1, 3], "b": 5}])
    assert found == [{"a": 1, "b": 4}, {"a": 2, "b": 4}, {"a": 2, "b": 5}, {"a": 3, "b": 4}]


def test_a_value_that_is_a_list_is_excluded_as_a_whole():
    found = settings_of(factors={"augment": [["crop", "flip"], "none"]}, exclude=[{"augment": ["crop", "flip"]}])
    assert found == [{"augment": "none"}]


def test_a_list_of_an_exclusion_that_is_a_value_is_not_also_several():
    augments = [["crop", "flip"], "crop", "none"]
    found = settings_of(factors={"augment": augments}, exclude=[{"augment": ["crop", "flip"]}])
    assert found == [{"augment": "crop"}, {"augment": "none"}]


def test_an_exclusion_holds_where_one_of_its_keys_is_typed():
    policy = SweepKeys.check({"factors": {"a": [1, 2], "b": [3, 4]}, "exclude": [{"a": 1, "b": 3}]})
    assert multiplied(policy, {}, {"a": 1})[0] == [{"b": 4}]
    assert multiplied(policy, {}, {"a": 2})[0] == [{"b": 3}, {"b": 4}]


def test_seeds_are_typed_in_one_way():
    with pytest.raises(ConfigError, match=r"sweep\.seeds: seed is typed, too"):
        ask(["seed=3", "sweep.seeds=2", "epochs=1,2"])


def test_a_list_in_quotes_is_told_to_be_none(tmp_path):
    folder = experiment(tmp_path, sweep={"factors": {"augment": ["none", "[crop,flip]"]}})
    with pytest.raises(ConfigError, match=r"in YAML a list has no quotes"):
        ask(["experiment=mine"], folder)


def test_seeds_are_excluded_like_anything():
    found = settings_of(factors={"a": [1, 2]}, seeds=3, exclude=[{"a": 1, "seed": [1, 2]}])
    assert found == [{"a": 1, "seed": 0}, {"a": 2, "seed": 0}, {"a": 2, "seed": 1}, {"a": 2, "seed": 2}]


def test_how_many_are_excluded_is_told():
    _, _, notes = multiplied(SweepKeys.check({"factors": {"a": [1, 2, 3]}, "exclude": [{"a": [1, 3]}]}), {}, {})
    assert notes == ["2 of 3 jobs are excluded"]


@pytest.mark.parametrize(
    ("exclude", "told"),
    [
        ([{"b": 1}], "sweep.exclude: b is none of what varies"),
        ([{"a": 1, "b": 1}], "sweep.exclude: b is none of what varies"),
        ([{}], "sweep.exclude: an empty setting is none of what varies"),
        ([{"a": [1, 2]}], "sweep.exclude: leaves no job"),
    ],
)
def test_an_exclusion_that_cannot_be_meant_is_a_mistake(exclude, told):
    with pytest.raises(ConfigError) as raised:
        settings_of(factors={"a": [1, 2]}, exclude=exclude)
    assert str(raised.value) == told


def test_jobs_that_are_asked_for_twice_are_run_once_and_counted():
    asked = ask(["epochs=1,2,1", "seed=0,0"])
    assert asked.settings == [{"epochs": 1, "seed": 0}, {"epochs": 2, "seed": 0}]
    assert asked.notes == ("4 of 6 jobs were asked for twice, and are run once",)


def test_a_cell_that_is_in_the_grid_as_well_is_run_once():
    assert settings_of(factors=LRS, cells=[{"optimizer.lr": 0.2}]) == [{"optimizer.lr": 0.1}, {"optimizer.lr": 0.2}]


@pytest.mark.parametrize("typed", ["seed=range(0)", "epochs=range(3,3)"])
def test_a_key_without_a_value_is_a_mistake(typed):
    with pytest.raises(ConfigError, match=rf"^{typed.partition('=')[0]}: no value to sweep over$"):
        seen(typed, "model=lenet5,simplecnn")


# ---- what is typed wins --------------------------------------------------------------------------------------------------


def test_typed_values_replace_those_of_a_factor():
    assert settings_of({"a": [7]}, factors={"a": [1, 2], "b": [3, 4]}) == [{"b": 3, "a": 7}, {"b": 4, "a": 7}]


def test_a_factor_that_is_typed_with_one_value_varies_no_more():
    assert settings_of(fixed=("a",), factors={"a": [1, 2], "b": [3, 4]}) == [{"b": 3}, {"b": 4}]


def test_typed_seeds_replace_the_experiments():
    assert settings_of({"seed": [7, 8]}, seeds=5) == [{"seed": 7}, {"seed": 8}]


def test_one_typed_seed_is_the_only_one():
    assert settings_of(fixed=("seed",), factors={"a": [1, 2]}, seeds=5) == [{"a": 1}, {"a": 2}]


def test_a_key_of_a_pair_may_be_typed_and_the_rest_of_the_pair_stays():
    assert settings_of(fixed=("b",), zip={"a": [1, 2], "b": [3, 4]}) == [{"a": 1}, {"a": 2}]


def test_a_key_of_all_cells_may_be_typed():
    assert settings_of(fixed=("a",), cells=[{"a": 1, "b": 2}, {"a": 2, "b": 3}]) == [{"b": 2}, {"b": 3}]


def test_an_experiment_is_read_from_its_file_and_what_is_typed_wins(tmp_path):
    conf = experiment(
        tmp_path,
        name="mine",
        epochs=4,
        sweep={"question": "why?", "factors": {"optimizer": ["adam", "sgd"]}, "zip": {"init": ["torch", "paddle"], "ema": [0.5, 0.9]},
               "seeds": 2},
    )  # fmt: skip
    asked = ask(["experiment=mine", "optimizer=sgd", "batch_size=32"], conf)
    assert asked.settings == [
        {"init": init, "ema": ema, "seed": seed} for init, ema in (("torch", 0.5), ("paddle", 0.9)) for seed in (0, 1)
    ]
    assert asked.name == "mine"
    assert asked.policy.question == "why?"
    assert {(config.choices["optimizer"], config.epochs, config.batch_size) for config in asked.configs} == {
        ("sgd", 4, 32)
    }


def test_a_factor_may_be_typed_as_the_file_has_it():
    assert ask(["sweep.factors={optimizer.lr:[0.1,0.2]}", "sweep.seeds=2"]).settings == [
        {"optimizer.lr": lr, "seed": seed} for lr in (0.1, 0.2) for seed in (0, 1)
    ]


def test_pairs_may_be_typed_as_the_file_has_them():
    assert ask(["sweep.zip={init:[torch,paddle],epochs:[1,2]}"]).settings == [
        {"init": "torch", "epochs": 1},
        {"init": "paddle", "epochs": 2},
    ]


# ---- composing -----------------------------------------------------------------------------------------------------------

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
def test_each_job_composes_to_what_it_would_alone(what):
    asked = ask(ALIKE[what])
    varied = {key.lstrip("+") for setting in asked.settings for key in setting}
    typed = {typed.partition("=")[0].lstrip("+"): typed for typed in ALIKE[what]}
    fixed = [text for key, text in typed.items() if key not in varied and not key.startswith("sweep.")]
    assert len(asked.settings) > 1
    for setting, config in zip(asked.settings, asked.configs, strict=True):
        assert config == compose([*fixed, *(as_override(key, value) for key, value in setting.items())])


def test_cells_of_different_keys_compose_to_what_each_would_alone(tmp_path):
    cells = [{"model": "lenet_leaky", "model.se": True}, {"model": "simplecnn", "epochs": 3}, {"optimizer.lr": 0.5}]
    asked = ask(["experiment=mine"], experiment(tmp_path, sweep={"cells": cells}))
    for cell, config in zip(cells, asked.configs, strict=True):
        alone = compose([as_override(key, value) for key, value in cell.items()])
        assert config.model_copy(update={"choices": {}}) == alone.model_copy(update={"choices": {}})


def test_hydra_is_asked_for_each_choice_and_not_for_each_combination(monkeypatch):
    calls = []
    theirs = composing.compose_values
    monkeypatch.setattr(
        composing, "compose_values", lambda overrides, config_dir: calls.append(overrides) or theirs(overrides, config_dir)
    )  # fmt: skip
    asked = ask(["model=lenet5,simplecnn,resnet20", "optimizer=sgd,adam,adamw", "epochs=1,2,3", "seed=range(20)"])
    assert len(asked.configs) == 540
    assert len(calls) == 5  # the first combination, and each other choice of one group beside it


@pytest.mark.slow
def test_every_combination_of_choices_composes_to_what_it_would_alone():
    asked = ask(
        [
            "model=lenet5,vgg11,resnet20",
            "optimizer=glob(*)",
            "scheduler=cosine,onecycle",
            "recipe=none,modern",
            "augment=[crop,flip],none",
        ]
    )
    for setting, config in list(zip(asked.settings, asked.configs, strict=True))[::5]:
        assert config == compose([as_override(key, value) for key, value in setting.items()])


def test_how_far_it_is_is_told():
    told = []
    ask(["seed=0,1,2"], progress=lambda *so_far: told.append(so_far))
    assert told == [(1, 3), (2, 3), (3, 3)]


# ---- mistakes --------------------------------------------------------------------------------------------------------------

MISTAKES = {
    ("epochs=1,2,zwei",): "epochs=zwei: expected an integer above 0; for instance epochs=10 (job epochs-zwei)",
    ("model=lenet5,simplecnn", "seed=0,1,-1"): "seed=-1: expected an integer from 0 to 4294967295; for instance seed=0 "
    "(job lenet5_seed-1)",
    ("trainer.devices=1,2", "batch_size=3"): "batch_size=3: it is global, and cannot be shared evenly by 2 devices; "
    "type batch_size=2 or batch_size=4 (job devices2)",
    ("model=lenet5,simplecnn", "model.kernel_size=3"): "model.kernel_size: simplecnn has no kernel_size; it has: none (job simplecnn)",
    ("modle=lenet5,simplecnn",): "modle: no such key; did you mean model? (job modle-lenet5)",
    ("optimizer=adam,sdg",): "optimizer=sdg: no such optimizer; did you mean sgd? choices: adam, adamw, momentum, nesterov, rmsprop, sgd",
    ("optimizer.lr=interval(0,1)",): "optimizer.lr=interval(0,1): an interval has no end of values; type some of them, "
    "as in optimizer.lr=0.01,0.1",
    ("seed=0,1", "epochs"): "epochs: cannot be read; expected key=value, with quotes around a value that holds = or brackets",
    ("name=a,b",): "name=a,b: a sweep has one name; type one value",
    ("experiment=demo,lenet5_init",): "experiment=demo,lenet5_init: a sweep has one experiment; type one value",
    ("sweep.slots=1,2",): "sweep.slots=1,2: a sweep has one sweep.slots; type one value",
    ("resume=never", "seed=0,1"): "resume=never: a sweep finds its runs by itself; type it without",
    ("sweep.slot=2", "seed=0,1"): "sweep.slot: no such key; did you mean sweep.slots?",
    ("name=a/b", "seed=0,1"): "name=a/b: expected at most 80 letters, digits, '.', '_', '-'; for instance name=my_run (job seed0)",
}  # fmt: skip


@pytest.mark.parametrize("typed", MISTAKES, ids=" ".join)
def test_a_mistake_is_one_line_that_names_the_job(typed):
    with pytest.raises(ConfigError) as raised:
        ask(typed)
    assert str(raised.value) == MISTAKES[typed]


def test_a_mistake_in_the_last_of_many_jobs_is_found():
    with pytest.raises(ConfigError) as raised:
        ask(["seed=range(200)", "epochs=1,0"])
    assert str(raised.value).endswith("(job epochs0_seed0)")


def test_a_mistake_of_the_only_job_names_no_job():
    with pytest.raises(ConfigError, match=r"for instance epochs=10$"):
        ask(["epochs=0"])


def test_a_glob_that_fits_nothing_lists_the_choices():
    with pytest.raises(ConfigError, match=r"^optimizer=glob\(foo\*\): none of the choices; they are: adam, adamw"):
        ask(["optimizer=glob(foo*)"])


# ---- names -----------------------------------------------------------------------------------------------------------------

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
def test_more_values_or_seeds_keep_the_folder(typed):
    assert ask(typed).name == ask(FIRST).name


@pytest.mark.parametrize("typed", OTHER, ids=" ".join)
def test_another_fixed_part_or_other_keys_have_another_folder(typed):
    assert ask(typed).name != ask(FIRST).name


def test_the_folder_says_what_varies():
    assert re.fullmatch(r"lr_seed_[0-9a-f]{8}", ask(FIRST).name)


def test_the_order_in_which_keys_are_typed_does_not_matter_to_the_folders_hash():
    one, other = (ask(["epochs=1,2", "init=torch,paddle"][::step]).name for step in (1, -1))
    assert one.rpartition("_")[2] == other.rpartition("_")[2]


def test_what_is_typed_below_a_swept_group_belongs_to_the_fixed_part():
    one, other = (ask(["model=lenet5,lenet_leaky", f"model.kernel_size={size}"]) for size in (3, 5))
    assert one.fixed["model.kernel_size"] == "3"
    assert one.name != other.name


def test_a_name_that_is_typed_is_the_folder():
    assert ask([*FIRST, "name=mine"]).name == "mine"


def test_a_sweep_over_classes_has_a_name_that_a_run_may_have():
    asked = ask(["model=custom", "model._target_=torch.nn.Flatten,torch.nn.Identity"])
    assert NAME.fullmatch(asked.name)


KEYS = st.lists(st.text(min_size=1, max_size=90), min_size=1, max_size=6, unique=True)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=200)
ANY = PLAIN | st.lists(PLAIN, max_size=4) | st.dictionaries(st.text(max_size=5), PLAIN, max_size=3)
NOWHERE = SweepDir(Path("/nowhere"))
HASH = st.text("0123456789abcdef", min_size=64, max_size=64)


@settings(deadline=None)
@given(KEYS)
def test_a_sweeps_folder_has_a_legal_name_whatever_varies(keys):
    assert NAME.fullmatch(sweeper._default_name(tuple(keys), {}, NOWHERE.path))


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=30), ANY, max_size=5), HASH)
def test_a_jobs_folder_has_a_legal_name_that_ends_in_its_hash_whatever_the_values_are(setting, identity):
    name = unused(NOWHERE, label(setting, ["model"]), identity, {}).path.name
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,80}", name)
    assert HASHED.search(name)[1] == identity[:8]


@settings(deadline=None)
@given(ANY, ANY, HASH, HASH)
def test_two_identities_are_never_one_folder(one, other, first, second):
    names = [
        unused(NOWHERE, label({"k": value}, []), identity, {}).path.name.casefold()
        for value, identity in ((one, first), (other, second))
    ]
    assert (names[0] == names[1]) <= (first[:8] == second[:8])


def test_a_job_is_called_after_its_values():
    setting = {"model": "plain18", "optimizer.lr": 0.01, "augment": ["crop", "flip"], "compile": True, "seed": 3}
    assert legal(label(setting, groups())) == "plain18_lr0.01_-crop-flip-_compile-true_seed3"
