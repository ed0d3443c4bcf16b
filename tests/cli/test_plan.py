"""`python -m cnnbench plan`: what it shows, and that it leaves everything as it was."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cnnbench.__main__ import main
from cnnbench.cli.plan import factors
from cnnbench.cli.plan import main as plan_main
from cnnbench.errors import ConfigError
from cnnbench.report.analysis.confounds import number, several
from cnnbench.sweep.estimate import Estimate
from cnnbench.sweep.launcher import freeze_to_disk
from sweeping import SMALL, leave, plan, quickly, tree  # noqa: F401

ROW_6 = ["sweep.cells=[{model:plain18,optimizer.lr:0.005},{model:resnet18,optimizer.lr:0.01}]", "seed=0,1"]
PLANS = """
import sys
from cnnbench.__main__ import main
code = main(sys.argv[1:])
assert not {"torch", "pytorch_lightning"} & sys.modules.keys(), "torch was imported"
sys.exit(code)
"""


@pytest.fixture
def shown(quickly, capsys):
    """Shows a plan; gives its lines."""

    def shown(*arguments):
        plan_main([*SMALL, *arguments])
        return capsys.readouterr().out.splitlines()

    return shown


def line_with(lines, *words):
    (found,) = [line for line in lines if all(word in line for word in words)]
    return found


# ---- as it is typed ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """A plan in a process of its own, beside a sweep that is there: what it showed, and the folder before and after."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "runs" / "other").mkdir(parents=True)
    (folder / "runs" / "other" / "notes.txt").write_text("mine")
    before = tree(folder)
    arguments = ["plan", "-m", *SMALL, "model=lenet5,simplecnn", "seed=0,1"]
    done = subprocess.run(
        [sys.executable, "-c", PLANS, *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
    return done, before, tree(folder)


def test_a_plan_writes_nothing(typed):
    _, before, after = typed
    assert before == after


def test_a_plans_own_process_imports_no_torch(typed):
    done = typed[0]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_plan_of_processes_of_its_own_shows_the_same_as_one_of_this_process(typed, shown):
    def without_hashes(lines):
        return [line.split("_")[:2] if "_seed" in line else line for line in lines if "unknown" not in line]

    here = shown("-m", "model=lenet5,simplecnn", "seed=0,1")
    assert without_hashes(typed[0].stdout.splitlines()) == without_hashes(here)


# ---- what is shown -------------------------------------------------------------------------------------------------------------


def test_the_first_line_says_where_how_many_and_how(shown):
    head = shown("name=mine", "seed=0,1,2", "sweep.slots=2")[0]
    assert head.startswith("runs/mine: 3 jobs, 3 to run, 2 at a time, ")


def test_dash_m_may_be_left_out(shown):
    assert shown("-m", "seed=0,1") == shown("seed=0,1")


def test_each_job_has_a_row_with_its_net_and_its_steps(shown):
    lines = shown("model=lenet5,simplecnn", "seed=3")
    assert line_with(lines, "lenet5 ", "pending").split()[1:] == ["pending", "61,706", "8", "?", "?"]
    assert sum("_seed3_" in line or "pending" in line for line in lines) == 2


def test_the_question_and_what_its_author_says_of_the_cost_are_shown(shown):
    lines = shown("sweep.question='why so?'", "sweep.cost='an hour'", "seed=0,1")
    assert lines[1:3] == ["why so?", "its file says: an hour"]


def test_notes_are_shown(shown):
    assert "1 of 3 jobs were asked for twice, and are run once" in shown("seed=0,1,1")


def test_a_state_says_what_becomes_of_the_job(shown):
    jobs = freeze_to_disk(plan("name=mine", "seed=range(5)"), "typed").jobs
    for planned, state in zip(jobs, ("done", "failed", "interrupted", "running"), strict=False):
        leave(planned, state)
    lines = shown("name=mine", "seed=range(5)")
    states = ["done", "failed, stays", "interrupted", "interrupted", "pending"]
    for planned, state in zip(jobs, states, strict=True):
        assert line_with(lines, f"{planned.job.label} ").split("  ")[1].strip() == state
    assert lines[0].startswith("runs/mine: 5 jobs, 1 done already, 3 to run, 2 of them resumed, ")


def test_a_job_that_is_run_again_says_so(shown):
    (planned,) = freeze_to_disk(plan("name=mine", "seed=0"), "typed").jobs
    leave(planned, "done", code="other")
    assert "pending, again" in line_with(
        shown("name=mine", "seed=0", "sweep.stale=rerun"), f"{planned.job.label} ", "again"
    )


def test_a_sweep_that_is_done_has_nothing_to_run_and_no_time(shown):
    for planned in freeze_to_disk(plan("name=mine", "seed=0,1"), "typed").jobs:
        leave(planned, "done")
    lines = shown("name=mine", "seed=0,1")
    assert lines[0] == "runs/mine: 2 jobs, 2 done already, nothing to run"
    assert not any(line.startswith("time:") for line in lines)


def test_more_than_forty_jobs_are_shown_as_cells(shown):
    lines = shown("model=lenet5,simplecnn", "seed=range(21)")
    assert line_with(lines, "model", "jobs", "done").split()[:3] == ["model", "jobs", "done"]
    assert line_with(lines, "lenet5 ", "61,706").split()[:4] == ["lenet5", "21", "0", "61,706"]


@pytest.mark.slow
def test_all_of_many_jobs_are_shown_when_that_is_asked(shown):
    assert sum("_seed" in line for line in shown("--jobs", "seed=range(41)", "name=x", "init=torch,paddle")) == 82


# ---- factors -------------------------------------------------------------------------------------------------------------------


def test_two_arms_at_two_learning_rates_are_told_to_differ_in_them(shown):
    lines = shown(*ROW_6)
    at = lines.index("model: plain18, resnet18")
    assert "  besides, learning rate: 0.005 / 0.01" in lines[at:]
    assert any(line.startswith("  besides, parameters: ") for line in lines[at:])


def test_two_arms_at_two_learning_rates_are_named_in_the_plan_itself(quickly):
    (of_model, of_lr) = factors(plan(*ROW_6))
    assert of_model.differing.keys() == {"lr", "params", "macs"}
    assert of_lr.differing.keys() >= {"params", "macs"}


def test_a_grid_tells_no_learning_rate(shown):
    assert not any("learning rate" in line for line in shown("model=lenet5,simplecnn", "optimizer.lr=0.1,0.2"))


def test_optimizers_that_begin_at_rates_of_their_own_are_told(shown):
    assert any(line.startswith("  besides, learning rate: ") for line in shown("optimizer=adam,sgd"))


def test_batch_sizes_are_told_to_differ_in_steps(shown):
    assert "  besides, steps: 8 / 14" in shown("batch_size=32,16")


def test_values_in_pairs_are_told(shown):
    assert "  besides, clip_grad: null / 1.0" in shown("sweep.zip={init:[torch,paddle],clip_grad:[null,1.0]}")


def test_nets_on_images_of_other_sizes_are_told_so(shown):
    lines = shown("model=lenet5,mnist_cnn")
    assert "  besides, image: 1×32×32 / 1×28×28" in lines


def test_the_baseline_is_marked(shown):
    assert "init: torch, paddle (baseline)" in shown("init=torch,paddle", "sweep.baseline={init:paddle}")


@pytest.mark.parametrize(
    ("values", "told"),
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
def test_the_values_of_an_arm_are_told_in_few_words(values, told):
    assert several(values) == told


def test_numbers_have_commas():
    assert number(61706) == "61,706"


# ---- time ----------------------------------------------------------------------------------------------------------------------


def test_where_nothing_has_finished_the_time_is_unknown(shown):
    assert shown("seed=0,1")[-1] == (
        "time: unknown, as no run of these nets on these data has finished here; --measure times a few steps of each"
    )


def finish_one():
    """A run of LeNet-5 that took 3 s and 700 MB, in another sweep."""
    (planned,) = freeze_to_disk(plan("name=before", "seed=0"), "typed").jobs
    status = leave(planned, "done").path / "status.json"
    status.write_text(json.dumps({**json.loads(status.read_text()), "peak_mb": {"cpu": 700.0}}))


def test_the_time_is_that_of_finished_runs_in_the_slots_that_there_are(shown):
    finish_one()
    lines = shown("seed=1,2,3", "sweep.slots=2")
    assert "time: 8.0 s for 3 jobs, 2 at a time (as a finished run)" in lines
    assert lines[-1] == "memory: up to 1,400 MB for 2 at a time"
    assert line_with(lines, "seed2 ").split()[-4:] == ["4.0", "s", "700", "MB"]


def test_jobs_of_which_nothing_is_known_make_it_at_least(shown):
    finish_one()
    lines = shown("model=lenet5,simplecnn", "seed=1", "sweep.slots=1")
    assert "time: at least 4.0 s for 2 jobs, 1 at a time (as a finished run)" in lines
    assert any(
        line.startswith("  1 of them are not counted, as none of their kind has finished here") for line in lines
    )


def test_each_cell_is_measured_once(shown, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "cnnbench.cli.plan.measured",
        lambda configs: asked.extend(configs) or [Estimate(10.0, 100.0, "12 steps measured") for _ in configs],
    )
    lines = shown("--measure", "init=torch,paddle", "seed=0,1,2", "sweep.slots=1")
    assert [config.init for config in asked] == ["torch", "paddle"]
    assert "time: 1 min for 6 jobs, 1 at a time (12 steps measured)" in lines


def test_some_real_steps_are_measured_and_leave_nothing(shown, tmp_path):
    lines = shown("--measure", "seed=0")
    assert "(12 steps measured)" in line_with(lines, "time:", "1 jobs")
    assert tree(tmp_path) == {}


# ---- mistakes ------------------------------------------------------------------------------------------------------------------


def test_a_mistake_is_one_line_and_exit_code_2(quickly, capsys):
    assert main(["plan", *SMALL, "seed=0,1", "optimizer.lr=0.1,fast"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        "cnnbench: optimizer.lr=fast: expected a number above 0; for instance optimizer.lr=0.01 (job lr-fast_seed0)\n"
    )


def test_a_flag_that_there_is_not_is_told():
    with pytest.raises(ConfigError, match=r"--fast; type python -m cnnbench plan --help$"):
        plan_main(["seed=0,1", "--fast"])
