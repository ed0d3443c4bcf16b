import pytest

from cnnbench.config.compose import compose, groups
from cnnbench.config.overrides import as_override
from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.sweep.expand import ask

MISTAKES = {
    "model=lenet6": f"model=lenet6: no such model; did you mean lenet? choices: {', '.join(groups()['model'])}",
    "optimizer=sdg": "optimizer=sdg: no such optimizer; did you mean sgd? choices: adam, adamw, momentum, nesterov, rmsprop, sgd",
    "optimizer.lr=fast": "optimizer.lr=fast: expected a number above 0; for instance optimizer.lr=0.01",
    "optimizer.lr=nan": "optimizer.lr=nan: expected a number above 0; for instance optimizer.lr=0.01",
    "epochs=-1": "epochs=-1: expected an integer above 0; for instance epochs=10",
    "epochs=1.5": "epochs=1.5: expected an integer above 0; for instance epochs=10",
    "epoch=3": "epoch: no such key; did you mean epochs?",
    "+foo=1": "foo: no such key; `python -m cnnbench --help` lists them",
    "+seed=1": "+seed: exists already; type seed=... without the +",
    "seed": "seed: expected key=value, as in seed=1",
    "seed=[1": "seed=[1: cannot be read; expected key=value, with quotes around a value that holds = or brackets",
    "batch_size=0": "batch_size=0: expected an integer above 0; for instance batch_size=64",
    "precision=17": "precision=17: expected auto, 32, bf16 or 16; for instance precision=auto",
    "threads=0": "threads=0: expected auto or an integer above 0; for instance threads=2",
    "deterministic=maybe": "deterministic=maybe: expected auto, true, warn or false; for instance deterministic=true",
    "name=a/b": "name=a/b: expected at most 80 letters, digits, '.', '_', '-'; for instance name=my_run",
    "data.image_size=big": "data.image_size=big: expected auto or pixels a side, an integer above 0; for instance data.image_size=32",
    "data.train_size=[5,3]": "data.train_size=[5,3]: expected a count, a range [a,b] with a below b, or null; "
    "for instance data.train_size=1000",
    "data.std=0": "data.std=0: expected auto, a number above 0 or one for each channel; for instance data.std=[0.5]",
    "trainer.device=2": "trainer.device: no such key; did you mean trainer.devices?",
    "seed=0,1": "seed=0,1: one run takes one value, as in seed=0; a list stands in brackets: seed=[0,1]; "
    "a run for each: type -m before it",
    "recipe=[modern,nndl_lenet]": "recipe=[modern,nndl_lenet]: one run takes one recipe, as in recipe=modern; "
    "a run for each: type -m before it",
    "runs_dir=": "runs_dir=: expected a folder; for instance runs_dir=runs",
    "data.root=": "data.root=: expected a folder; for instance data.root=auto",
    "optimizer.momentum=0.9": "optimizer.momentum: adam takes no momentum; it lists: lr, betas, eps, weight_decay, decay",
    "model=lenet5,simplecnn": "model=lenet5,simplecnn: one run takes one model, as in model=lenet5; "
    "a run for each: type -m before it",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_type(mistake):
    with pytest.raises(ConfigError) as raised:
        compose([mistake])
    assert str(raised.value) == MISTAKES[mistake]
    assert raised.value.exit_code == 2


def test_a_key_that_the_chosen_group_lacks_says_how_to_add_it():
    with pytest.raises(ConfigError, match=r"optimizer.amsgrad: adam lists no amsgrad.* \+optimizer.amsgrad=") as raised:
        compose(["optimizer.amsgrad=true"])
    assert "takes a plus" in str(raised.value)
    assert compose(["+optimizer.amsgrad=true"]).optimizer.arguments["amsgrad"] is True


def test_a_key_that_a_typed_target_takes_is_to_be_added(tmp_path):
    with pytest.raises(ConfigError, match=r"adam lists no momentum; .* takes a plus: \+optimizer.momentum=\.\.\.$"):
        compose(["optimizer._target_=torch.optim.SGD", "optimizer.momentum=0.9"])


def test_a_recipe_of_ones_own_without_its_first_line_is_told_which(tmp_path):
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "own.yaml").write_text("epochs: 3\n")
    with pytest.raises(
        ConfigError, match=r"^recipe=own: .*; put the line `# @package _global_` at the top of its file$"
    ):
        compose(["recipe=own"], tmp_path)
    (tmp_path / "recipe" / "own.yaml").write_text("# @package _global_\nepochs: 3\n")
    assert compose(["recipe=own"], tmp_path).epochs == 3


def test_a_custom_model_without_a_class_says_which_key_is_missing():
    with pytest.raises(ConfigError, match=r"^model._target_: a value is missing; .*model._target_=mypkg.MyNet"):
        compose(["model=custom"])


def test_a_batch_that_the_devices_do_not_divide_names_the_nearest_that_they_do():
    with pytest.raises(ConfigError, match=r"batch_size=62 or batch_size=64"):
        compose(["batch_size=63", "trainer.devices=2"])


