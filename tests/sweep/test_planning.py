"""Plans of sweeps, with run directories as real runs leave them: which jobs run, and which launches are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.runs.environment import code_version
from cnnbench.runs.liveness import this_process
from cnnbench.sweep.launcher import freeze_to_disk
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


# ---- files of a job ---------------------------------------------------------------------------------------------------


def test_the_invented_result_of_these_tests_is_a_valid_result(one):
    write_run(one, "done")
    assert one.job.result().model_dump(by_alias=True, exclude_unset=True) == result_values()


@pytest.mark.parametrize("content", ["", "{"])
def test_an_unreadable_config_of_an_unfinished_job_is_written_again(one, content):
    write_run(one, "interrupted").config.write_text(content)
    made = freeze_to_disk(plan("seed=0"), "typed")
    assert made.due == made.jobs
    assert Config.load(one.job.directory.config).identity() == one.job.identity
