"""Confounds of a factor, in sweeps that are small enough to be checked by eye."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from cnnbench.report.analysis.confounds import find_confounds, fold_group_choices

PARAMS = {"plain18": 11_169_162, "resnet18": 11_181_642}


def confounds_of(settings, *keys, facts=None):
    """The confounds by factor; the facts of a setting are the setting itself and the parameters of its net."""
    facts = facts or (lambda setting: {})
    all_facts = []
    for setting in settings:
        known = {
            "optimizer.lr": setting.get("optimizer.lr", 0.1),
            "epochs": setting.get("epochs", 5),
            "seed": setting.get("seed", 0),
        }
        known |= {"lr": known["optimizer.lr"]}
        known |= {"params": PARAMS[setting["model"]]} if "model" in setting else {}
        all_facts.append({**known, **facts(setting)})
    return {confounds.key: confounds for confounds in find_confounds(settings, all_facts, keys)}


def test_a_changed_group_choice_replaces_the_keys_of_its_file():
    facts = [{"augment.crop.size": 4, "augment": None, "epochs": 1}, {"augment": {}, "epochs": 1}]
    found = fold_group_choices(
        facts, [{"augment": "crop", "data": "mnist"}, {"augment": "none", "data": "mnist"}], ["epochs"]
    )
    assert found == [{"augment": "crop", "epochs": 1}, {"augment": "none", "epochs": 1}]


def test_a_factor_is_kept_where_the_choices_of_its_group_differ():
    facts = [{"model.width": 8, "model.depth": 2}, {"model.width": 16, "model.depth": 3}]
    found = fold_group_choices(facts, [{"model": "a"}, {"model": "b"}], ["model.width"])
    assert found == [{"model.width": 8, "model": "a"}, {"model.width": 16, "model": "b"}]


def test_the_two_nets_of_the_book_differ_in_learning_rate_and_parameters():
    # "Neural Networks and Deep Learning: Cases and Practice", section 5.4: a plain net at 0.005, a residual one at 0.01
    settings = [
        {"model": model, "optimizer.lr": lr, "seed": seed}
        for model, lr in (("plain18", 0.005), ("resnet18", 0.01))
        for seed in range(5)
    ]
    confounds = confounds_of(settings, "model", "optimizer.lr", "seed")
    assert confounds["model"].levels == ["plain18", "resnet18"]
    assert confounds["model"].differing == {"lr": [[0.005], [0.01]], "params": [[11_169_162], [11_181_642]]}


def test_the_two_learning_rates_of_the_book_differ_in_their_nets():
    settings = [{"model": "plain18", "optimizer.lr": 0.005}, {"model": "resnet18", "optimizer.lr": 0.01}]
    assert confounds_of(settings, "model", "optimizer.lr")["optimizer.lr"].differing == {
        "params": [[11_169_162], [11_181_642]]
    }


def test_in_a_full_grid_the_learning_rate_is_not_a_confound():
    settings = [
        {"model": model, "optimizer.lr": lr, "seed": seed}
        for model, lr, seed in product(PARAMS, (0.005, 0.01), range(3))
    ]
    confounds = confounds_of(settings, "model", "optimizer.lr", "seed")
    assert confounds["model"].differing.keys() == {"params"}
    assert confounds["optimizer.lr"].differing == {}


def test_a_learning_rate_that_one_net_lacks_is_a_confound():
    settings = [{"model": model, "optimizer.lr": lr} for model, lr in product(PARAMS, (0.005, 0.01))][:-1]
    confounds = confounds_of(settings, "model", "optimizer.lr")
    assert confounds["model"].differing["lr"] == [[0.005, 0.01], [0.005]]


def test_seeds_that_one_net_lacks_are_a_confound():
    settings = [{"model": "plain18", "seed": 0}, {"model": "plain18", "seed": 1}, {"model": "resnet18", "seed": 0}]
    assert confounds_of(settings, "model", "seed")["model"].differing["seed"] == [[0, 1], [0]]


def test_factors_that_vary_together_are_confounds_of_each_other():
    settings = [{"init": init, "epochs": epochs} for init, epochs in (("torch", 5), ("paddle", 8))]
    facts = lambda setting: {"init": setting["init"]}  # noqa: E731
    confounds = confounds_of(settings, "init", "epochs", facts=facts)
    assert confounds["init"].differing == {"epochs": [[5], [8]]}
    assert confounds["epochs"].differing == {"init": [["torch"], ["paddle"]]}


def test_the_steps_are_a_confound_of_the_batch_size_but_the_batch_size_is_not():
    settings = [{"batch_size": 32}, {"batch_size": 64}]
    facts = lambda setting: {"batch_size": setting["batch_size"], "steps": 6400 // setting["batch_size"]}  # noqa: E731
    assert confounds_of(settings, "batch_size", facts=facts)["batch_size"].differing == {"steps": [[200], [100]]}


def test_different_image_sizes_are_named_in_channels_and_pixels():
    settings = [{"model": "plain18"}, {"model": "resnet18"}]
    size = {"plain18": 28, "resnet18": 32}
    facts = lambda setting: {  # noqa: E731
        "image": [1, size[setting["model"]], size[setting["model"]]],
        "data.image_size": size[setting["model"]],
    }
    differing = confounds_of(settings, "model", facts=facts)["model"].differing
    assert differing.keys() == {"image", "params"}
    assert differing["image"] == [[[1, 28, 28]], [[1, 32, 32]]]


def test_keys_of_a_factors_group_are_not_confounds():
    settings = [{"optimizer": "adam"}, {"optimizer": "sgd"}]
    facts = lambda setting: {"optimizer._target_": setting["optimizer"], "optimizer.betas": 1}  # noqa: E731
    assert confounds_of(settings, "optimizer", facts=facts)["optimizer"].differing == {}


def test_a_key_that_only_one_level_has_is_a_confound():
    settings = [{"optimizer": "adam"}, {"optimizer": "sgd"}]
    facts = lambda setting: {"scheduler.gamma": 0.1} if setting["optimizer"] == "sgd" else {}  # noqa: E731
    assert confounds_of(settings, "optimizer", facts=facts)["optimizer"].differing == {
        "scheduler.gamma": [[None], [0.1]]
    }


def test_the_seed_is_not_a_factor():
    assert find_confounds([{"seed": 0}, {"seed": 1}], [{"seed": 0}, {"seed": 1}], ["seed"]) == []


def test_a_factor_that_some_settings_lack_has_the_levels_of_the_others():
    settings = [{"model": "plain18", "epochs": 5}, {"model": "resnet18"}]
    confounds = confounds_of(settings, "model", "epochs")
    assert confounds["epochs"].levels == [5]
    assert confounds["epochs"].differing == {}


def test_levels_may_be_lists():
    settings = [{"augment": ["crop", "flip"]}, {"augment": "none"}]
    assert confounds_of(settings, "augment")["augment"].levels == [["crop", "flip"], "none"]


VALUES = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True)


@given(first=VALUES, second=VALUES, third=VALUES)
def test_in_a_full_grid_no_factor_is_a_confound_of_another(first, second, third):
    settings = [{"a": a, "b": b, "c": c} for a, b, c in product(first, second, third)]
    assert all(not confounds.differing for confounds in find_confounds(settings, settings, ["a", "b", "c"]))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=9, unique=True))
def test_a_factor_is_a_confound_if_two_levels_have_different_sets_of_its_values(pairs):
    settings = [{"a": a, "b": b} for a, b in pairs]
    (confounds,) = find_confounds(settings, settings, ["a"])
    taken = [{b for a, b in pairs if a == level} for level in confounds.levels]
    unequal = any(one != other for one, other in product(taken, taken))
    assert ("b" in confounds.differing) == unequal