@pytest.mark.slow
@pytest.mark.parametrize("group", sorted(groups()))
def test_every_choice_of_every_group_composes(group):
    for choice in groups()[group]:
        own = ["model._target_=torch.nn.Flatten"] if (group, choice) == ("model", "custom") else []
        if group == "experiment":  # one run of it
            own = [as_override(key, value) for key, value in ask([f"experiment={choice}"]).settings[0].items()]
        config = compose([f"{group}={choice}", *own])
        assert config.choices[group] == choice


def test_the_defaults_are_lenet5_on_mnist5k_for_at_most_ten_epochs():
    config = compose([])
    assert (config.choices["model"], config.choices["data"], config.choices["recipe"]) == ("lenet5", "mnist5k", "none")
    assert config.epochs <= 10


def test_a_recipe_sets_what_the_document_says_and_the_command_line_wins():
    config = compose(["recipe=nndl_lenet"])
    assert config.optimizer.target == "torch.optim.SGD"
    assert (config.optimizer.lr, config.epochs, config.batch_size, config.init) == (0.1, 5, 64, "paddle_create")
    assert (config.data.mean, config.data.std, config.trainer.val_every_steps) == (0.5, 0.5, 15)
    assert compose(["recipe=nndl_lenet", "init=torch", "optimizer.lr=0.2"]).optimizer.lr == 0.2
    assert compose(["init=torch", "recipe=nndl_lenet"]).init == "torch"


def test_an_experiment_names_its_data_and_recipe():
    config = compose(["experiment=lenet5_init", "init=paddle", "seed=3"])
    assert (config.choices["data"], config.choices["recipe"], config.init) == ("mnist", "nndl_lenet", "paddle")
    assert (config.data.train_size, config.data.val_size, config.data.test_size) == (1000, [50000, 50200], 200)


def test_an_experiment_of_which_something_varies_is_no_single_run():
    with pytest.raises(ConfigError, match=r"^experiment=lenet5_init: is a sweep over init; type -m before it"):
        compose(["experiment=lenet5_init", "seed=3"])
    with pytest.raises(ConfigError, match=r"^sweep.slots=2: is of sweeps, and this is one run"):
        compose(["sweep.slots=2"])


def test_a_conf_folder_of_the_users_adds_choices(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: mypkg.MyNet\ndepth: 3\n")
    config = compose(["model=mine", "model.depth=5"], config_dir=tmp_path)
    assert (config.model.target, config.model.arguments) == ("mypkg.MyNet", {"depth": 5})


def test_a_conf_folder_that_is_absent_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        compose([], config_dir=tmp_path / "nowhere")


def test_a_config_survives_its_yaml(tmp_path):
    config = compose(["recipe=nndl_lenet", "data.val_size=[3,4]", "name=été".replace("é", "e")])
    (tmp_path / "config.yaml").write_text(config.dump())
    assert Config.load(tmp_path / "config.yaml") == config


def test_a_config_yaml_that_is_none_is_named(tmp_path):
    for text in ("[1, 2]", "a: [", "seed: 1\n"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ConfigError):
            Config.load(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "name",
    [
        "été",
        "a,b",
        "pics (2024)",
        "a'b",
        'a"b',
        "a#b",
        "a=b",
        "a!b",
        "123",
        "a b",
        "[x]",
        "{x}",
        "back\\slash",
        "end\\",
        "null",
    ],
)
def test_a_folder_of_any_name_can_be_typed(name):
    config = compose([f"data.root=/x/{name}", f"runs_dir=/y/{name}"])
    assert (config.data.root, config.runs_dir) == (f"/x/{name}", f"/y/{name}")


@pytest.mark.parametrize("typed", ["'/x/a b'", '"/x/a b"'])
def test_a_folder_in_quotes_is_the_folder(typed):
    assert compose([f"data.root={typed}"]).data.root == "/x/a b"


def test_a_folder_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("PICTURES", "/x/pictures")
    assert compose(["data.root=${oc.env:PICTURES}"]).data.root == "/x/pictures"


@pytest.mark.parametrize(
    ("chosen", "step"),
    [("rotate,rotate_list", "rotate"), ("basic,crop", "crop"), ("notes,flip", "flip"), ("erase,erase", "erase")],
)
def test_choices_of_which_one_would_be_lost_are_refused(chosen, step):
    one, other = chosen.split(",")
    with pytest.raises(ConfigError, match=rf"^augment=\[{chosen}\]: both {one} and {other} have a step {step};"):
        compose([f"augment=[{chosen}]"])


@pytest.mark.parametrize("value", ["inf", "nan", "[]", "[.inf]"])
def test_a_mean_is_made_of_finite_numbers(value):
    with pytest.raises(ConfigError, match=r"^data\.mean="):
        compose([f"data.mean={value}"])


@pytest.mark.parametrize("key", ["data.train_size=true", "data.image_size=true", "threads=true"])
def test_a_count_is_a_number(key):
    with pytest.raises(ConfigError, match=f"^{key}: expected"):
        compose([key])
