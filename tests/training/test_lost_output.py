"""Runs and sweeps whose stdout or stderr is lost: they go on, note it once in the log, and exit with the code of their results."""

from __future__ import annotations

import signal

import pytest

from cnnbench.runs.run_dir import RunDir
from lost_output import ERRORS, close_terminal_when, lose
from processes import ForkedCommand, only_run_in, run_forked
from sweeps import FAULTY, STOPPABLE, TINY, Sweep

NET = [*TINY, "model=simplecnn", "epochs=2"]
STOPPABLE_RUN = [text for text in STOPPABLE if not text.startswith(("seed=", "sweep."))]
SAVED = "runs/*/*/checkpoints/last.ckpt"
DIVERGES = "optimizer.lr=1e30"  # its message goes to stderr


def note(name: str, error: str) -> str:
    return f"{name}: {ERRORS[error]}; nothing more is shown there"


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_without_stdout_trains_tests_and_exits_with_0(ranks, error, tmp_path):
    run = ForkedCommand(tmp_path, *NET, f"trainer.devices={ranks}", ranks=ranks, fault=lose, about=("stdout", error))
    assert (run.wait(), run.err) == (0, "")
    directory = RunDir(only_run_in(tmp_path))
    assert directory.status().state == "done"
    assert directory.load_result().best_epoch in (1, 2)
    assert directory.log.read_text().splitlines().count(note("stdout", error)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_without_stderr_exits_with_the_code_of_its_result(ranks, error, tmp_path):
    run = ForkedCommand(
        tmp_path, *NET, DIVERGES, f"trainer.devices={ranks}", ranks=ranks, fault=lose, about=("stderr", error)
    )
    assert run.wait() == 3
    directory = RunDir(only_run_in(tmp_path))
    assert directory.status().state == "diverged"
    assert directory.log.read_text().splitlines().count(note("stderr", error)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_ranks_of_the_fork_server_go_on_too(name, error, tmp_path):
    run = Sweep(
        tmp_path,
        *NET,
        "trainer.devices=2",
        *[DIVERGES] * (name == "stderr"),
        first="seed=0",
        fault=lose,
        about=(name, error),
    )
    assert run.wait() == (3 if name == "stderr" else 0)
    run.assert_no_process_left()
    directory = RunDir(only_run_in(tmp_path))
    assert directory.status().state == ("diverged" if name == "stderr" else "done")
    assert directory.log.read_text().splitlines().count(note(name, error)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_sweep_runs_all_its_jobs(name, error, tmp_path):
    sweep = Sweep(tmp_path, *FAULTY, "seed=0,1,2", "sweep.slots=2", fault=lose, about=(name, error))
    assert sweep.wait() == 0
    sweep.assert_no_process_left()
    assert set(sweep.states().values()) == {"done"}
    lines = sweep.directory.log.read_text().splitlines()
    assert lines.count(note(name, error)) == (name == "stdout")  # nothing is written to stderr
    assert sum(" done " in line for line in lines) == 3


@pytest.mark.slow
def test_a_sweep_of_which_three_lines_are_read_runs_all_its_jobs_and_its_failures_count(tmp_path):
    sweep = Sweep(
        tmp_path, *NET, "optimizer.lr=0.01,1e30", "seed=0,1", "sweep.slots=2", fault=lose, about=("stdout", "EPIPE")
    )
    assert sweep.wait() == 3
    assert sorted(sweep.states().values()) == ["diverged", "diverged", "done", "done"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "line"),
    [("EPIPE", ""), ("EIO", ""), ("ENOSPC", "cnnbench: stdout: No space left on device\n")],
)
def test_an_evaluation_that_cannot_be_printed_does_not_exit_with_0(error, line, tmp_path):
    directory = run_forked(tmp_path, *NET)
    for command in (["evaluate", str(directory.path), "--json"], ["preview", "data=mnist5k", "--json"]):
        evaluated = ForkedCommand(tmp_path, *command, fault=lose, about=("stdout", error))
        assert (evaluated.wait(), evaluated.err) == (141, line)


# ---- a terminal that is closed --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_ignores_sighup_goes_on_without_its_terminal(tmp_path):
    """As with nohup or disown: all epochs are trained, and the test is scored."""
    run = ForkedCommand(tmp_path, *STOPPABLE_RUN, fault=close_terminal_when, about=(SAVED, True), NETS_WAIT="0.1")
    assert run.wait() == 0
    directory = RunDir(only_run_in(tmp_path))
    assert directory.status().state == "done"
    assert note("stdout", "EIO") in directory.log.read_text().splitlines()


@pytest.mark.slow
def test_a_run_saves_when_its_terminal_is_closed(tmp_path):
    run = ForkedCommand(tmp_path, *STOPPABLE_RUN, fault=close_terminal_when, about=(SAVED, False), NETS_WAIT="0.1")
    assert run.wait() == 128 + signal.SIGHUP
    directory = RunDir(only_run_in(tmp_path))
    status = directory.status()
    assert (status.state, status.reason) == ("interrupted", "stopped by SIGHUP")
    resumed = run_forked(tmp_path, *STOPPABLE_RUN, "resume=auto")
    assert resumed.path == directory.path
