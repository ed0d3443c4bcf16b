"""Plans under the name of an earlier sweep: which launches extend it, and which are refused."""

from __future__ import annotations

import json
import os
import re

import pytest

from cnnbench.errors import ConfigError
from cnnbench.sweep.launcher import freeze_to_disk
from cnnbench.sweep.plan import shorten_label
from sweeping import plan, write_run, write_run_in

pytestmark = pytest.mark.usefixtures("in_this_process")
SEEDS = "seed=0,1,2"


@pytest.fixture
def mine():
    """A sweep `mine` on disk."""
    return freeze_to_disk(plan("name=mine", "seed=0,1"), "typed")


def test_another_fixed_part_under_the_same_name_is_refused_and_the_error_lists_the_differences(mine):
    with pytest.raises(ConfigError) as raised:
        plan("name=mine", "seed=0,1", "epochs=3", "optimizer.lr=0.5")
    assert str(raised.value) == (
        "runs/mine: holds another sweep (optimizer.lr: 0.003, now 0.5, epochs: 2, now 3); "
        "type name=... for a new one, or sweep.extend=true to add to this"
    )


@pytest.mark.parametrize("typed", ["trainer.devices=2", "log=full"])
def test_a_key_outside_the_identity_is_no_difference_of_the_fixed_part(typed, mine):
    assert len(plan(SEEDS, "name=mine", typed).jobs) == 3


def test_sweeping_a_key_that_was_fixed_is_refused(mine):
    with pytest.raises(ConfigError, match=r"holds another sweep \(epochs: 2, now varied\)"):
        plan("name=mine", "seed=0,1", "epochs=2,3")


def test_one_value_of_a_swept_key_is_a_part_of_the_sweep(mine):
    made = plan("name=mine", "seed=1")
    assert [each.job for each in made.jobs] == [mine.jobs[1].job]
    assert [job.setting for job in made.others] == [{"seed": 0}]


def test_a_new_seed_of_one_variant_is_added_to_a_sweep_of_two():
    both = freeze_to_disk(plan("name=mine", "optimizer=adam,sgd", "seed=0,1"), "typed")
    made = plan("name=mine", "optimizer=sgd", "seed=1,2")
    assert made.jobs[0].job == both.jobs[3].job
    assert made.jobs[1].job.setting == {"optimizer": "sgd", "seed": 2}
    assert made.record.keys == both.record.keys


@pytest.fixture
def nets():
    """A sweep `nets` of two nets."""
    return freeze_to_disk(plan("name=nets", "model=lenet5,lenet", "seed=0,1"), "typed")


@pytest.mark.parametrize("model", ["model=lenet5,lenet", "model=lenet5"])
def test_a_new_typed_key_below_a_swept_group_is_refused_also_for_new_seeds(nets, model):
    with pytest.raises(ConfigError, match=r"holds another sweep \(model.activation: not set, now tanh\)"):
        plan("name=nets", model, "model.activation=tanh", "seed=2,3")


def test_one_net_of_a_sweep_over_nets_is_found_again(nets):
    made = plan("name=nets", "model=lenet", "seed=0,1")
    assert [each.job for each in made.jobs] == [each.job for each in nets.jobs[2:]]


def test_a_sweep_over_nets_can_be_extended_by_a_key_of_one_net(nets):
    made = plan("name=nets", "model=lenet5", "model.activation=tanh", "seed=0,1", "sweep.extend=true")
    assert made.record.keys == ["model", "model.activation", "seed"]
    assert [each.job.setting["model.activation"] for each in made.due[-2:]] == ["tanh", "tanh"]
    assert len(made.others) == 4


def test_a_difference_in_a_group_is_reported_by_its_choice(mine):
    with pytest.raises(ConfigError, match=r"holds another sweep \(optimizer: adam, now sgd\)"):
        plan("name=mine", "seed=0,1", "optimizer=sgd")
    with pytest.raises(ConfigError, match=r"holds another sweep \(augment: none, now varied\)"):
        plan("name=mine", "seed=0,1", "augment=none,basic")


