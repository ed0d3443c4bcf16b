"""Launchers and ranks: when one is stopped, killed or fails, all end with one line, and the run can be resumed."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from test_faults import assert_checkpoints_load, without_room

import cnnbench.training.run
from cnnbench.runs.run_dir import RunDir
from processes import (
    CommandProcess,
    ForkedCommand,
    assert_same_run,
    has_saved,
    only_run_in,
    run_forked,
    scalar_points,
    wait_until,
)

# 10 steps an epoch; LeNet-5 with dropout, which can wait in each step
NET = ["trainer=cpu", "threads=1", "data=synthetic", "data.image_size=32", "data.train_size=640", "data.val_size=101"]
NET += ["data.test_size=101", "epochs=3", "optimizer=momentum", "trainer.checkpoint_every_s=0.05", "trainer.devices=2"]
NET += ["model=custom", "model._target_=nets.Slow"]
ENDED_S = 25  # within which all processes must end


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunDir:
    """The uninterrupted run of two processes."""
    return run_forked(tmp_path_factory.mktemp("whole"), *NET, ranks=2)


@pytest.fixture
def started(tmp_path):
    """Starts the command of two processes and waits for its first checkpoint; kills what is left at the end."""
    begun = []

    def start(*more: str, wait: str = "0.1", **environment: str) -> CommandProcess:
        begun.append(CommandProcess(tmp_path, *NET, *more, NETS_WAIT=wait, **environment))
        wait_until(lambda: has_saved(tmp_path) or begun[-1].process.poll() is not None, "it saves")
        assert begun[-1].process.poll() is None, begun[-1].err
        time.sleep(0.3)
        return begun[-1]

    yield start
    for run in begun:
        run.end()


def assert_all_ended(run: CommandProcess) -> None:
    wait_until(lambda: not run.family(), f"all of {run.family()} end", ENDED_S)


def assert_interrupted(run: CommandProcess, name: str) -> RunDir:
    """Asserts a clean stop: the status is interrupted, and one line has the resume command."""
    directory = RunDir(only_run_in(run.folder))
    assert directory.status().state == "interrupted"
    assert not directory.result.exists()
    typed = f"cnnbench resume={directory.path.relative_to(run.folder)} --trust"
    assert run.err == f"cnnbench: stopped by {name}; saved. To resume: {typed}\n"
    return directory


# ---- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "code"),
    [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGUSR1", 138), ("SIGUSR2", 140), ("SIGXCPU", 152)],
)
def test_a_signal_to_the_launcher_saves_on_all_ranks_and_the_resumed_run_has_the_same_bits(name, code, started, whole):
    run = started()
    run.process.send_signal(getattr(signal, name))
    assert run.wait() == code
    assert_all_ended(run)
    directory = assert_interrupted(run, name)
    resumed = ForkedCommand(run.folder, f"resume={directory.path}", "--trust", ranks=2)
    assert resumed.wait() == 0, resumed.err
    assert_same_run(directory, whole)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_to_all_processes_of_a_job_counts_once(name, started, whole):
    """Slurm and systemd send a signal to all processes, and the launcher passes it on."""
    run = started()
    for process in run.family():
        process.send_signal(getattr(signal, name))
    assert run.wait() == 128 + getattr(signal, name)
    assert_all_ended(run)
    directory = assert_interrupted(run, name)
    assert_same_run(run_forked(run.folder, *NET, "resume=auto", ranks=2), whole)
    assert directory.result.is_file()


@pytest.mark.soak
def test_the_second_signal_ends_all_processes_at_once(started, whole):
    run = started(wait="8")  # seconds that the current step takes
    begun = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert run.process.poll() is None
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 130
    assert time.monotonic() - begun < 5
    assert_all_ended(run)
    directory = RunDir(only_run_in(run.folder))
    assert directory.status().state == "interrupted"
    typed = f"cnnbench resume={directory.path.relative_to(run.folder)} --trust"
    assert run.err == f"cnnbench: stopped at once by SIGINT. To resume: {typed}\n"
    assert_same_run(run_forked(run.folder, *NET, "resume=auto", ranks=2), whole)


@pytest.mark.soak
@pytest.mark.parametrize("moment", ["the fork server is started", "it imports torch", "the ranks prepare"])
def test_control_c_during_start_up_ends_all_processes_without_a_traceback(moment, tmp_path):
    """The signal goes to the launcher and to the fork server, which is in its process group."""
    run = CommandProcess(tmp_path, *NET)
    wait_until(lambda: len(run.family()) >= 3, "launcher, resource tracker, fork server", every=0.001)
    if moment == "it imports torch":
        time.sleep(1.5)
    elif moment == "the ranks prepare":
        wait_until(lambda: len(run.family()) >= 6, "two ranks")
        time.sleep(0.05)
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.wait(30) == 130
    assert_all_ended(run)
    assert run.err == "cnnbench: stopped by SIGINT\n"


# ---- a process dies ---------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_ranks_whose_launcher_is_killed_save_and_exit(started, whole):
    run = started()
    assert len(run.ranks()) == 2
    run.process.kill()
    run.process.wait()
    assert_all_ended(run)
    assert_interrupted(run, "SIGTERM")
    assert_same_run(run_forked(run.folder, *NET, "resume=auto", ranks=2), whole)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_when_a_rank_is_killed_all_end_and_the_resumed_run_has_the_same_bits(rank, started, whole):
    run = started()
    ranks = run.ranks()
    assert len(ranks) == 2
    ranks[rank].kill()
    assert run.wait() == 3
    assert_all_ended(run)
    directory = RunDir(only_run_in(run.folder))
    assert directory.status().state == "failed"
    reason = f"rank {rank} was killed by SIGKILL; was there enough memory?"
    assert directory.status().reason == reason
    assert run.err.startswith(f"cnnbench: {directory.path.relative_to(run.folder)}: failed, {reason}; ")
    assert run.err.count("\n") == 1
    assert "Traceback" not in run.err
    assert_same_run(run_forked(run.folder, *NET, "resume=auto", ranks=2), whole)


@pytest.mark.slow
def test_an_error_of_one_rank_is_printed_in_one_line_and_its_log_has_the_traceback(tmp_path):
    net = ["model=custom", "model._target_=nets.RaisingOnRank1"]
    run = CommandProcess(tmp_path, *NET[:-2], *net)
    assert run.wait() == 3
    assert_all_ended(run)
    directory = RunDir(only_run_in(tmp_path))
    log = directory.path.relative_to(tmp_path) / "log_rank1.txt"
    what = "rank 1: failed, RuntimeError: out of luck; the traceback is in"
    assert run.err == f"cnnbench: {log.parent}: {what} {log}\n"
    assert directory.status().state == "failed"
    assert directory.status().reason == "rank 1: RuntimeError: out of luck"
    assert 'raise RuntimeError("out of luck")' in (tmp_path / log).read_text()
    assert "out of luck" not in directory.log.read_text()


@pytest.mark.soak
def test_a_full_disk_of_the_first_rank_ends_both_in_one_line(whole, tmp_path):
    run = ForkedCommand(tmp_path, *NET, ranks=2, fault=without_room, about=("last.ckpt", 6))
    assert run.wait() == 3
    directory = RunDir(only_run_in(tmp_path))
    assert run.err.startswith(f"cnnbench: {directory.path.relative_to(tmp_path)}: failed, no room on the disk (")
    assert run.err.count("\n") == 1
    assert directory.status().reason.startswith("no room on the disk")
    assert "last.ckpt" in assert_checkpoints_load(directory)
    assert_same_run(run_forked(tmp_path, *NET, "resume=auto", ranks=2), whole)


def first_rank_dies_in_preparing() -> None:
    def prepare(config):
        os.kill(os.getpid(), signal.SIGKILL)

    if os.environ["RANK"] == "0":
        cnnbench.training.run.prepare = prepare


@pytest.mark.soak
def test_a_rank_that_loses_the_first_rank_during_start_up_prints_nothing(tmp_path):
    run = ForkedCommand(tmp_path, *NET, ranks=2, fault=first_rank_dies_in_preparing)
    run.wait()
    assert [process.exitcode for process in run.processes] == [-signal.SIGKILL, 3]
    assert run.err == ""
    assert not (tmp_path / "runs").exists()


def first_rank_may_not_read() -> None:
    def forbidden(directory, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(directory.last))

    cnnbench.training.run.find_resumable_checkpoint = forbidden


@pytest.mark.soak
def test_an_error_of_the_first_rank_alone_is_printed_once(tmp_path):
    run = ForkedCommand(tmp_path, *NET, ranks=2, fault=first_rank_may_not_read)
    run.wait()
    assert [process.exitcode for process in run.processes] == [3, 3]
    directory = RunDir(only_run_in(tmp_path))
    assert run.err.startswith(f"cnnbench: {directory.path.relative_to(tmp_path)}: failed, PermissionError: ")
    assert run.err.count("\n") == 1
    assert directory.status().reason.startswith("PermissionError: ")


# ---- torchrun --------------------------------------------------------------------------------------------------------

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


@pytest.mark.soak
def test_a_run_of_torchrun_equals_a_run_of_ours(whole, tmp_path):
    run = CommandProcess(tmp_path, "-m", "cnnbench", *NET, program=(*TORCHRUN, "2"))
    assert run.wait() == 0, run.err
    assert_all_ended(run)
    assert_same_run(RunDir(only_run_in(tmp_path)), whole)


@pytest.mark.soak
def test_when_torchrun_is_stopped_its_ranks_save_first(whole, tmp_path):
    run = CommandProcess(tmp_path, "-m", "cnnbench", *NET, program=(*TORCHRUN, "2"), NETS_WAIT="0.1")
    wait_until(lambda: has_saved(tmp_path), "it saves")
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() != 0
    assert_all_ended(run)
    directory = RunDir(only_run_in(tmp_path))
    assert directory.status().state == "interrupted"
    assert run.err.count("To resume: cnnbench resume=") == 1
    assert_same_run(run_forked(tmp_path, *NET, "resume=auto", ranks=2), whole)


def test_more_processes_than_devices_are_refused_in_one_line(tmp_path):
    three = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3"}  # as torchrun sets it; the refusal imports no torch
    run = CommandProcess(tmp_path, *NET, **three)
    assert run.wait() == 2
    message = "3 processes were started, trainer.devices × trainer.num_nodes is 2; type trainer.devices=3"
    assert run.err == f"cnnbench: {message}\n"
    assert not (tmp_path / "runs").exists()


# ---- what they write -------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_one_process_evaluates_a_net_of_two_processes_with_the_same_scores(tmp_path):
    """In training each rank has its batch norm statistics; all ranks validate with those of the first one, averaged or not."""
    net = ["model=custom", "model._target_=nets.Normed", "ema=0.5", "optimizer.lr=0.05", "batch_size=64"]
    directory = run_forked(tmp_path, *NET[:-2], *net, ranks=2)
    metrics = json.loads(directory.result.read_text())["metrics"]
    assert metrics["best/val/acc"] > 0.2
    for split, loss, averaged in [
        ("test", "test/loss", []),
        ("val", "best/val/loss", []),
        ("test", "test/ema_loss", ["--ema"]),
        ("val", "best/val/ema_loss", ["--ema"]),
    ]:
        again = ForkedCommand(
            tmp_path, "evaluate", str(directory.path), "--split", split, "--json", "--trust", *averaged
        )
        assert again.wait() == 0, again.err
        scores = json.loads(again.out)
        assert scores["loss"] == pytest.approx(metrics[loss], abs=1e-6), loss
        assert scores["acc"] == metrics[loss.replace("loss", "acc")], loss


@pytest.mark.slow
def test_two_processes_write_each_point_and_file_once(whole):
    assert {len(found) for tag, found in scalar_points(whole).items() if tag.startswith(("train/", "val/"))} == {3}
    assert len(list(whole.path.glob("events.out.tfevents.*"))) == 1
    names = {path.name for path in whole.path.iterdir() if "tfevents" not in path.name}
    assert names == {
        *("config.yaml", "status.json", "result.json", "metrics.csv", "curves.png", "log.txt", "log_rank1.txt"),
        *("predictions.npz", "mistakes.npz", "checkpoints"),
    }
    assert Path(whole.path / "log_rank1.txt").read_text().count("epoch 1/3") == 0
