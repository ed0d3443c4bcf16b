"""Composing a config from `conf/` and overrides: the defaults, recipes, a user's conf folder, and one line for each mistake."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from cnnbench.config.compose import compose, groups
from cnnbench.config.overrides import hydra_override
from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.sweep.expand import expand_sweep

MISTAKES = {
    "model=lenet6": f"model=lenet6: no such model; did you mean lenet? choices: {', '.join(groups()['model'])}",
    "optimizer=sdg": "optimizer=sdg: no such optimizer; did you mean sgd? choices: adam, adamw, momentum, nesterov, rmsprop, sgd",
    "optimizer.lr=fast": "optimizer.lr=fast: expected a number above 0; for instance optimizer.lr=0.01",
    "optimizer.lr=nan": "optimizer.lr=nan: expected a number above 0; for instance optimizer.lr=0.01",
    "epochs=-1": "epochs=-1: expected an integer above 0; for instance epochs=10",
    "epochs=1.5": "epochs=1.5: expected an integer above 0; for instance epochs=10",
    "epoch=3": "epoch: no such key; did you mean epochs?",
    "+foo=1": "foo: no such key; `cnnbench --help` lists them",
    "+seed=1": "+seed: exists already; type seed=... without the +",
    "seed": "seed: expected key=value, as in seed=1",
    "seed=[1": "seed=[1: cannot be read; expected key=value, with quotes around a value that holds = or brackets",
    "batch_size=0": "batch_size=0: expected an integer above 0; for instance batch_size=64",
    "precision=17": "precision=17: expected auto, 32, bf16 or 16; for instance precision=auto",
    "threads=1000000": "threads=1000000: expected auto or an integer from 1 to 1024; for instance threads=2",
    "trainer.devices=1000000": "trainer.devices=1000000: expected an integer from 1 to 1024; for instance trainer.devices=1",
    "data.image_size=1000000": "data.image_size=1000000: expected auto or pixels a side, an integer from 1 to 4096; "
    "for instance data.image_size=32",
    "threads=0": "threads=0: expected auto or an integer from 1 to 1024; for instance threads=2",
    "deterministic=maybe": "deterministic=maybe: expected auto, true, warn or false; for instance deterministic=true",
    "name=a/b": "name=a/b: expected at most 80 letters, digits, '.', '_', '-'; for instance name=my_run",
    "data.image_size=big": "data.image_size=big: expected auto or pixels a side, an integer from 1 to 4096; "
    "for instance data.image_size=32",
    "data.train_size=[5,3]": "data.train_size=[5,3]: expected a count, a range [a,b] with a below b, or null; "
    "for instance data.train_size=1000",
    "data.std=0": "data.std=0: expected auto, a number from 1e-06 to 1e+06 or one for each channel; for instance data.std=[0.5]",
    "data.std=1e-300": "data.std=1e-300: expected auto, a number from 1e-06 to 1e+06 or one for each channel; "
    "for instance data.std=[0.5]",
    "data.mean=1e300": "data.mean=1e+300: expected auto, a number from -1e+06 to 1e+06 or one for each channel; "
    "for instance data.mean=[0.5]",
    "name='${x}'": "name='${x}': ${...} stands for the value of another key, and cannot be replaced (there is no key x); "
    "type the value itself",
    "seed=${data.x}": "seed=${data.x}: ${...} stands for the value of another key, and cannot be replaced (there is no key data.x); "
    "type the value itself",
    "name=${oc.env:NOT_SET}": "name=${oc.env:NOT_SET}: ${...} stands for the value of another key, and cannot be replaced "
    "(Environment variable 'NOT_SET' not found); type the value itself",
    "seed=${seed}": "seed=${seed}: ${...} stands for the value of another key, and cannot be replaced "
    "(Recursive interpolation detected); type the value itself",
    "seed=${nope:1}": "seed=${nope:1}: ${...} stands for the value of another key, and cannot be replaced "
    "(Unsupported interpolation type nope); type the value itself",
    "batch_size=9223372036854775808": "batch_size=9223372036854775808: expected a number of at most 9223372036854775807",
    "optimizer.eps=9223372036854775808": "optimizer.eps=9223372036854775808: expected a number of at most 9223372036854775807",
    "trainer.device=2": "trainer.device: no such key; did you mean trainer.devices?",
    "seed=0,1": "seed=0,1: one run takes one value, as in seed=0; a list takes brackets: seed=[0,1]; "
    "a run for each: type -m before it",
    "recipe=[modern,nndl_lenet]": "recipe=[modern,nndl_lenet]: one run takes one recipe, as in recipe=modern; "
    "a run for each: type -m before it",
    "runs_dir=": "runs_dir=: expected a folder; for instance runs_dir=runs",
    "data.root=": "data.root=: expected a folder; for instance data.root=auto",
    "optimizer.momentum=0.9": "optimizer.momentum: Adam takes no momentum; it lists: lr, betas, eps, weight_decay, decay",
    "model.kernel_siz=3": "model.kernel_siz: LeNet5 has no kernel_siz; did you mean kernel_size? "
    "it has: kernel_size, stride, activation, pooling",
    "optimizer.lr.x=1": "optimizer.lr.x: no such key; did you mean optimizer.lr?",
    "~optimizer.momentum": "~optimizer.momentum: no such key; leave it out",
    "augment.crop.padding=2": "augment.crop.padding: augment has no step crop; choose steps, as in augment=basic",
    "hydra/sweeper=optuna": "hydra/sweeper=optuna: cnnbench chooses and starts the jobs of a sweep itself; type -m with key=a,b or "
    "key=range(1,5), sweep.seeds=5, sweep.factors and sweep.zip for more, sweep.slots=4 for jobs at a time",
    "hydra.run.dir=out": "hydra.run.dir=out: has no effect, cnnbench does not use this key of Hydra; runs are written to "
    "runs_dir/name/; type runs_dir=FOLDER name=NAME",
    "+hydra.job.chdir=true": "+hydra.job.chdir=true: has no effect, cnnbench does not use this key of Hydra; runs are written to "
    "runs_dir/name/; type runs_dir=FOLDER name=NAME",
    "hydra/job_logging=none": "hydra/job_logging=none: has no effect, cnnbench does not use this key of Hydra; messages are in the "
    "run's log.txt; type log=full for more in TensorBoard",
    "hydra.searchpath=[my]": "hydra.searchpath=[my]: has no effect, cnnbench does not use this key of Hydra; a conf folder of yours "
    "is added with --config-dir DIR before or after the other arguments",
    "hydra.mode=MULTIRUN": "hydra.mode=MULTIRUN: has no effect, cnnbench does not use this key of Hydra; a sweep is started with -m",
    "model=lenet5,simplecnn": "model=lenet5,simplecnn: one run takes one model, as in model=lenet5; "
    "a run for each: type -m before it",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_with_what_to_type(mistake):
    with pytest.raises(ConfigError) as raised:
        compose([mistake])
    assert str(raised.value) == MISTAKES[mistake]
    assert raised.value.exit_code == 2


def test_an_argument_that_the_yaml_does_not_list_is_added_with_a_plus():
    with pytest.raises(
        ConfigError, match=r"optimizer.amsgrad: Adam lists no amsgrad.* takes a plus: \+optimizer.amsgrad="
    ):
        compose(["optimizer.amsgrad=true"])
    assert compose(["+optimizer.amsgrad=true"]).optimizer.arguments["amsgrad"] is True


@pytest.mark.parametrize("order", [1, -1], ids=["target first", "target last"])
def test_the_message_on_an_unlisted_argument_is_about_the_typed_target(order):
    typed = ["optimizer._target_=torch.optim.SGD", "optimizer.momentum=0.9"]
    with pytest.raises(ConfigError, match=r"SGD lists no momentum; .* takes a plus: \+optimizer.momentum=\.\.\.$"):
        compose(typed[::order])


def test_a_misspelt_step_or_argument_of_a_step_is_answered_with_the_near_one():
    with pytest.raises(
        ConfigError, match=r"^augment.crp.p: augment has no step crp; did you mean crop\? its steps: crop, flip$"
    ):
        compose(["augment=basic", "augment.crp.p=1"])
    with pytest.raises(ConfigError, match=r"^augment.crop.pading: RandomCrop has no pading; did you mean padding\?"):
        compose(["augment=basic", "augment.crop.pading=1"])


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        (
            "# @package _global_\ndefaults: [override /hydra/sweeper: optuna]",
            "hydra/sweeper: cnnbench chooses and starts",
        ),
        (
            "# @package _global_\ndefaults: [override /hydra/launcher: joblib]",
            "hydra/launcher: cnnbench chooses and starts",
        ),
        (
            "# @package _global_\ndefaults: [override /hydra/job_logging: disabled]",
            "hydra/job_logging: .*; type log=full",
        ),
        (
            "# @package _global_\nhydra: {run: {dir: out}}",
            "hydra.run.dir: has no effect.* type runs_dir=FOLDER name=NAME$",
        ),
        ("# @package hydra.job\nname: mine", "hydra.job: has no effect.* type runs_dir=FOLDER name=NAME$"),
        ("# @package _global_\ndefaults: [/model/lenet5@hydra.run]", "hydra.run: has no effect"),
    ],
)
@pytest.mark.parametrize("work", [compose, expand_sweep])
def test_what_a_yaml_sets_of_hydras_own_is_refused_with_what_to_type(work, yaml, message, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"{yaml}\n")
    with pytest.raises(ConfigError, match=rf"^experiment/mine\.yaml: {message}"):
        work(["experiment=mine"], tmp_path)


@pytest.mark.parametrize(
    "key", ["hydra.run.dir=a,b", "sweep.factors={hydra.run.dir:[a,b]}", "sweep.cells=[{hydra.run.dir:a}]"]
)
def test_a_key_of_hydras_own_cannot_be_swept(key):
    with pytest.raises(ConfigError, match=r"^hydra\.run\.dir: has no effect, .*; type runs_dir=FOLDER name=NAME$"):
        expand_sweep([key])


@pytest.mark.parametrize("typed", ["data.root=/x", "data=synthetic data.root=/x", "experiment=mine"])
@pytest.mark.parametrize("work", [compose, expand_sweep])
def test_a_folder_for_a_set_that_reads_none_is_refused_with_the_sets_that_do(work, typed, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ndata: {root: /x}\n")
    with pytest.raises(
        ConfigError, match=r"^data\.root=/x: data=(mnist5k|synthetic) reads no folder; .* data=imagefolder data\.root="
    ):
        work(typed.split(), tmp_path)


def test_a_sweep_over_sets_names_the_job_whose_set_reads_no_folder():
    with pytest.raises(ConfigError, match=r"^data\.root=/x: data=mnist5k reads no folder; .*\(job mnist5k\)$"):
        expand_sweep(["data=mnist,mnist5k", "data.root=/x"])


@pytest.mark.parametrize(
    "typed",
    ["+channels_last=true", "+swept=[seed]", "+choices.model=mine", "+data.fingerprint=abc", "+data.typed_root=x"],
)
@pytest.mark.parametrize("work", [compose, expand_sweep])
def test_a_key_that_freezing_sets_cannot_be_typed(work, typed):
    with pytest.raises(ConfigError, match=r"no such key, cnnbench sets it itself; leave it out$"):
        work([typed])


def test_a_users_recipe_without_its_package_line_is_refused_with_that_line(tmp_path):
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "own.yaml").write_text("epochs: 3\n")
    with pytest.raises(
        ConfigError, match=r"^recipe=own: .*; put the line `# @package _global_` at the top of its file$"
    ):
        compose(["recipe=own"], tmp_path)
    (tmp_path / "recipe" / "own.yaml").write_text("# @package _global_\nepochs: 3\n")
    assert compose(["recipe=own"], tmp_path).epochs == 3


@pytest.mark.parametrize("more", [[], ["model.depth=3"]])
def test_a_custom_model_without_a_class_names_the_missing_key(more):
    with pytest.raises(ConfigError, match=r"^model._target_: a value is missing; .*model._target_=mypkg.MyNet"):
        compose(["model=custom", *more])


def test_a_batch_that_does_not_divide_evenly_is_refused_with_the_nearest_sizes():
    with pytest.raises(ConfigError, match=r"batch_size=62 or batch_size=64"):
        compose(["batch_size=63", "trainer.devices=2"])


@pytest.mark.slow
@pytest.mark.parametrize("group", sorted(groups()))
def test_every_choice_of_every_group_composes(group):
    for choice in groups()[group]:
        own = ["model._target_=torch.nn.Flatten"] if (group, choice) == ("model", "custom") else []
        if group == "experiment":  # one run of it
            own = [
                hydra_override(key, value) for key, value in expand_sweep([f"experiment={choice}"]).settings[0].items()
            ]
        config = compose([f"{group}={choice}", *own])
        assert config.choices[group] == choice


def test_the_default_is_lenet5_on_mnist5k_for_at_most_ten_epochs():
    config = compose([])
    assert (config.choices["model"], config.choices["data"], config.choices["recipe"]) == ("lenet5", "mnist5k", "none")
    assert config.epochs <= 10


def test_a_typed_value_overrides_the_recipes_in_any_order():
    config = compose(["recipe=nndl_lenet"])
    assert config.optimizer.target == "torch.optim.SGD"
    assert (config.optimizer.lr, config.epochs, config.batch_size, config.init) == (0.1, 5, 64, "paddle_create")
    assert (config.data.mean, config.data.std, config.trainer.val_every_steps) == (0.5, 0.5, 15)
    assert compose(["recipe=nndl_lenet", "init=torch", "optimizer.lr=0.2"]).optimizer.lr == 0.2
    assert compose(["init=torch", "recipe=nndl_lenet"]).init == "torch"


def test_an_experiment_selects_its_data_and_recipe():
    config = compose(["experiment=lenet5_init", "init=paddle", "seed=3"])
    assert (config.choices["data"], config.choices["recipe"], config.init) == ("mnist", "nndl_lenet", "paddle")
    assert (config.data.train_size, config.data.val_size, config.data.test_size) == (1000, [50000, 50200], 200)


def test_sweeps_and_sweep_keys_need_the_m_flag():
    with pytest.raises(ConfigError, match=r"^experiment=lenet5_init: is a sweep over init; type -m before it"):
        compose(["experiment=lenet5_init", "seed=3"])
    with pytest.raises(ConfigError, match=r"^sweep.slots=2: sweep.\* keys need -m; type -m before it"):
        compose(["sweep.slots=2"])


def test_a_users_conf_folder_adds_choices(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: mypkg.MyNet\ndepth: 3\n")
    config = compose(["model=mine", "model.depth=5"], config_dir=tmp_path)
    assert (config.model.target, config.model.arguments) == ("mypkg.MyNet", {"depth": 5})


def test_shipped_files_are_parsed_once_and_a_users_files_each_time(tmp_path, monkeypatch):
    (tmp_path / "recipe").mkdir()
    mine = tmp_path / "recipe" / "mine.yaml"
    mine.write_text("# @package _global_\nepochs: 3\n")
    assert compose(["recipe=mine"], tmp_path).epochs == 3
    parsed, load = [], OmegaConf.load
    monkeypatch.setattr(OmegaConf, "load", lambda file: parsed.append(file) or load(file))
    mine.write_text("# @package _global_\nepochs: 5\n")
    assert compose(["recipe=mine"], tmp_path).epochs == 5
    assert {Path(file.name) for file in parsed} == {mine}


def test_a_composition_does_not_change_the_next():
    first = compose([])
    compose(["model=resnet20", "optimizer=sgd", "optimizer.lr=0.5", "augment=[crop,flip]"])
    assert compose([]) == first


def test_an_absent_conf_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        compose([], config_dir=tmp_path / "nowhere")


def test_a_config_is_equal_after_writing_and_loading_its_yaml(tmp_path):
    config = compose(["recipe=nndl_lenet", "data.val_size=[3,4]", "runs_dir=/x/été"])
    (tmp_path / "config.yaml").write_text(config.dump())
    assert Config.load(tmp_path / "config.yaml") == config


def test_a_config_yaml_that_holds_no_config_is_refused(tmp_path):
    for text in ("[1, 2]", "a: [", "seed: 1\n"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ConfigError):
            Config.load(tmp_path / "config.yaml")


def test_a_folder_with_any_name_can_be_typed():
    config = compose(["data=imagefolder", "data.root=/x/pics (2024), [a]='b'", 'runs_dir="/y/a b"'])
    assert (config.data.root, config.runs_dir) == ("/x/pics (2024), [a]='b'", "/y/a b")


def test_a_folder_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("PICTURES", "/x/pictures")
    assert compose(["data=mnist", "data.root=${oc.env:PICTURES}"]).data.root == "/x/pictures"


@pytest.mark.parametrize(
    ("chosen", "step"),
    [("rotate,rotate_list", "rotate"), ("basic,crop", "crop"), ("erase,erase", "erase")],
)
def test_choices_that_share_a_step_are_refused(chosen, step):
    one, other = chosen.split(",")
    with pytest.raises(ConfigError, match=rf"^augment=\[{chosen}\]: both {one} and {other} have a step {step};"):
        compose([f"augment=[{chosen}]"])


def test_a_users_choice_that_inherits_a_shipped_step_is_refused_beside_it(tmp_path):
    (tmp_path / "augment").mkdir()
    (tmp_path / "augment" / "mine.yaml").write_text("defaults: [crop]\n")
    with pytest.raises(ConfigError, match=r"^augment=\[mine,crop\]: both mine and crop have a step crop;"):
        compose(["augment=[mine,crop]"], tmp_path)


@pytest.mark.parametrize("value", ["inf", "nan", "[]", "[.inf]"])
def test_a_mean_that_is_not_finite_is_refused(value):
    with pytest.raises(ConfigError, match=r"^data\.mean="):
        compose([f"data.mean={value}"])
