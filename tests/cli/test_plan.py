"""`cnnbench plan`: its output, and that it writes nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cnnbench.__main__ import main
from cnnbench.cli.plan import factor_confounds
from cnnbench.cli.plan import main as plan_main
from cnnbench.data.loader import Images
from cnnbench.errors import ConfigError
from cnnbench.report.analysis.confounds import join_values, value_text
from cnnbench.sweep.benchmark_steps import random_images
from cnnbench.sweep.launcher import freeze_to_disk
from cnnbench.sweep.plan import make_plan
from cnnbench.sweep.time_estimates import Estimate
from picturefolders import folders
from sweeping import SMALL, plan, tree, write_run

ROW_6 = ["sweep.cells=[{model:plain18,optimizer.lr:0.005},{model:resnet18,optimizer.lr:0.01}]", "seed=0,1"]


@pytest.fixture
def printed_plan(in_this_process, capsys):
    """Prints a plan; returns its lines."""

    def printed_plan(*arguments):
        plan_main([*SMALL, *arguments])
        return capsys.readouterr().out.splitlines()

    return printed_plan


def line_with(lines, *words):
    (found,) = [line for line in lines if all(word in line for word in words)]
    return found


# ---- the command ----------------------------------------------------------------------------------------------


def test_a_plan_writes_nothing(printed_plan, tmp_path):
    (tmp_path / "runs" / "other").mkdir(parents=True)
    (tmp_path / "runs" / "other" / "notes.txt").write_text("mine")
    before = tree(tmp_path)
    printed_plan("-m", "model=lenet5,simplecnn", "seed=0,1")
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_plan_prints_the_same_in_its_own_process_and_in_this_one(printed_plan, tmp_path):
    def without_hashes(lines):
        return [line.split("_")[:2] if "_seed" in line else line for line in lines if "unknown" not in line]

    arguments = ["-m", "model=lenet5,simplecnn", "seed=0,1"]
    command = [sys.executable, "-m", "cnnbench", "plan", *SMALL, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(tmp_path) == {}
    assert without_hashes(done.stdout.splitlines()) == without_hashes(printed_plan(*arguments))


def files_below(*folders):
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")}


@pytest.fixture
def no_network(monkeypatch):
    """A plan that asks a mirror fails; downloads go to an absent folder, whose path this returns."""

    def refuse(*_, **__):
        raise AssertionError("a plan downloads nothing")

    monkeypatch.setattr("cnnbench.data.download.fetch.download", refuse)
    monkeypatch.setenv("CNNBENCH_DATA", "absent")
    return Path("absent")


@pytest.mark.parametrize(
    ("data", "folder", "megabytes", "steps"),
    [
        ("mnist", "absent/MNIST/raw", "11.6", "8,440"),
        ("fashionmnist", "absent/FashionMNIST/raw", "30.9", "8,440"),
        ("cifar10", "absent", "170.5", "7,040"),
        ("cifar100", "absent", "169.0", "7,040"),
    ],
)
def test_absent_data_are_named_with_their_size_and_nothing_is_downloaded(
    data, folder, megabytes, steps, in_this_process, no_network, capsys, tmp_path
):
    plan_main([f"data={data}", "model=resnet20", "trainer=cpu", "threads=1", "seed=0,1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"data={data}: not in {folder}; a run downloads {megabytes} MB to there"
    assert line_with(lines, "seed0 ", "pending").split()[3] == steps
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "wrong", ["data.train_size=60001 data.val_size=10", "data.test_size=10001", "model.kernel_size=99"]
)
def test_a_mistake_is_found_although_the_data_are_absent(wrong, in_this_process, no_network):
    with pytest.raises(ConfigError, match=r"type at most|refused"):
        plan_main(["data=mnist", "seed=0,1", *wrong.split()])


def test_an_absent_folder_of_pictures_is_one_line(in_this_process, no_network):
    with pytest.raises(ConfigError, match=r"^data=imagefolder data.root=.*none: no such folder"):
        plan_main(["data=imagefolder", "data.root=none", "seed=0,1"])


@pytest.mark.parametrize("more", [[], ["data.image_size=8", "augment=[resized_crop]"]])
def test_planning_pictures_gives_the_run_that_would_be_trained_and_keeps_nothing(
    more, in_this_process, no_network, tmp_path, capsys
):
    top = folders(tmp_path / "pictures", {"train/cat": 12, "train/dog": 12, "test/cat": 3, "test/dog": 3}, 14, 11)
    typed = ["data=imagefolder", f"data.root={top}", "model=resnet20", "trainer=cpu", "threads=1", "seed=0", *more]
    before = files_below(tmp_path)
    planned = make_plan(typed, writes=False)
    plan_main(typed)
    assert files_below(tmp_path) == before
    assert [each.config for each in planned.jobs] == [each.config for each in make_plan(typed).jobs]
    assert (tmp_path / "absent" / "decoded").is_dir()  # a run decodes them


def test_a_set_that_is_there_is_planned_as_a_run_prepares_it(in_this_process, real_data, no_network, tmp_path):
    typed = ["data=mnist", f"data.root={real_data}", "data.train_size=100", "data.val_size=50", "threads=1", "seed=0"]
    planned = make_plan(typed, writes=False)
    assert (tree(tmp_path), planned.notes) == ({}, ())
    assert [each.config for each in planned.jobs] == [each.config for each in make_plan(typed).jobs]


def test_runs_made_before_the_data_were_removed_are_found(
    in_this_process, real_data, no_network, tmp_path, printed_plan
):
    root = tmp_path / "root"
    shutil.copytree(real_data / "MNIST", root / "MNIST")
    typed = ["data=mnist", f"data.root={root}", "data.train_size=100", "data.val_size=50", "threads=1", "name=mine"]
    freeze_to_disk(made := make_plan([*typed, "seed=0,1"]), "typed")
    for planned in made.jobs:
        write_run(planned, "done")
    shutil.rmtree(root)
    again = make_plan([*typed, "seed=0,1,2"], writes=False)
    assert [each.status.state for each in again.jobs] == ["done", "done", "pending"]
    assert again.notes[0].startswith(f"data=mnist: not in {root}/MNIST/raw; a run downloads")


def test_steps_on_absent_data_are_measured_on_random_images(in_this_process, no_network, capsys, tmp_path):
    plan_main(["--measure", "data=mnist", "trainer=cpu", "threads=1", "seed=0"])
    assert "(12 steps measured)" in capsys.readouterr().out
    assert tree(tmp_path) == {}


def test_random_images_have_the_size_and_the_labels_of_the_set():
    images = random_images(
        Images(torch.empty(60_000, 3, 32, 32, dtype=torch.uint8, device="meta"), torch.arange(60_000)), 128
    )
    assert (images.source.shape, images.labels.tolist()) == ((128, 3, 32, 32), list(range(128)))
    assert images.source.float().std() > 60


# ---- output ----------------------------------------------------------------------------------------------------------


def test_the_first_line_has_the_directory_the_jobs_and_the_slots(printed_plan):
    head = printed_plan("name=mine", "seed=0,1,2", "sweep.slots=2")[0]
    assert head.startswith("runs/mine: 3 jobs, 3 to run, 2 at a time, ")


def test_m_is_optional(printed_plan):
    assert printed_plan("-m", "seed=0,1") == printed_plan("seed=0,1")


def test_each_job_has_a_row_with_its_parameters_and_steps(printed_plan):
    lines = printed_plan("model=lenet5,simplecnn", "seed=3")
    assert line_with(lines, "lenet5 ", "pending").split()[1:] == ["pending", "61,706", "8", "?", "?"]
    assert sum("_seed3_" in line or "pending" in line for line in lines) == 2


def test_the_question_and_the_stated_cost_are_printed(printed_plan):
    lines = printed_plan("sweep.question='why so?'", "sweep.cost='an hour'", "seed=0,1")
    assert lines[1:3] == ["why so?", "cost, as the experiment states it: an hour"]


def test_notes_are_printed(printed_plan):
    assert "1 of 3 jobs were requested twice, and are run once" in printed_plan("seed=0,1,1")


def test_the_state_says_whether_a_job_runs_again(printed_plan):
    jobs = freeze_to_disk(plan("name=mine", "seed=range(5)"), "typed").jobs
    for planned, state in zip(jobs, ("done", "failed", "interrupted", "running"), strict=False):
        write_run(planned, state)
    lines = printed_plan("name=mine", "seed=range(5)")
    states = ["done", "failed, not run again", "interrupted", "interrupted", "pending"]
    for planned, state in zip(jobs, states, strict=True):
        assert line_with(lines, f"{planned.job.label} ").split("  ")[1].strip() == state
    assert lines[0].startswith("runs/mine: 5 jobs, 1 done already, 3 to run, 2 of them resumed, ")


def test_jobs_of_another_part_are_marked_and_not_counted_as_to_run(printed_plan):
    lines = printed_plan("name=mine", "seed=range(4)", "sweep.part=1/2")
    states = ["pending", "pending, another part", "pending, another part", "pending"]
    for seed, state in enumerate(states):
        assert line_with(lines, f"seed{seed} ").split("  ")[1].strip() == state
    assert lines[0].startswith("runs/mine: 4 jobs, 2 of them in part 1/2, 2 to run, ")


def test_a_rerun_job_is_marked(printed_plan):
    (planned,) = freeze_to_disk(plan("name=mine", "seed=0"), "typed").jobs
    write_run(planned, "done", code="other")
    assert "pending, run again" in line_with(
        printed_plan("name=mine", "seed=0", "sweep.stale=rerun"), f"{planned.job.label} ", "again"
    )


def test_a_finished_sweep_has_nothing_to_run_and_no_time(printed_plan):
    for planned in freeze_to_disk(plan("name=mine", "seed=0,1"), "typed").jobs:
        write_run(planned, "done")
    lines = printed_plan("name=mine", "seed=0,1")
    assert lines[0] == "runs/mine: 2 jobs, 2 done already, nothing to run"
    assert not any(line.startswith("time:") for line in lines)


def test_more_than_forty_jobs_are_printed_as_cells(printed_plan):
    lines = printed_plan("model=lenet5,simplecnn", "seed=range(21)")
    assert line_with(lines, "model", "jobs", "done").split()[:3] == ["model", "jobs", "done"]
    assert line_with(lines, "lenet5 ", "61,706").split()[:4] == ["lenet5", "21", "0", "61,706"]


@pytest.mark.slow
def test_jobs_prints_a_row_per_job_of_a_large_sweep(printed_plan):
    assert (
        sum("_seed" in line for line in printed_plan("--jobs", "seed=range(41)", "name=x", "init=torch,paddle")) == 82
    )


# ---- factors ---------------------------------------------------------------------------------------------------------


def test_two_nets_at_two_learning_rates_are_reported_as_confounded(printed_plan):
    lines = printed_plan(*ROW_6)
    at = lines.index("model: plain18, resnet18")
    assert "  also differs: learning rate 0.005 / 0.01" in lines[at:]
    assert any(line.startswith("  also differs: parameters ") for line in lines[at:])


def test_factor_confounds_finds_the_learning_rate(in_this_process):
    (of_model, of_lr) = factor_confounds(plan(*ROW_6))
    assert of_model.differing.keys() == {"lr", "params", "macs"}
    assert of_lr.differing.keys() >= {"params", "macs"}


def test_a_full_grid_has_no_confounded_learning_rate(printed_plan):
    assert not any("learning rate" in line for line in printed_plan("model=lenet5,simplecnn", "optimizer.lr=0.1,0.2"))


def test_optimizers_with_different_default_learning_rates_are_confounded(printed_plan):
    assert any(line.startswith("  also differs: learning rate ") for line in printed_plan("optimizer=adam,sgd"))


def test_batch_sizes_also_differ_in_steps(printed_plan):
    assert "  also differs: steps 8 / 14" in printed_plan("batch_size=32,16")


def test_zipped_keys_are_confounded(printed_plan):
    assert "  also differs: clip_grad null / 1.0" in printed_plan(
        "sweep.zip={init:[torch,paddle],clip_grad:[null,1.0]}"
    )


def test_nets_on_images_of_different_size_are_confounded(printed_plan):
    lines = printed_plan("model=lenet5,mnist_cnn")
    assert "  also differs: image 1×32×32 / 1×28×28" in lines


def test_the_baseline_is_marked(printed_plan):
    assert "init: torch, paddle (baseline)" in printed_plan("init=torch,paddle", "sweep.baseline={init:paddle}")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1000], "1,000"),
        ([0.1, 0.2], "0.1 or 0.2"),
        ([5, 1, 3, 2000], "1 to 2,000"),
        (["a", "b", "c", "d"], "a or b or c or others"),
        ([[3, 32, 32]], "3×32×32"),
        ([None], "null"),
        ([True], "true"),
    ],
)
def test_the_values_of_a_variant_are_joined_and_many_are_shortened(values, text):
    assert join_values(values) == text


def test_numbers_have_commas():
    assert value_text(61706) == "61,706"


# ---- time ------------------------------------------------------------------------------------------------------------


def test_without_finished_runs_the_time_is_unknown(printed_plan):
    assert printed_plan("seed=0,1")[-1] == (
        "time: unknown, no run of these nets on these data has finished here; --measure times a few steps of each"
    )


def finish_one():
    """A run of LeNet-5 that took 3 s and 700 MB, in another sweep."""
    (planned,) = freeze_to_disk(plan("name=before", "seed=0"), "typed").jobs
    status = write_run(planned, "done").path / "status.json"
    status.write_text(json.dumps({**json.loads(status.read_text()), "peak_mb": {"cpu": 700.0}}))


def test_the_time_is_estimated_from_finished_runs_and_slots(printed_plan):
    finish_one()
    lines = printed_plan("seed=1,2,3", "sweep.slots=2")
    assert "time: 8.0 s for 3 jobs, 2 at a time (as a finished run)" in lines
    assert lines[-1] == "memory: up to 1,400 MB for 2 at a time"
    assert line_with(lines, "seed2 ").split()[-4:] == ["4.0", "s", "700", "MB"]


def test_jobs_without_an_estimate_make_the_time_a_lower_bound(printed_plan):
    finish_one()
    lines = printed_plan("model=lenet5,simplecnn", "seed=1", "sweep.slots=1")
    assert "time: at least 4.0 s for 2 jobs, 1 at a time (as a finished run)" in lines
    assert any(line.startswith("  without 1 of them: no run of their kind has finished here") for line in lines)


def test_each_cell_is_measured_once(printed_plan, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "cnnbench.cli.plan.measure_each",
        lambda configs, progress: (
            asked.extend(configs) or [Estimate(10.0, 100.0, "12 steps measured") for _ in configs]
        ),
    )
    lines = printed_plan("--measure", "init=torch,paddle", "seed=0,1,2", "sweep.slots=1")
    assert [config.init for config in asked] == ["torch", "paddle"]
    assert "time: 1 min for 6 jobs, 1 at a time (12 steps measured)" in lines


def test_measuring_real_steps_writes_nothing(printed_plan, tmp_path):
    lines = printed_plan("--measure", "seed=0")
    assert "(12 steps measured)" in line_with(lines, "time:", "1 jobs")
    assert tree(tmp_path) == {}


# ---- error messages --------------------------------------------------------------------------------------------------


def test_an_error_is_one_line_and_exit_code_2(in_this_process, capsys):
    assert main(["plan", *SMALL, "seed=0,1", "optimizer.lr=0.1,fast"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "cnnbench: optimizer.lr=fast: expected a number above 0; for instance optimizer.lr=0.01 (job lr-fast_seed0)\n"
    )


def test_an_unknown_flag_is_an_error():
    with pytest.raises(ConfigError, match=r"--fast: no such flag; type cnnbench plan --help$"):
        plan_main(["seed=0,1", "--fast"])
