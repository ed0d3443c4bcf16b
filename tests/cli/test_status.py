"""`cnnbench status`: running and ended sweeps and runs, whose files are written by hand."""

from __future__ import annotations

import json

import pytest

from cnnbench.__main__ import main
from cnnbench.runs.liveness import this_process
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.schema import SweepRecord
from cnnbench.runs.sweep_dir import Job, SweepDir
from owners import DEAD, ME, OTHER_HOST, make_older, read_only, record

RESULT = {"metrics": {"test/acc": 0.5, "best/val/acc": 0.6}, "time": {"fit_s": 30.0}}
COMMAND = "cnnbench -m seed=0,1,2,3"
PROGRESS = {"epoch": 2, "epochs": 5, "loss": 0.25, "val_acc": 0.75, "left_s": 9.0}


def write_run(path, state, result=None, **more):
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text("seed: 0\n")
    values = {**this_process().model_dump(), "reason": None, **more, "state": state}
    (path / "status.json").write_text(json.dumps(values))
    if result:
        (path / "result.json").write_text(json.dumps(result))


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Four jobs: one done, one failed, one whose process is dead, one that has not started."""
    monkeypatch.chdir(tmp_path)
    sweep = SweepDir(tmp_path / "runs" / "mine")
    jobs = [Job(RunDir(sweep.path / f"a_seed{seed}_0123456{seed}"), str(seed), {"seed": seed}) for seed in range(4)]
    write_run(jobs[0].directory.path, "done", RESULT)
    write_run(jobs[1].directory.path, "failed", reason="[bad] luck")
    write_run(jobs[2].directory.path, "running", **DEAD)
    record = SweepRecord(
        schema=1, name="mine", question="does it?", keys=["seed"], fixed={}, slots=2, command=COMMAND, jobs=[]
    )
    sweep.write(record, jobs)
    return sweep


def status(capsys, *arguments):
    assert main(["status", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


def finish(sweep, *numbers):
    for number in numbers:
        write_run(sweep.path / f"a_seed{number}_0123456{number}", "done", RESULT)


# ---- sweeps ------------------------------------------------------------------------------------------------------------------


def test_a_sweep_without_launcher_is_counted_and_says_how_to_continue(sweep, capsys):
    lines = status(capsys, "runs/mine")
    assert lines[0] == "does it?"
    assert lines[1] == "runs/mine  1 done, 1 pending, 1 interrupted, 1 failed of 4"
    assert "failed: a_seed1_01234561: [bad] luck" in lines
    assert lines[-2] == f"no process runs it. To continue, type the same command again: {COMMAND}"
    assert lines[-1] == f"to run the failed jobs again as well: {COMMAND} sweep.retry=failed"
    assert not any("left" in line for line in lines)


def test_a_sweep_with_a_launcher_names_it_and_the_time_left(sweep, capsys):
    with sweep.lock():
        lines = status(capsys, "runs/mine")
    # two jobs of 30 s in two slots
    assert lines[1].endswith(f"of 4   30.0 s left   ({ME})")
    assert not any("no process" in line for line in lines)


def test_a_running_job_is_shown_with_its_progress(sweep, capsys):
    write_run(sweep.path / "a_seed2_01234562", "running", **PROGRESS)
    (row,) = [line for line in status(capsys, "runs/mine") if line.startswith("a_seed2")]
    assert row.split() == ["a_seed2_01234562", "2/5", "0.2500", "0.7500", "9.0", "s"]


def test_a_sweep_whose_launcher_holds_the_lock_is_running(sweep, capsys):
    with sweep.lock():
        sweep.owner.write_text(json.dumps(record(**DEAD)))
        lines = status(capsys, "runs/mine")
    assert lines[1].endswith("(another process, which holds its lock)")
    assert not any("no process" in line for line in lines)


def test_a_sweep_of_another_host_in_a_read_only_folder_is_shown_as_not_verified(sweep, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    sweep.owner.write_text(json.dumps(record(**OTHER_HOST, pid=12)))
    make_older(sweep.owner, 9.04)
    assert "(pid 12 on another, heartbeat 9." in status(capsys, "runs/mine")[1]
    make_older(sweep.owner, 600.1)
    assert (
        "no process runs it (pid 12 on another: heartbeat 10 min ago by this machine's clock, not verified). To continue"
    ) in " ".join(status(capsys, "runs/mine"))


def test_the_jobs_of_other_parts_are_counted_apart(sweep, capsys):
    sweep.write(sweep.read().model_copy(update={"part": "1/2"}), sweep.jobs())
    lines = status(capsys, "runs/mine")  # seeds 0 and 3 are in this part
    assert lines[1] == "runs/mine, part 1/2  1 done, 1 pending of 2"
    merge = "cnnbench merge runs/mine FOLDER adds those of another machine's folder"
    assert lines[2] == f"other parts: 0 of 2 jobs are done here; {merge}"
    assert lines[3] == f"no process runs it. To continue, type the same command again: {COMMAND}"
    finish(sweep, 3)
    assert len(status(capsys, "runs/mine")) == 3


def test_a_finished_sweep_has_nothing_to_type(sweep, capsys):
    finish(sweep, 1, 2, 3)
    assert status(capsys, "runs/mine") == ["does it?", "runs/mine  4 done of 4"]


@pytest.mark.parametrize(("state", "retry"), [("failed", "failed"), ("diverged", "all")])
def test_a_sweep_with_failures_says_how_they_are_run_again(sweep, capsys, state, retry):
    finish(sweep, 2)
    write_run(sweep.path / "a_seed3_01234563", state, reason="nan")
    lines = status(capsys, "runs/mine")
    assert lines[-1] == f"to run the failed jobs again as well: {COMMAND} sweep.retry={retry}"
    assert not any("no process" in line for line in lines)


def test_a_job_whose_directory_was_deleted_is_pending(sweep, capsys):
    for file in (sweep.path / "a_seed0_01234560").iterdir():
        file.unlink()
    (sweep.path / "a_seed0_01234560").rmdir()
    assert "2 pending" in status(capsys, "runs/mine")[1]


def test_watching_a_sweep_without_launcher_ends(sweep, capsys):
    assert any("1 done, 1 pending" in line for line in status(capsys, "runs/mine", "--watch"))


# ---- runs --------------------------------------------------------------------------------------------------------------------


def test_a_run_is_shown_with_its_state_reason_and_the_command_that_resumes_it(sweep, capsys):
    path = "runs/mine/a_seed{0}_0123456{0}"
    assert status(capsys, path.format(0)) == [f"{path.format(0)}  done"]
    assert status(capsys, path.format(1)) == [f"{path.format(1)}  failed", "[bad] luck"]
    resume = f"to resume: cnnbench resume={path.format(2)}"
    assert status(capsys, path.format(2)) == [f"{path.format(2)}  interrupted", resume]


def test_a_running_run_is_shown_with_its_progress_and_owner(tmp_path, capsys):
    write_run(tmp_path / "r", "running", **PROGRESS)
    assert status(capsys, tmp_path / "r") == [
        f"{tmp_path / 'r'}  running",
        f"epoch 2/5  loss 0.2500  val acc 0.7500  9.0 s left  ({ME})",
    ]


def test_a_run_of_another_host_in_a_read_only_folder_is_shown_as_not_verified(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    write_run(tmp_path / "r", "running", **OTHER_HOST, **PROGRESS)
    assert status(capsys, tmp_path / "r")[1].endswith(" s ago by this machine's clock, not verified)")
    make_older(tmp_path / "r" / "status.json", 600.1)
    head, doubt, resume = status(capsys, tmp_path / "r")
    assert head.endswith("r  interrupted")
    assert doubt.endswith(" on another: heartbeat 10 min ago by this machine's clock, not verified")
    assert resume.startswith("to resume: ")


def test_a_run_without_progress_is_starting(tmp_path, capsys):
    write_run(tmp_path / "r", "running")
    assert status(capsys, tmp_path / "r")[1].startswith("epoch starting")


# ---- mistakes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("runs", "runs: not a sweep, it holds no sweep.json; did you mean runs/mine?"),
        (
            "runs/none",
            "runs/none: not a sweep, it holds no sweep.json; a sweep is made by cnnbench -m key=a,b ...",
        ),
    ],
)
def test_a_wrong_folder_is_refused_in_one_line(sweep, capsys, typed, message):
    assert main(["status", typed]) == 2
    assert capsys.readouterr().err == f"cnnbench: {message}\n"


def test_a_broken_sweep_json_is_refused_in_one_line(sweep, capsys):
    sweep.record.write_text("{")
    assert main(["status", "runs/mine"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("cnnbench: runs/mine/sweep.json: cannot be read (")
    assert error.count("\n") == 1


def test_a_folder_must_be_named(capsys):
    assert main(["status"]) == 2
    assert "cnnbench status --help" in capsys.readouterr().err
