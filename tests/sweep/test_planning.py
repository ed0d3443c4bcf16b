"""Plans of sweeps, with run directories as real runs leave them: which jobs run, and which launches are refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.runs.environment import code_version
from cnnbench.runs.liveness import this_process
from cnnbench.sweep.launcher import freeze_to_disk
from cnnbench.sweep.plan import shorten_label
from cnnbench.sweep.run import run_sweep
from cnnbench.training.validate import prepare
from sweeping import SMALL, plan, result_values, tree, write_run, write_run_in

pytestmark = pytest.mark.usefixtures("in_this_process")
SEEDS = "seed=0,1,2"


@pytest.fixture
def one():
    """A job of a sweep that is frozen to disk and has not run."""
    made = freeze_to_disk(plan("seed=0"), "typed")
    return made.jobs[0]


def plan_again(*overrides):
    """The job of `one` in a new plan."""
    (planned,) = plan("seed=0", *overrides).jobs
    return planned


# ---- a new sweep -----------------------------------------------------------------------------------------------------


def test_every_job_of_a_new_sweep_is_due_and_nothing_is_written(tmp_path):
    made = plan(SEEDS)
    assert made.due == made.jobs
    assert [planned.status.state for planned in made.jobs] == ["pending"] * 3
    assert tree(tmp_path) == {}


def test_a_job_is_named_after_its_values_and_the_hash_of_its_config():
    for planned in plan(SEEDS, "model=lenet5,simplecnn").jobs:
        setting, identity = planned.job.setting, planned.config.identity()
        assert planned.job.name == f"{setting['model']}_seed{setting['seed']}_{identity[:8]}"


def test_the_jobs_keep_the_requested_order():
    made = plan("data.train_size=100,64", "seed=1,0")
    assert [tuple(planned.job.setting.values()) for planned in made.jobs] == [(100, 1), (100, 0), (64, 1), (64, 0)]


def test_the_facts_of_a_job_are_those_of_its_net_and_data():
    (planned,) = plan("seed=0").jobs
    facts = planned.job.facts
    assert (facts["params"], facts["image"]) == (61_706, [1, 32, 32])  # LeNet-5 on images of one channel
    assert facts["n"] == {"train": 100, "val": 20, "test": 20}
    assert facts["steps"] == 2 * 4  # epochs of 100 images in batches of 32
    assert (facts["epochs"], facts["batch_size"], facts["devices"], facts["threads"]) == (2, 32, 1, 1)


def test_max_steps_cuts_the_steps():
    assert plan("seed=0", "trainer.max_steps=3").jobs[0].job.facts["steps"] == 3


def test_a_net_that_cannot_be_built_is_an_error_that_names_its_job_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"\(job kernel_size99_seed1\)$") as raised:
        plan("model.kernel_size=5,99", "seed=1,2")
    assert "\n" not in str(raised.value)
    assert tree(tmp_path) == {}


def test_the_configs_on_disk_are_the_planned_ones():
    made = freeze_to_disk(plan(SEEDS), "typed")
    for planned in made.jobs:
        config = Config.load(planned.job.directory.config)
        assert config.identity() == planned.job.identity
        assert (config.name, config.data.image_size, config.precision) == (made.request.name, 32, "32")


def test_sweep_json_holds_the_request():
    made = freeze_to_disk(plan(SEEDS, "model=lenet5,simplecnn"), "what was typed")
    record = made.sweep.read()
    assert record.command == "what was typed"
    assert record.keys == ["model", "seed"]
    assert record.fixed["epochs"] == 2
    assert [job.setting for job in record.jobs] == made.request.settings


# ---- a part of a sweep -----------------------------------------------------------------------------------------------

TWICE = ("seed=0,1,2", "model=lenet5,simplecnn")


def test_two_parts_list_the_same_jobs_and_each_job_is_due_in_one():
    whole, *parts = plan(*TWICE), plan(*TWICE, "sweep.part=1/2"), plan(*TWICE, "sweep.part=2/2")
    for part in parts:
        assert [each.job for each in part.jobs] == [each.job for each in whole.jobs]
        assert part.request.fixed == whole.request.fixed
        assert (part.request.name, part.record.keys, part.due) == (whole.request.name, whole.record.keys, part.own)
    due = [[each.job.name for each in part.due] for part in parts]
    assert sorted(due[0] + due[1]) == sorted(each.job.name for each in whole.jobs)
    assert [len(names) for names in due] == [3, 3]


def test_a_part_does_not_depend_on_what_is_done():
    first = plan(*TWICE, "sweep.part=1/2")
    freeze_to_disk(first, "typed")
    write_run(first.due[0], "done")
    again = plan(*TWICE, "sweep.part=1/2")
    assert [each.job for each in again.own] == [each.job for each in first.own]
    assert [each.job for each in again.due] == [each.job for each in first.due[1:]]


def test_only_the_jobs_of_a_part_get_a_directory_and_sweep_json_lists_all():
    made = freeze_to_disk(plan(*TWICE, "sweep.part=2/2"), "typed")
    record = made.sweep.read()
    assert (record.part, len(record.jobs)) == ("2/2", 6)
    assert {path.name for path in made.sweep.path.iterdir() if path.is_dir()} == {each.job.name for each in made.due}


def test_another_part_or_the_whole_sweep_may_be_typed_on_the_same_folder():
    first = freeze_to_disk(plan(*TWICE, "sweep.part=1/2"), "typed")
    for each in first.due:
        write_run(each, "done")
    assert not {each.job.name for each in plan(*TWICE, "sweep.part=2/2").due} & {each.job.name for each in first.due}
    whole = plan(*TWICE)
    assert (len(whole.due), whole.record.part) == (3, None)


def test_failed_and_stale_jobs_of_other_parts_are_neither_named_nor_refused():
    whole = freeze_to_disk(plan(*TWICE), "typed")
    for each in plan(*TWICE, "sweep.part=2/2").due:
        write_run(each, "failed")
    for each in [each for each in whole.jobs if each.job.status().state == "pending"]:
        write_run(each, "done", code="another")
    first, second = (plan(*TWICE, f"sweep.part={part}", "sweep.retry=failed") for part in ("1/2", "2/2"))
    assert (len(first.due), len(second.due)) == (0, 3)
    assert not any("failed" in note for note in first.notes)
    assert plan(*TWICE, "sweep.part=2/2", "sweep.stale=refuse").notes


def test_a_live_folder_names_another_one_for_the_part():
    made = plan(*TWICE, "sweep.part=2/2")
    with made.sweep.lock(), pytest.raises(ConfigError) as raised:
        run_sweep(made, "typed", Console(quiet=True))
    advice = "; type another runs_dir=... for sweep.part=2/2, and join both folders with merge"
    assert f"this sweep is live (pid {os.getpid()} on " in str(raised.value)
    assert str(raised.value).endswith(advice)


def test_the_slots_are_those_of_the_part():
    assert plan("seed=0,1", "sweep.part=1/2", "sweep.slots=auto").slots.count == 1


# ---- the same command again ------------------------------------------------------------------------------------------

STATES = {"pending": True, "interrupted": True, "running": True, "failed": False, "diverged": False, "done": False}


@pytest.mark.parametrize("state", STATES)
def test_unfinished_jobs_run_again_and_finished_or_failed_ones_do_not(one, state):
    write_run(one, state)
    assert plan_again().due == STATES[state]


def test_a_running_job_without_a_living_process_counts_as_interrupted(one):
    write_run(one, "running")
    assert plan_again().status.state == "interrupted"


def test_a_job_that_another_process_runs_is_due_and_running(one):
    write_run(one, "running", owner=this_process().model_dump())
    planned = plan_again()
    assert (planned.due, planned.status.state) == (True, "running")


def test_a_job_with_status_done_and_no_result_runs_again(one):
    write_run(one, "done").result.unlink()
    assert plan_again().due


@pytest.mark.parametrize(
    ("state", "retry", "due"),
    [
        ("failed", "failed", True),
        ("failed", "diverged", False),
        ("failed", "all", True),
        ("diverged", "diverged", True),
        ("diverged", "failed", False),
        ("diverged", "all", True),
        ("done", "all", False),
    ],
)
def test_sweep_retry_runs_failed_jobs_again(one, state, retry, due):
    write_run(one, state)
    assert plan_again(f"sweep.retry={retry}").due == due


@pytest.mark.parametrize("state", ["failed", "diverged"])
def test_a_note_names_failed_jobs_and_the_key_that_runs_them_again(one, state):
    write_run(one, state)
    notes = plan("seed=0").notes
    assert f"1 {state} before; sweep.retry={state} runs them again: {one.job.name}" in notes


@pytest.mark.parametrize("content", ["", "[]", '{"metrics": 1}'])
def test_a_job_with_an_unreadable_result_runs_again(one, content):
    write_run(one, "done").result.write_text(content)
    planned = plan_again()
    assert planned.due
    assert planned.status.reason == "its result.json cannot be read"


def test_a_resumed_job_keeps_its_number_of_threads(one):
    write_run(one, "interrupted")
    assert plan_again("threads=2").config.threads == 1


def test_the_same_command_again_plans_the_same_jobs():
    first = freeze_to_disk(plan(SEEDS), "typed")
    assert [planned.job for planned in plan(SEEDS).jobs] == [planned.job for planned in first.jobs]


def test_more_seeds_add_jobs_and_keep_the_finished_ones():
    for planned in freeze_to_disk(plan("seed=0,1"), "typed").jobs:
        write_run(planned, "done")
    made = plan("seed=range(4)")
    assert [(planned.job.setting["seed"], planned.due) for planned in made.jobs] == [
        (0, False),
        (1, False),
        (2, True),
        (3, True),
    ]


def test_jobs_that_are_not_requested_now_stay_in_the_sweep():
    first = freeze_to_disk(plan(SEEDS), "typed")
    second = plan("seed=1,0")
    assert [job.setting for job in second.others] == [{"seed": 2}]
    assert "1 other jobs of this sweep are not requested now" in second.notes
    freeze_to_disk(second, "typed")
    assert {job.name for job in first.sweep.jobs()} == {planned.job.name for planned in first.jobs}


def test_launching_a_finished_sweep_changes_no_file(tmp_path):
    for planned in freeze_to_disk(plan(SEEDS), "typed").jobs:
        write_run(planned, "done")
    before = tree(tmp_path)
    made = freeze_to_disk(plan(SEEDS), "typed")
    assert made.due == []
    assert tree(tmp_path) == before


# ---- another version of the code -------------------------------------------------------------------------------------


@pytest.fixture
def stale(one):
    """The job of `one`, finished by another version of the code."""
    write_run(one, "done", code="0123456789ab")
    return one


def test_a_finished_run_of_other_code_is_kept_and_named_in_a_note(stale):
    made = plan("seed=0")
    assert made.due == []
    assert made.notes == (
        f"1 finished runs were made by another version of the code, and are kept; sweep.stale=rerun runs them again: {stale.job.name}",
    )


def test_a_finished_run_without_a_code_version_counts_as_other_code(one):
    write_run(one, "done", code=None)
    assert plan_again().stale == "unknown"


def test_a_finished_run_of_this_code_is_not_stale(one):
    write_run(one, "done", code=code_version())
    assert plan_again("sweep.stale=refuse").stale is None


def test_rerun_makes_a_new_directory_and_keeps_the_first_result(stale):
    before = stale.job.directory.result.read_bytes()
    made = freeze_to_disk(plan("seed=0", "sweep.stale=rerun"), "typed")
    (planned,) = made.due
    assert planned.job.name == f"{stale.job.name}-2"
    assert Config.load(planned.job.directory.config).identity() == stale.job.identity
    assert stale.job.directory.result.read_bytes() == before
    assert [job.name for job in made.sweep.jobs()] == [planned.job.name]


def test_after_a_rerun_the_job_is_the_second_run(stale):
    (second,) = freeze_to_disk(plan("seed=0", "sweep.stale=rerun"), "typed").jobs
    write_run(second, "done")
    planned = plan_again()
    assert (planned.job.name, planned.due, planned.stale) == (second.job.name, False, None)


def test_a_third_run_has_the_number_3(stale):
    (second,) = freeze_to_disk(plan("seed=0", "sweep.stale=rerun"), "typed").jobs
    write_run(second, "done", code="cba987654321")
    (third,) = freeze_to_disk(plan("seed=0", "sweep.stale=rerun"), "typed").jobs
    assert third.job.name == f"{stale.job.name}-3"


def test_refuse_makes_results_of_other_code_an_error(stale):
    with pytest.raises(ConfigError) as raised:
        plan("seed=0", "sweep.stale=refuse")
    assert str(raised.value) == (
        f"1 finished runs were made by another version of the code ({stale.job.name}); type sweep.stale=rerun or sweep.stale=keep"
    )


# ---- runs that no sweep.json lists -----------------------------------------------------------------------------------


def single(*overrides):
    """The frozen config of the run that one would type without -m."""
    return prepare(compose([*SMALL, *overrides])).config


def test_a_job_has_the_identity_of_the_single_run_with_the_same_overrides():
    for planned in plan("model=lenet5,simplecnn", "optimizer.lr=0.1,0.2", "seed=3").jobs:
        typed = [f"{key}={value}" for key, value in planned.job.setting.items()]
        assert planned.job.identity == single("seed=3", *typed).identity()


def test_a_finished_single_run_in_the_sweeps_folder_counts_as_its_job():
    config = single("name=mine", "seed=1")
    path = Path("runs") / "mine" / f"seed1_{config.identity()[:8]}"
    write_run_in(path, config, "done")
    made = plan("name=mine", SEEDS)
    assert [planned.due for planned in made.jobs] == [True, False, True]
    assert made.jobs[1].job.directory.path == path


def test_a_finished_run_is_preferred_to_a_newer_unfinished_one():
    config = single("name=mine", "seed=1")
    path = Path("runs") / "mine" / f"seed1_{config.identity()[:8]}"
    write_run_in(path, config, "done")
    write_run_in(path.with_name(f"{path.name}-2"), config, "interrupted")
    (planned,) = plan("name=mine", "seed=1").jobs
    assert planned.job.directory.path == path


def test_a_directory_of_the_same_hash_and_another_config_is_not_taken():
    config = single("name=mine", "seed=1")
    path = Path("runs") / "mine" / f"seed1_{config.identity()[:8]}"
    write_run_in(path, config.model_copy(update={"epochs": 77}), "done")
    (planned,) = plan("name=mine", "seed=1").jobs
    assert planned.due
    assert planned.job.directory.path != path


def test_a_directory_whose_config_cannot_be_read_is_not_taken():
    config = single("name=mine", "seed=1")
    path = Path("runs") / "mine" / f"seed1_{config.identity()[:8]}"
    write_run_in(path, config, "done").config.write_text("{")
    (planned,) = plan("name=mine", "seed=1").jobs
    assert planned.due
    assert planned.job.directory.path != path


# ---- identity --------------------------------------------------------------------------------------------------------


def test_swept_devices_make_separate_jobs():
    made = plan("trainer.devices=1,2", "seed=0,1")
    assert len({planned.job.identity for planned in made.jobs}) == 4
    assert len({planned.job.directory.path for planned in made.jobs}) == 4
    assert {planned.job.facts["devices"] for planned in made.jobs} == {1, 2}


def test_finished_jobs_of_swept_devices_are_found_again():
    for planned in freeze_to_disk(plan("trainer.devices=1,2", "seed=0,1"), "typed").jobs:
        write_run(planned, "done")
    assert plan("trainer.devices=1,2", "seed=0,1").due == []


def test_swept_threads_belong_to_the_identity():
    made = plan("threads=1,2")
    assert len({planned.job.identity for planned in made.jobs}) == 2
    assert {planned.config.threads for planned in made.jobs} == {1, 2}


def test_jobs_with_equal_configs_run_once():
    made = plan("precision=auto,32", "seed=0,1")
    assert len(made.jobs) == 2
    assert "2 of 4 jobs have the same config as another one, and are run once" in made.notes


# ---- another sweep of the same name ----------------------------------------------------------------------------------


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


def test_the_invented_result_of_these_tests_is_a_valid_result(one):
    write_run(one, "done")
    assert one.job.result().model_dump(by_alias=True, exclude_unset=True) == result_values()


@pytest.mark.parametrize("content", ["", "{"])
def test_an_unreadable_config_of_an_unfinished_job_is_written_again(one, content):
    write_run(one, "interrupted").config.write_text(content)
    made = freeze_to_disk(plan("seed=0"), "typed")
    assert made.due == made.jobs
    assert Config.load(one.job.directory.config).identity() == one.job.identity