@pytest.mark.parametrize("label", ["a_seed3", "x" * 80 + "_seed12", "x" * 200])
def test_a_long_name_is_cut_in_its_middle(label):
    assert len(shorten_label(label)) <= 68
    assert shorten_label(label).endswith(label.rpartition("_")[2][-8:])


def test_many_differences_are_counted(mine):
    with pytest.raises(ConfigError, match=r" and \d+ more\); type name="):
        plan("name=mine", "seed=0,1", "recipe=modern", "augment=basic")


def test_extend_adds_jobs_and_keeps_the_earlier_ones(mine):
    made = freeze_to_disk(plan("name=mine", "seed=2,3", "epochs=3", "sweep.extend=true"), "typed")
    assert [planned.job.setting["seed"] for planned in made.due] == [2, 3]
    assert sorted(job.setting["seed"] for job in made.sweep.jobs()) == [0, 1, 2, 3]


def test_an_extended_sweep_has_the_keys_of_both_launches(mine):
    made = freeze_to_disk(plan("name=mine", "init=torch,paddle", "seed=0,1", "sweep.extend=true"), "typed")
    assert made.sweep.read().keys == ["init", "seed"]
    assert "init" not in made.sweep.read().fixed


def test_extending_by_another_value_of_a_fixed_key_completes_all_settings(mine):
    made = freeze_to_disk(plan("name=mine", "seed=0,1", "epochs=3", "sweep.extend=true"), "typed")
    record = made.sweep.read()
    assert record.keys == ["epochs", "seed"]
    assert "epochs" not in record.fixed
    found = sorted((job.setting["epochs"], job.setting["seed"]) for job in made.sweep.jobs())
    assert found == [
        (epochs, seed) for epochs in (2, 3) for seed in sorted({job.setting["seed"] for job in made.sweep.jobs()})
    ]
    assert [planned.job.label for planned in made.due] == ["epochs3_seed0", "epochs3_seed1"]


def test_the_same_extension_again_finds_its_jobs(mine):
    first = freeze_to_disk(plan("name=mine", "seed=0,1", "epochs=3", "sweep.extend=true"), "typed")
    again = plan("name=mine", "seed=0,1", "epochs=3", "sweep.extend=true")
    assert [planned.job for planned in again.jobs] == [planned.job for planned in first.jobs]
    assert again.others == first.others
    assert again.record.keys == first.record.keys


def test_extending_by_another_choice_of_a_group_completes_the_settings_of_earlier_jobs(mine):
    made = freeze_to_disk(plan("name=mine", "model=simplecnn", "seed=0,1", "sweep.extend=true"), "typed")
    typed = {"model": "simplecnn"}
    made = freeze_to_disk(plan("name=mine", "model=simplecnn,lenet5", "seed=0,1", "sweep.extend=true"), "typed")
    models = {job.setting["model"] for job in made.sweep.jobs()}
    assert models == {"lenet5", typed["model"]}
    assert len(made.sweep.jobs()) == len({str(job.setting) for job in made.sweep.jobs()})


def test_keys_outside_the_identity_may_change(mine):
    made = plan("name=mine", "seed=0,1", "threads=2", "trainer.checkpoint_every_s=7", "data.pipeline=memory")
    assert [planned.job.identity for planned in made.jobs] == [planned.job.identity for planned in mine.jobs]


def test_a_job_whose_config_has_changed_is_refused(mine):
    # as where the files of the data set are others than they were
    config = mine.jobs[0].config
    before = config.model_copy(update={"data": config.data.model_copy(update={"fingerprint": "0ther"})})
    write_run_in(mine.jobs[0].job.directory.path, before, "done")
    record = json.loads(mine.sweep.record.read_text())
    record["jobs"][0]["identity"] = before.identity()
    mine.sweep.record.write_text(json.dumps(record))
    with pytest.raises(
        ConfigError,
        match=rf"{re.escape(mine.jobs[0].job.name)} would be another run now \(data.fingerprint: 0ther, now",
    ):
        plan("name=mine", "seed=0,1")


def test_the_state_of_a_job_is_read_from_its_directory_not_from_sweep_json(mine):
    write_run(mine.jobs[1], "done")
    os.utime(mine.sweep.record)
    assert [planned.due for planned in plan("name=mine", "seed=0,1").jobs] == [True, False]
