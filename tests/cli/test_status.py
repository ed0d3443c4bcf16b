"""`python -m cnnbench status`: of sweeps and runs that are made by hand, dead or alive."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cnnbench.__main__ import main
from cnnbench.runs.liveness import this_process
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.sweep_dir import Job, SweepDir

GONE = {"pid_started": 0.0}
RESULT = {"metrics": {"test/acc": 0.5, "best/val/acc": 0.6}, "time": {"fit_s": 30.0}}
STATUS = """
import sys
from cnnbench.__main__ import main
code = main(["status", *sys.argv[1:]])
assert not {"torch", "pytorch_lightning", "hydra", "matplotlib"} & sys.modules.keys(), "it imported what takes long"
sys.exit(code)
"""


def run_in(path, state, result=None, **more):
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("seed: 0\n")
    (path / "status.json").write_text(json.dumps({**this_process(), "reason": None, **more, "state": state}))
    if result:
        (path / "result.json").write_text(json.dumps(result))
    return RunDir(path)


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Four jobs: one done, one failed, one whose process is gone, one that has not begun."""
    monkeypatch.chdir(tmp_path)
    sweep = SweepDir(tmp_path / "runs" / "mine")
    jobs = [Job(RunDir(sweep.path / f"a_seed{seed}_0123456{seed}"), str(seed), {"seed": seed}) for seed in range(4)]
    run_in(jobs[0].directory.path, "done", RESULT)
    run_in(jobs[1].directory.path, "failed", reason="[bad] luck")
    run_in(jobs[2].directory.path, "running", **GONE)
    record = {
        "name": "mine",
        "question": "does it?",
        "keys": ["seed"],
        "fixed": {},
        "slots": 2,
        "command": "python -m cnnbench -m seed=0,1,2,3",
    }
    sweep.write(record, jobs)
    return sweep


