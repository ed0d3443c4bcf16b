"""Sweeps that are killed, wherever they are: nobody stays behind, and the same command ends as if nothing had been, to the bit."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

import psutil
import pytest

from processes import until
from sweeps import FATED, STOPPABLE, Sweep, assert_same_sweep, changed, sleeping, swept

SLOWLY = {"NETS_WAIT": "0.05"}
HOW = ("the launcher", "its process group", "all processes")


def kill(sweep: Sweep, how: str) -> None:
    if how == "the launcher":
        os.kill(sweep.pid, signal.SIGKILL)
    elif how == "its process group":  # its fork server as well, jobs have groups of their own
        os.killpg(sweep.pid, signal.SIGKILL)
    else:
        for process in sweep.family():
            with suppress(psutil.Error):
                process.kill()


def training(sweep: Sweep) -> bool:
    return any((sweep.folder / "runs").glob("*/*/checkpoints/last.ckpt"))


def assert_kills_do_not_show(seed: int, whole: Sweep, launch) -> None:
    """Killed once or twice, then let end: the same bits; nothing that was done is touched again."""
    draw = random.Random(seed)
    done: dict[str, dict[str, int]] = {}
    for sitting in range(draw.choice([1, 2])):
        sweep = launch(*STOPPABLE, **SLOWLY)
        if not sitting:
            until(lambda sweep=sweep: training(sweep), "it saves")
        time.sleep(draw.uniform(0, 4))
        how = draw.choice(HOW)
        at_once = draw.random() < 0.3  # the next comes while orphans are still saving
        alive = sweep.code is None
        if alive:
            kill(sweep, how)
            assert sweep.wait() in (-signal.SIGKILL, 0)  # it may have ended by itself just then
        if not at_once:
            sweep.assert_nobody_left()
        for name, run in sweep.runs().items():
            if run.result.is_file() and not (at_once and sweep.family()):
                assert done.get(name, changed(run)) == changed(run), f"{name} {how}"
                done[name] = changed(run)
    last = swept(sweep.folder, *STOPPABLE)
    sweep.assert_nobody_left()
    for name, before in done.items():
        ended = changed(last.runs()[name])
        status = str(last.runs()[name].path / "status.json")  # may have been killed between the result and this
        assert {path: at for path, at in ended.items() if path != status} == {
            path: at for path, at in before.items() if path != status and not path.endswith(".tmp")
        }
    assert_same_sweep(last, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_sweep_killed_at_a_random_moment_ends_with_the_same_bits(seed, whole, launch):
    assert_kills_do_not_show(seed, whole, launch)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4, 14))
def test_a_sweep_killed_at_other_random_moments_ends_with_the_same_bits(seed, whole, launch):
    assert_kills_do_not_show(seed, whole, launch)


@pytest.mark.slow
def test_jobs_whose_launcher_is_killed_save_and_end_and_the_same_command_goes_on_to_the_same_bits(whole, launch):
    sweep = launch(*STOPPABLE, NETS_WAIT="0.3")
    until(lambda: len(list((sweep.folder / "runs").glob("*/*/checkpoints/last.ckpt"))) == 2, "both save")
    kill(sweep, "the launcher")
    assert sweep.wait() == -signal.SIGKILL
    sweep.assert_nobody_left()
    assert list(sweep.states().values()) == ["interrupted", "interrupted", "pending", "pending"]
    resumed = swept(sweep.folder, *STOPPABLE)
    assert "4 jobs, 4 to run, 2 of them resumed" in resumed.out
    assert_same_sweep(resumed, whole)


@pytest.mark.slow
def test_the_next_launch_waits_for_jobs_of_a_killed_one_that_are_still_saving(whole, launch):
    sweep = launch(*STOPPABLE, NETS_WAIT="2")  # for each step
    until(lambda: len(list((sweep.folder / "runs").glob("*/*/checkpoints/last.ckpt"))) == 2, "both save")
    kill(sweep, "its process group")
    second = swept(sweep.folder, *STOPPABLE)
    sweep.assert_nobody_left()
    assert_same_sweep(second, whole)


@pytest.mark.soak
def test_deaf_jobs_and_those_that_let_no_thread_run_end_when_their_launcher_is_killed(launch):
    sweep = launch(*FATED, "+model.fate=deaf,stuck,fine", "sweep.slots=2")
    until(lambda: sleeping(sweep.family()) == 2, "they hang")
    kill(sweep, "its process group")
    sweep.assert_nobody_left(60)


@pytest.mark.slow
def test_a_job_that_is_killed_has_failed_and_the_others_go_on(launch):
    sweep = launch(*FATED, "+model.fate=hangs,fine,well", "sweep.slots=2")
    hanging = until(lambda: sweep.runs().get("fate-hangs") if sweep.directory.record.exists() else None, "it begins")
    pid = until(lambda: hanging.status().get("epoch") and hanging.status()["pid"], "it trains")
    os.kill(pid, signal.SIGKILL)
    assert sweep.wait() == 3
    assert sweep.states() == {"fate-hangs": "failed", "fate-fine": "done", "fate-well": "done"}
    assert hanging.status()["reason"] == "its process was ended by SIGKILL; was there memory enough?"


@pytest.mark.slow
def test_a_job_that_somebody_stops_is_interrupted_and_the_others_go_on(launch, tmp_path):
    sweep = launch(*FATED, "+model.fate=gated,fine,well", "sweep.slots=2", NETS_GATE=str(tmp_path / "gate"))
    stopped = until(lambda: sweep.runs().get("fate-gated") if sweep.directory.record.exists() else None, "it begins")
    pid = until(lambda: stopped.status().get("epoch") and stopped.status()["pid"], "it trains")
    os.kill(pid, signal.SIGTERM)
    (tmp_path / "gate").touch()
    assert sweep.wait() == 3
    assert sweep.states() == {"fate-gated": "interrupted", "fate-fine": "done", "fate-well": "done"}
    again = swept(sweep.folder, *sweep.arguments[1:], NETS_GATE=str(tmp_path / "gate"))
    assert set(again.states().values()) == {"done"}


@pytest.mark.slow
def test_a_result_that_cannot_be_read_any_more_is_made_again(launch, whole):
    """The power was cut, or somebody edited it."""
    sweep = launch(*STOPPABLE)
    assert sweep.wait() == 0
    first, *others = sweep.runs().values()
    first.result.write_text('{"metrics": ')
    before = [changed(run) for run in others]
    again = swept(sweep.folder, *STOPPABLE)
    assert "4 jobs, 3 done already, 1 to run, 1 of them resumed" in again.out
    assert [changed(run) for run in others] == before
    assert_same_sweep(again, whole)
