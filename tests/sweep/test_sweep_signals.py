"""Sweeps stopped by a signal: running jobs save, waiting ones do not start, and the same command resumes to the same bits."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pexpect
import pytest

from cnnbench.__main__ import main
from cnnbench.runs.sweep_dir import SweepDir
from processes import CommandProcess, child_environment, processes_with_mark, wait_until
from sweeps import FAULTY, LEFT_S, STOPPABLE, Sweep, assert_same_sweep, changed, sleeping, swept

SLOWLY = "0.3"  # seconds for each of twelve steps
STOPPED = ["interrupted", "interrupted", "pending", "pending"]


def both_have_saved(sweep: SweepDir) -> bool:
    return len(list(sweep.path.glob("*/checkpoints/last.ckpt"))) == 2


def assert_stopped_cleanly(sweep: Sweep, name: str) -> None:
    """One line on stderr; running jobs have saved, waiting jobs have a config only."""
    typed = " ".join(STOPPABLE)
    assert (
        sweep.err
        == f"cnnbench: stopped by {name}; saved. To resume, type the same command again: cnnbench -m {typed}\n"
    )
    assert list(sweep.states().values()) == STOPPED
    first, second, *others = sweep.runs().values()
    assert first.status().reason == second.status().reason == f"stopped by {name}"
    assert first.last.is_file()
    assert second.last.is_file()
    assert [list(changed(run)) for run in others] == [[str(run.config)] for run in others]
    lines = sweep.directory.summary.read_text().splitlines()[1:]
    assert [line.split(",")[1] for line in lines] == STOPPED


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 128 + signal.SIGUSR1)])
def test_a_signal_saves_running_jobs_and_the_same_command_resumes_to_the_same_bits(name, code, launch, whole):
    sweep = launch(*STOPPABLE, NETS_WAIT=SLOWLY)
    wait_until(lambda: both_have_saved(sweep.directory), "both save")
    sweep.send(getattr(signal, name))
    assert sweep.wait() == code
    sweep.assert_no_process_left()
    assert_stopped_cleanly(sweep, name)
    resumed = swept(sweep.folder, *STOPPABLE)
    assert "4 jobs, 4 to run, 2 of them resumed" in resumed.out
    assert_same_sweep(resumed, whole)


@pytest.mark.slow
def test_a_job_that_cannot_resume_reports_why_and_not_the_signal_that_stopped_it(launch):
    sweep = launch(*STOPPABLE, NETS_WAIT=SLOWLY)
    wait_until(lambda: both_have_saved(sweep.directory), "both save")
    sweep.send(signal.SIGTERM)
    assert sweep.wait() == 143
    first, *_ = sweep.runs().values()
    first.config.write_text(first.config.read_text().replace("seed: 0", "seed: 5"))
    again = Sweep(sweep.folder, *STOPPABLE)
    assert again.wait() == 3
    assert again.states() == {"seed0": "failed", "seed1": "done", "seed2": "done", "seed3": "done"}
    assert "this run was started with other data or on another machine" in first.status().reason


@pytest.mark.slow
def test_a_signal_to_all_processes_counts_once(launch, whole):
    """Slurm and systemd send signals to all processes; timeout(1) sends them to its child twice."""
    sweep = launch(*STOPPABLE, NETS_WAIT=SLOWLY)
    wait_until(lambda: both_have_saved(sweep.directory), "both save")
    for process in sweep.family():
        process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    sweep.send(signal.SIGTERM)
    assert sweep.wait() == 143
    sweep.assert_no_process_left()
    assert_stopped_cleanly(sweep, "SIGTERM")
    assert_same_sweep(swept(sweep.folder, *STOPPABLE), whole)


@pytest.mark.slow
def test_the_second_signal_kills_all_jobs_at_once(launch):
    sweep = launch(*FAULTY, "+model.fault=hangs,blocks_signals,fine", "sweep.slots=2")
    wait_until(lambda: sleeping(sweep.family()) == 1, "they hang")
    sweep.send(signal.SIGTERM)
    time.sleep(1)
    assert sweep.code is None
    sweep.send(signal.SIGINT)
    begun = time.monotonic()
    assert sweep.wait() == 130
    sweep.assert_no_process_left()
    assert time.monotonic() - begun < 15  # the first signal alone gives them a minute
    assert sweep.err.startswith(
        "cnnbench: stopped at once by SIGINT. To resume, type the same command again: cnnbench -m "
    )
    assert sweep.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_while_jobs_are_checked_stops_the_sweep_before_anything_is_written(name, launch, tmp_path):
    sweep = launch(*FAULTY, "seed=range(400)")
    wait_until(lambda: len(sweep.family()) > 2 or sweep.code is not None, "a process checks the jobs", every=0.002)
    os.killpg(sweep.pid, signal.Signals[name])
    assert sweep.wait() == 128 + signal.Signals[name]
    sweep.assert_no_process_left()
    assert sweep.err.startswith(
        f"cnnbench: stopped by {name} while no job ran. To resume, type the same command again: cnnbench -m"
    )
    assert sweep.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_that_a_library_turns_into_another_exception_stops_the_sweep(name, monkeypatch, capsys):
    """OmegaConf raises errors of what it calls anew, with a longer message."""

    def plan(*_: object) -> None:
        try:
            os.kill(os.getpid(), signal.Signals[name])
            time.sleep(10)
        except Exception as error:
            raise TypeError("cannot be made anew") from error

    monkeypatch.setattr("cnnbench.cli.sweep.plan_with_progress", plan)
    assert main(["-m", "seed=0,1"]) == 128 + signal.Signals[name]
    assert capsys.readouterr().err.startswith(
        f"cnnbench: stopped by {name} while no job ran. To resume, type the same "
    )


# ---- at a terminal ---------------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(tmp_path):
    """Runs commands on a pseudo-terminal."""
    begun = []

    def start(*arguments: str, before: Callable[[], None] | None = None, **more: str) -> pexpect.spawn:
        environment = child_environment(str(tmp_path), {"COLUMNS": "200", "LINES": "40", "TERM": "xterm", **more})
        begun.append(
            pexpect.spawn(
                sys.executable,
                ["-m", "cnnbench", *arguments],
                cwd=tmp_path,
                env=environment,
                timeout=120,
                dimensions=(40, 200),
                preexec_fn=before,
            )
        )
        return begun[-1]

    yield start
    for process in processes_with_mark(str(tmp_path)):
        process.kill()
    for child in begun:
        child.close(force=True)


def exit_code_and_output(child: pexpect.spawn) -> tuple[int, str]:
    shown = child.before if isinstance(child.before, bytes) else b""
    child.expect(pexpect.EOF)
    shown += child.before
    child.wait()
    return child.exitstatus, shown.decode()


@pytest.mark.slow
def test_ctrl_c_at_a_terminal_saves_and_the_same_command_resumes_to_the_same_bits(terminal, whole, tmp_path):
    child = terminal("-m", *STOPPABLE, NETS_WAIT=SLOWLY)
    directory = SweepDir(tmp_path / "runs" / "swept")
    wait_until(lambda: both_have_saved(directory), "both save")
    child.sendintr()
    code, shown = exit_code_and_output(child)
    assert code == 130
    assert shown.count("stopped by SIGINT; saved. To resume, type the same command again: cnnbench -m ") == 1
    assert "Traceback" not in shown
    wait_until(lambda: not processes_with_mark(str(tmp_path)), "nobody is left", LEFT_S)
    assert [job.status().state for job in directory.jobs()] == STOPPED
    assert_same_sweep(swept(tmp_path, *STOPPABLE), whole)


@pytest.mark.soak
def test_ctrl_c_twice_at_a_terminal_kills_all_jobs_at_once(terminal, tmp_path):
    child = terminal("-m", *FAULTY, "+model.fault=hangs,blocks_signals,fine", "sweep.slots=2")
    wait_until(lambda: sleeping(processes_with_mark(str(tmp_path))) == 1, "they hang")
    child.sendintr()
    time.sleep(1)
    child.sendintr()
    code, shown = exit_code_and_output(child)
    assert code == 130
    assert "Traceback" not in shown
    wait_until(lambda: not processes_with_mark(str(tmp_path)), "nobody is left", LEFT_S)


@pytest.mark.soak
@pytest.mark.parametrize("after", [0.3, 1.0, 2.5, 5.0])
def test_ctrl_c_before_the_first_job_leaves_no_process_and_no_traceback(after, terminal, tmp_path):
    child = terminal("-m", *STOPPABLE)
    wait_until(lambda: len(processes_with_mark(str(tmp_path))) >= 2, "the fork server is started", every=0.005)
    time.sleep(after)
    child.sendintr()
    code, shown = exit_code_and_output(child)
    assert code == 130
    assert "Traceback" not in shown
    wait_until(lambda: not processes_with_mark(str(tmp_path)), "nobody is left", LEFT_S)


@pytest.mark.soak
def test_sigterm_leaves_no_process_with_the_environment_of_the_sweep(tmp_path, whole):
    run = CommandProcess(tmp_path, "-m", *STOPPABLE, NETS_WAIT=SLOWLY)
    directory = SweepDir(Path(tmp_path) / "runs" / "swept")
    wait_until(lambda: both_have_saved(directory) or run.process.poll() is not None, "both save")
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 143
    wait_until(lambda: not run.family(), "nobody is left", LEFT_S)
    assert_same_sweep(swept(tmp_path, *STOPPABLE), whole)


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [False, True])
def test_when_the_terminal_is_closed_the_jobs_save_unless_sighup_is_ignored(ignored, terminal, tmp_path):
    child = terminal("-m", *STOPPABLE, NETS_WAIT="0.1", before=ignore_hangup if ignored else None)
    sweep = SweepDir(tmp_path / "runs" / "swept")

    def saved() -> bool:
        with suppress(pexpect.TIMEOUT):
            child.read_nonblocking(100_000, timeout=0)  # a terminal that nobody reads would stop the sweep
        return both_have_saved(sweep)

    wait_until(saved, "both save")
    child.ptyproc.fileobj.close()
    _, status = os.waitpid(child.pid, 0)
    child.ptyproc.terminated = True
    assert os.waitstatus_to_exitcode(status) == (0 if ignored else 129)
    states = [job.directory.status().state for job in sweep.jobs()]
    assert states == (["done"] * 4 if ignored else STOPPED)
    line = "SIGHUP: no further job starts; running jobs that save: 2"
    assert (line in sweep.log.read_text().splitlines()) is not ignored


def ignore_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
