"""Killed sweeps: no process is left, and the same command again gives the same bits as a sweep that was not killed."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from typing import Any

import psutil
import pytest

from lost_output import ERRORS, lose
from processes import wait_until
from sweeps import FAULTY, STOPPABLE, Sweep, assert_same_sweep, changed, sleeping, swept

SLOWLY = {"NETS_WAIT": "0.05"}
HOW = ("the launcher", "its process group", "all processes")


def kill(sweep: Sweep, how: str) -> None:
    if how == "the launcher":
        os.kill(sweep.pid, signal.SIGKILL)
    elif how == "its process group":  # with its fork server; each job has its own group
        os.killpg(sweep.pid, signal.SIGKILL)
    else:
        for process in sweep.family():
            with suppress(psutil.Error):
                process.kill()


def training(sweep: Sweep) -> bool:
    return any((sweep.folder / "runs").glob("*/*/checkpoints/last.ckpt"))


def assert_kills_change_nothing(seed: int, whole: Sweep, launch) -> None:
    """Kills a sweep once or twice and lets it end: the same bits, finished jobs unchanged. With an odd seed it has lost stdout."""
    draw = random.Random(seed)
    done: dict[str, dict[str, int]] = {}
    screen: dict[str, Any] = {"fault": lose, "about": ("stdout", draw.choice([*ERRORS]))} if seed % 2 else {}
    for sitting in range(draw.choice([1, 2])):
        sweep = launch(*STOPPABLE, **SLOWLY, **screen)
        if not sitting:
            wait_until(lambda sweep=sweep: training(sweep), "it saves")
        time.sleep(draw.uniform(0, 4))
        how = draw.choice(HOW)
        at_once = draw.random() < 0.3  # the next launch starts while jobs of the killed one still save
        alive = sweep.code is None
        if alive:
            kill(sweep, how)
            assert sweep.wait() in (-signal.SIGKILL, 0)  # it may have ended just before
        if not at_once:
            sweep.assert_no_process_left()
        for name, run in sweep.runs().items():
            if run.result.is_file() and not (at_once and sweep.family()):
                assert done.get(name, changed(run)) == changed(run), f"{name} {how}"
                done[name] = changed(run)
    last = swept(sweep.folder, *STOPPABLE)
    sweep.assert_no_process_left()
    for name, before in done.items():
        ended = changed(last.runs()[name])
        status = str(last.runs()[name].path / "status.json")  # the kill may have come between the result and the status
        assert {path: at for path, at in ended.items() if path != status} == {
            path: at for path, at in before.items() if path != status and not path.endswith(".tmp")
        }
    assert_same_sweep(last, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_sweep_killed_at_a_random_moment_gives_the_same_bits(seed, whole, launch):
    assert_kills_change_nothing(seed, whole, launch)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4, 14))
def test_a_sweep_killed_at_other_random_moments_gives_the_same_bits(seed, whole, launch):
    assert_kills_change_nothing(seed, whole, launch)


@pytest.mark.slow
def test_jobs_of_a_killed_launcher_save_and_exit_and_the_same_command_resumes_them(whole, launch):
    sweep = launch(*STOPPABLE, NETS_WAIT="0.3")
    wait_until(lambda: len(list((sweep.folder / "runs").glob("*/*/checkpoints/last.ckpt"))) == 2, "both save")
    kill(sweep, "the launcher")
    assert sweep.wait() == -signal.SIGKILL
    sweep.assert_no_process_left()
    assert list(sweep.states().values()) == ["interrupted", "interrupted", "pending", "pending"]
    resumed = swept(sweep.folder, *STOPPABLE)
    assert "4 jobs, 4 to run, 2 of them resumed" in resumed.out
    assert_same_sweep(resumed, whole)


@pytest.mark.slow
def test_a_new_launch_waits_for_jobs_of_a_killed_one_that_still_save(whole, launch):
    sweep = launch(*STOPPABLE, NETS_WAIT="2")  # for each step
    wait_until(lambda: len(list((sweep.folder / "runs").glob("*/*/checkpoints/last.ckpt"))) == 2, "both save")
    kill(sweep, "its process group")
    second = swept(sweep.folder, *STOPPABLE)
    sweep.assert_no_process_left()
    assert_same_sweep(second, whole)


@pytest.mark.soak
def test_jobs_that_block_signals_or_hold_the_gil_end_when_their_launcher_is_killed(launch):
    sweep = launch(*FAULTY, "+model.fault=blocks_signals,holds_gil,fine", "sweep.slots=2")
    wait_until(lambda: sleeping(sweep.family()) == 2, "they hang")
    kill(sweep, "its process group")
    sweep.assert_no_process_left(60)


@pytest.mark.slow
def test_a_killed_job_has_failed_and_the_others_continue(launch):
    sweep = launch(*FAULTY, "+model.fault=hangs,fine,well", "sweep.slots=2")
    hanging = wait_until(
        lambda: sweep.runs().get("fault-hangs") if sweep.directory.record.exists() else None, "it begins"
    )
    pid = wait_until(lambda: hanging.status().epoch and hanging.status().pid, "it trains")
    os.kill(pid, signal.SIGKILL)
    assert sweep.wait() == 3
    assert sweep.states() == {"fault-hangs": "failed", "fault-fine": "done", "fault-well": "done"}
    assert hanging.status().reason == "its process was killed by SIGKILL; was there enough memory?"


@pytest.mark.slow
def test_a_job_stopped_by_a_signal_is_interrupted_and_the_others_continue(launch, tmp_path):
    sweep = launch(*FAULTY, "+model.fault=waits_for_file,fine,well", "sweep.slots=2", NETS_GATE=str(tmp_path / "gate"))
    stopped = wait_until(
        lambda: sweep.runs().get("fault-waits_for_file") if sweep.directory.record.exists() else None, "it begins"
    )
    pid = wait_until(lambda: stopped.status().epoch and stopped.status().pid, "it trains")
    os.kill(pid, signal.SIGTERM)
    (tmp_path / "gate").touch()
    assert sweep.wait() == 3
    assert sweep.states() == {"fault-waits_for_file": "interrupted", "fault-fine": "done", "fault-well": "done"}
    again = swept(sweep.folder, *sweep.arguments[1:], NETS_GATE=str(tmp_path / "gate"))
    assert set(again.states().values()) == {"done"}


@pytest.mark.slow
def test_a_job_with_a_damaged_result_runs_again(launch, whole):
    """As after a power cut or an edit."""
    sweep = launch(*STOPPABLE)
    assert sweep.wait() == 0
    first, *others = sweep.runs().values()
    first.result.write_text('{"metrics": ')
    before = [changed(run) for run in others]
    again = swept(sweep.folder, *STOPPABLE)
    assert "4 jobs, 3 done already, 1 to run, 1 of them resumed" in again.out
    assert [changed(run) for run in others] == before
    assert_same_sweep(again, whole)
