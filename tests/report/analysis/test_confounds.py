"""What differs between the arms of a factor besides it, on sweeps small enough to be seen through."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from cnnbench.report.analysis.confounds import confounds, folded

PARAMS = {"plain18": 11_169_162, "resnet18": 11_181_642}


def arms_of(settings, *keys, facts=None):
    """What differs, by factor, of settings whose facts are the setting itself, and the net's parameters."""
    facts = facts or (lambda setting: {})
    own = []
    for setting in settings:
        known = {
            "optimizer.lr": setting.get("optimizer.lr", 0.1),
            "epochs": setting.get("epochs", 5),
            "seed": setting.get("seed", 0),
        }
        known |= {"lr": known["optimizer.lr"]}
        known |= {"params": PARAMS[setting["model"]]} if "model" in setting else {}
        own.append({**known, **facts(setting)})
    return {arms.key: arms for arms in confounds(settings, own, keys)}


def test_a_groups_choice_stands_for_what_is_in_its_file():
    facts = [{"augment.crop.size": 4, "augment": None, "epochs": 1}, {"augment": {}, "epochs": 1}]
    found = folded(facts, [{"augment": "crop", "data": "mnist"}, {"augment": "none", "data": "mnist"}], ["epochs"])
    assert found == [{"augment": "crop", "epochs": 1}, {"augment": "none", "epochs": 1}]


def test_a_factor_stays_where_its_groups_choices_differ():
    facts = [{"model.width": 8, "model.depth": 2}, {"model.width": 16, "model.depth": 3}]
    found = folded(facts, [{"model": "a"}, {"model": "b"}], ["model.width"])
    assert found == [{"model.width": 8, "model": "a"}, {"model.width": 16, "model": "b"}]


def test_the_books_two_arms_differ_in_learning_rate_and_parameters():
    # "Neural Networks and Deep Learning: Cases and Practice", section 5.4: a plain net at 0.005, a residual one at 0.01
    settings = [
        {"model": model, "optimizer.lr": lr, "seed": seed}
        for model, lr in (("plain18", 0.005), ("resnet18", 0.01))
        for seed in range(5)
    ]
    arms = arms_of(settings, "model", "optimizer.lr", "seed")
    assert arms["model"].levels == ["plain18", "resnet18"]
    assert arms["model"].differing == {"lr": [[0.005], [0.01]], "params": [[11_169_162], [11_181_642]]}


def test_the_learning_rates_arms_differ_in_their_nets_then():
    settings = [{"model": "plain18", "optimizer.lr": 0.005}, {"model": "resnet18", "optimizer.lr": 0.01}]
    assert arms_of(settings, "model", "optimizer.lr")["optimizer.lr"].differing == {
        "params": [[11_169_162], [11_181_642]]
    }


def test_a_full_grid_names_no_learning_rate():
    settings = [
        {"model": model, "optimizer.lr": lr, "seed": seed}
        for model, lr, seed in product(PARAMS, (0.005, 0.01), range(3))
    ]
    arms = arms_of(settings, "model", "optimizer.lr", "seed")
    assert arms["model"].differing.keys() == {"params"}
    assert arms["optimizer.lr"].differing == {}


def test_an_exclusion_that_takes_a_rate_from_one_net_names_it():
    settings = [{"model": model, "optimizer.lr": lr} for model, lr in product(PARAMS, (0.005, 0.01))][:-1]
    arms = arms_of(settings, "model", "optimizer.lr")
    assert arms["model"].differing["lr"] == [[0.005, 0.01], [0.005]]


def test_an_exclusion_that_takes_seeds_from_one_net_names_them():
    settings = [{"model": "plain18", "seed": 0}, {"model": "plain18", "seed": 1}, {"model": "resnet18", "seed": 0}]
    assert arms_of(settings, "model", "seed")["model"].differing["seed"] == [[0, 1], [0]]


def test_values_that_go_in_pairs_are_each_others_doubt():
    settings = [{"init": init, "epochs": epochs} for init, epochs in (("torch", 5), ("paddle", 8))]
    facts = lambda setting: {"init": setting["init"]}  # noqa: E731
    arms = arms_of(settings, "init", "epochs", facts=facts)
    assert arms["init"].differing == {"epochs": [[5], [8]]}
    assert arms["epochs"].differing == {"init": [["torch"], ["paddle"]]}


def test_a_batch_size_changes_the_steps_and_is_not_named_besides_itself():
    settings = [{"batch_size": 32}, {"batch_size": 64}]
    facts = lambda setting: {"batch_size": setting["batch_size"], "steps": 6400 // setting["batch_size"]}  # noqa: E731
    assert arms_of(settings, "batch_size", facts=facts)["batch_size"].differing == {"steps": [[200], [100]]}


def test_nets_that_take_images_of_other_sizes_are_told_so_in_channels_and_pixels():
    settings = [{"model": "plain18"}, {"model": "resnet18"}]
    size = {"plain18": 28, "resnet18": 32}
    facts = lambda setting: {  # noqa: E731
        "image": [1, size[setting["model"]], size[setting["model"]]],
        "data.image_size": size[setting["model"]],
    }
    differing = arms_of(settings, "model", facts=facts)["model"].differing
    assert differing.keys() == {"image", "params"}
    assert differing["image"] == [[[1, 28, 28]], [[1, 32, 32]]]


def test_keys_below_a_factor_are_the_factor():
    settings = [{"optimizer": "adam"}, {"optimizer": "sgd"}]
    facts = lambda setting: {"optimizer._target_": setting["optimizer"], "optimizer.betas": 1}  # noqa: E731
    assert arms_of(settings, "optimizer", facts=facts)["optimizer"].differing == {}


def test_a_key_that_only_one_arm_has_is_named():
    settings = [{"optimizer": "adam"}, {"optimizer": "sgd"}]
    facts = lambda setting: {"scheduler.gamma": 0.1} if setting["optimizer"] == "sgd" else {}  # noqa: E731
    assert arms_of(settings, "optimizer", facts=facts)["optimizer"].differing == {"scheduler.gamma": [[None], [0.1]]}


def test_the_seed_is_no_factor():
    assert confounds([{"seed": 0}, {"seed": 1}], [{"seed": 0}, {"seed": 1}], ["seed"]) == []


def test_a_factor_that_some_cells_lack_has_arms_in_the_others():
    settings = [{"model": "plain18", "epochs": 5}, {"model": "resnet18"}]
    arms = arms_of(settings, "model", "epochs")
    assert arms["epochs"].levels == [5]
    assert arms["epochs"].differing == {}


def test_levels_may_be_lists():
    settings = [{"augment": ["crop", "flip"]}, {"augment": "none"}]
    assert arms_of(settings, "augment")["augment"].levels == [["crop", "flip"], "none"]


VALUES = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True)


@given(first=VALUES, second=VALUES, third=VALUES)
def test_in_no_full_grid_is_a_factor_another_ones_doubt(first, second, third):
    settings = [{"a": a, "b": b, "c": c} for a, b, c in product(first, second, third)]
    assert all(not arms.differing for arms in confounds(settings, settings, ["a", "b", "c"]))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=9, unique=True))
def test_what_is_named_is_what_two_arms_do_not_both_have(pairs):
    settings = [{"a": a, "b": b} for a, b in pairs]
    (arms,) = confounds(settings, settings, ["a"])
    taken = [{b for a, b in pairs if a == level} for level in arms.levels]
    unequal = any(one != other for one, other in product(taken, taken))
    assert ("b" in arms.differing) == unequal