def status(capsys, *arguments):
    assert main(["status", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


# ---- sweeps ------------------------------------------------------------------------------------------------------------------


def test_a_dead_sweep_is_counted_and_says_how_it_goes_on(sweep, capsys):
    lines = status(capsys, "runs/mine")
    assert lines[0] == "does it?"
    assert lines[1] == "runs/mine  1 done, 1 pending, 1 interrupted, 1 failed of 4"
    assert lines[-2] == "nobody runs it. To go on, type the same again: python -m cnnbench -m seed=0,1,2,3"
    assert lines[-1] == "to run what failed again, too: python -m cnnbench -m seed=0,1,2,3 sweep.retry=failed"


def test_a_failure_is_told_with_its_reason(sweep, capsys):
    assert "failed: a_seed1_01234561: [bad] luck" in status(capsys, "runs/mine")


def test_a_dead_sweep_has_no_time_left(sweep, capsys):
    assert not any("left" in line for line in status(capsys, "runs/mine"))


def test_a_living_sweep_says_who_runs_it_and_how_long_it_takes(sweep, capsys):
    with sweep.held():
        lines = status(capsys, "runs/mine")
    who = this_process()
    # two jobs of 30 s in two slots
    assert lines[1].endswith(f"of 4   30.0 s left   (pid {who['pid']} on {who['host']})")
    assert not any("nobody" in line for line in lines)


def test_a_running_job_is_shown_with_its_progress(sweep, capsys):
    path = sweep.path / "a_seed2_01234562" / "status.json"
    path.write_text(
        json.dumps(
            {
                **this_process(),
                "state": "running",
                "epoch": 2,
                "epochs": 5,
                "loss": 0.25,
                "val_acc": 0.75,
                "left_s": 9.0,
            }
        )
    )
    lines = status(capsys, "runs/mine")
    (row,) = [line for line in lines if line.startswith("a_seed2")]
    assert row.split() == ["a_seed2_01234562", "2/5", "0.2500", "0.7500", "9.0", "s"]


def test_a_sweep_that_is_done_says_no_more(sweep, capsys):
    for number in (1, 2, 3):
        path = sweep.path / f"a_seed{number}_0123456{number}"
        path.mkdir(exist_ok=True)
        (path / "result.json").write_text(json.dumps(RESULT))
    assert status(capsys, "runs/mine") == ["does it?", "runs/mine  4 done of 4"]


def test_a_sweep_that_ended_with_failures_says_how_they_are_run_again(sweep, capsys):
    for number in (2, 3):
        path = sweep.path / f"a_seed{number}_0123456{number}"
        path.mkdir(exist_ok=True)
        (path / "result.json").write_text(json.dumps(RESULT))
    told = "to run what failed again, too: python -m cnnbench -m seed=0,1,2,3 sweep.retry="
    assert status(capsys, "runs/mine")[-1] == f"{told}failed"
    (sweep.path / "a_seed3_01234563" / "result.json").unlink()
    status_of = {**this_process(), "state": "diverged", "reason": "nan"}
    (sweep.path / "a_seed3_01234563" / "status.json").write_text(json.dumps(status_of))
    assert status(capsys, "runs/mine")[-1] == f"{told}all"


def test_a_job_whose_directory_was_deleted_is_pending_again(sweep, capsys):
    for file in (sweep.path / "a_seed0_01234560").iterdir():
        file.unlink()
    (sweep.path / "a_seed0_01234560").rmdir()
    assert "2 pending" in status(capsys, "runs/mine")[1]


def test_watching_a_dead_sweep_ends(sweep, capsys):
    assert any("1 done, 1 pending" in line for line in status(capsys, "runs/mine", "--watch"))


# ---- runs ----------------------------------------------------------------------------------------------------------------------


def test_a_run_that_is_done_is_done(sweep, capsys):
    assert status(capsys, "runs/mine/a_seed0_01234560") == ["runs/mine/a_seed0_01234560  done"]


def test_a_run_that_failed_says_why(sweep, capsys):
    assert status(capsys, "runs/mine/a_seed1_01234561") == ["runs/mine/a_seed1_01234561  failed", "[bad] luck"]


def test_a_run_whose_process_is_gone_says_how_it_goes_on(sweep, capsys):
    path = "runs/mine/a_seed2_01234562"
    assert status(capsys, path) == [f"{path}  interrupted", f"to go on: python -m cnnbench resume={path}"]


def test_a_run_that_is_on_says_how_far_it_is(tmp_path, capsys):
    run_in(tmp_path / "r", "running", epoch=2, epochs=5, loss=0.25, val_acc=0.75, left_s=9.0)
    who = this_process()
    assert status(capsys, tmp_path / "r") == [
        f"{tmp_path / 'r'}  running",
        f"epoch 2/5  loss 0.2500  val acc 0.7500  9.0 s left  (pid {who['pid']} on {who['host']})",
    ]


def test_a_run_that_has_told_nothing_yet_begins(tmp_path, capsys):
    run_in(tmp_path / "r", "running")
    assert status(capsys, tmp_path / "r")[1].startswith("epoch begins")


# ---- what it needs, and mistakes -----------------------------------------------------------------------------------------------


def test_status_imports_neither_torch_nor_hydra(sweep):
    done = subprocess.run([sys.executable, "-c", STATUS, "runs/mine"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("runs", "runs: not a sweep, it holds no sweep.json; did you mean runs/mine?"),
        (
            "runs/none",
            "runs/none: not a sweep, it holds no sweep.json; a sweep is made by python -m cnnbench -m key=a,b ...",
        ),
    ],
)
def test_a_wrong_folder_is_told_in_one_line(sweep, capsys, typed, told):
    assert main(["status", typed]) == 2
    assert capsys.readouterr().err == f"cnnbench: {told}\n"


def test_a_broken_sweep_json_is_told_in_one_line(sweep, capsys):
    sweep.record.write_text("{")
    assert main(["status", "runs/mine"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("cnnbench: runs/mine/sweep.json: cannot be read (")
    assert told.count("\n") == 1


def test_a_folder_must_be_named(capsys):
    assert main(["status"]) == 2
    assert "python -m cnnbench status --help" in capsys.readouterr().err
