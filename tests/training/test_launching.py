"""Launchers, ranks and what becomes of them: whoever is stopped, killed or fails, all end, in one line, and the run goes on."""

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
from processes import Forked, Typed, assert_same_run, forked, points, run_of, saved_in, until

# 10 steps an epoch; LeNet-5 with dropout, which waits where it is told to
NET = ["trainer=cpu", "threads=1", "data=synthetic", "data.image_size=32", "data.train_size=640", "data.val_size=101"]
NET += ["data.test_size=101", "epochs=3", "optimizer=momentum", "trainer.checkpoint_every_s=0.05", "trainer.devices=2"]
NET += ["model=custom", "model._target_=nets.Slow"]
ENDED_S = 25  # within which nobody may be left


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunDir:
    """The run of two processes that was never stopped."""
    return forked(tmp_path_factory.mktemp("whole"), *NET, ranks=2)


@pytest.fixture
def started(tmp_path):
    """The command of two processes, under way and saved; killed at the end if need be."""
    begun = []

    def start(*more: str, wait: str = "0.1", **environment: str) -> Typed:
        begun.append(Typed(tmp_path, *NET, *more, NETS_WAIT=wait, **environment))
        until(lambda: saved_in(tmp_path) or begun[-1].process.poll() is not None, "it saves")
        assert begun[-1].process.poll() is None, begun[-1].err
        time.sleep(0.3)
        return begun[-1]

    yield start
    for run in begun:
        run.end()


def assert_nobody_left(run: Typed) -> None:
    until(lambda: not run.family(), f"all of {run.family()} end", ENDED_S)


def assert_interrupted(run: Typed, name: str) -> RunDir:
    """In good order: the status says so, one line says how to go on."""
    directory = RunDir(run_of(run.folder))
    assert directory.status()["state"] == "interrupted"
    assert not directory.result.exists()
    typed = f"python -m cnnbench resume={directory.path.relative_to(run.folder)} --trust"
    assert run.err == f"cnnbench: stopped by {name}; saved. To go on: {typed}\n"
    return directory


# ---- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 128 + signal.SIGUSR1)])
def test_a_signal_to_the_launcher_saves_on_all_ranks_and_the_run_goes_on_to_the_same_bits(name, code, started, whole):
    run = started()
    run.process.send_signal(getattr(signal, name))
    assert run.wait() == code
    assert_nobody_left(run)
    directory = assert_interrupted(run, name)
    resumed = Forked(run.folder, f"resume={directory.path}", "--trust", ranks=2)
    assert resumed.wait() == 0, resumed.err
    assert_same_run(directory, whole)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_to_all_processes_of_a_job_counts_once_though_the_launcher_passes_it_on(name, started, whole):
    """As Slurm and systemd send it."""
    run = started()
    for process in run.family():
        process.send_signal(getattr(signal, name))
    assert run.wait() == 128 + getattr(signal, name)
    assert_nobody_left(run)
    directory = assert_interrupted(run, name)
    assert_same_run(forked(run.folder, *NET, "resume=auto", ranks=2), whole)
    assert directory.result.is_file()


@pytest.mark.soak
def test_the_second_signal_ends_all_at_once(started, whole):
    run = started(wait="8")  # which the step that is under way takes
    begun = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert run.process.poll() is None
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 130
    assert time.monotonic() - begun < 5
    assert_nobody_left(run)
    directory = RunDir(run_of(run.folder))
    assert directory.status()["state"] == "interrupted"
    typed = f"python -m cnnbench resume={directory.path.relative_to(run.folder)} --trust"
    assert run.err == f"cnnbench: stopped at once by SIGINT. To go on: {typed}\n"
    assert_same_run(forked(run.folder, *NET, "resume=auto", ranks=2), whole)


@pytest.mark.soak
@pytest.mark.parametrize("moment", ["the fork server is started", "it imports torch", "the ranks prepare"])
def test_control_c_at_a_terminal_before_anything_has_begun_ends_all_without_a_traceback(moment, tmp_path):
    """It goes to the launcher and to the fork server, which is of its process group."""
    run = Typed(tmp_path, *NET)
    until(lambda: len(run.family()) >= 3, "launcher, resource tracker, fork server", every=0.001)
    if moment == "it imports torch":
        time.sleep(1.5)
    elif moment == "the ranks prepare":
        until(lambda: len(run.family()) >= 6, "two ranks")
        time.sleep(0.05)
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.wait(30) == 130
    assert_nobody_left(run)
    assert run.err == "cnnbench: stopped by SIGINT\n"


# ---- somebody dies ---------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_ranks_whose_launcher_is_killed_save_and_end_by_themselves(started, whole):
    run = started()
    assert len(run.ranks()) == 2
    run.process.kill()
    run.process.wait()
    assert_nobody_left(run)
    assert_interrupted(run, "SIGTERM")
    assert_same_run(forked(run.folder, *NET, "resume=auto", ranks=2), whole)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.soak), 1])
def test_where_a_rank_is_killed_the_run_has_failed_nobody_is_left_and_it_goes_on_to_the_same_bits(rank, started, whole):
    run = started()
    ranks = run.ranks()
    assert len(ranks) == 2
    ranks[rank].kill()
    assert run.wait() == 3
    assert_nobody_left(run)
    directory = RunDir(run_of(run.folder))
    assert directory.status()["state"] == "failed"
    assert "another process of the run has ended" in directory.status()["reason"]
    assert "cnnbench: a rank was ended by SIGKILL; was there memory enough?\n" in run.err
    assert "Traceback" not in run.err
    assert_same_run(forked(run.folder, *NET, "resume=auto", ranks=2), whole)


@pytest.mark.slow
def test_where_one_rank_raises_its_reason_is_the_line_and_its_log_has_the_traceback(tmp_path):
    net = ["model=custom", "model._target_=nets.RaisingOnRank1"]
    run = Typed(tmp_path, *NET[:-2], *net)
    assert run.wait() == 3
    assert_nobody_left(run)
    directory = RunDir(run_of(tmp_path))
    log = directory.path.relative_to(tmp_path) / "log_rank1.txt"
    what = "rank 1: failed, RuntimeError: out of luck; the traceback is in"
    assert run.err == f"cnnbench: {log.parent}: {what} {log}\n"
    assert directory.status()["state"] == "failed"
    assert directory.status()["reason"] == "rank 1: RuntimeError: out of luck"
    assert 'raise RuntimeError("out of luck")' in (tmp_path / log).read_text()
    assert "out of luck" not in directory.log.read_text()


@pytest.mark.soak
def test_a_disk_that_is_full_for_the_first_rank_ends_both_in_one_line(whole, tmp_path):
    run = Forked(tmp_path, *NET, ranks=2, fault=without_room, about=("last.ckpt", 6))
    assert run.wait() == 3
    directory = RunDir(run_of(tmp_path))
    assert run.err.startswith(f"cnnbench: {directory.path.relative_to(tmp_path)}: failed, no room on the disk (")
    assert run.err.count("\n") == 1
    assert directory.status()["reason"].startswith("no room on the disk")
    assert "last.ckpt" in assert_checkpoints_load(directory)
    assert_same_run(forked(tmp_path, *NET, "resume=auto", ranks=2), whole)


def first_rank_dies_in_preparing() -> None:
    def prepare(config):
        os.kill(os.getpid(), signal.SIGKILL)

    if os.environ["RANK"] == "0":
        cnnbench.training.run.prepare = prepare


@pytest.mark.soak
def test_a_rank_that_loses_the_first_one_before_anything_has_begun_says_nothing(tmp_path):
    run = Forked(tmp_path, *NET, ranks=2, fault=first_rank_dies_in_preparing)
    run.wait()
    assert [process.exitcode for process in run.processes] == [-signal.SIGKILL, 3]
    assert run.err == ""
    assert not (tmp_path / "runs").exists()


def first_rank_may_not_read() -> None:
    def forbidden(directory, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(directory.last))

    cnnbench.training.run.resumable = forbidden


@pytest.mark.soak
def test_what_the_first_rank_fails_at_alone_is_told_by_it_alone(tmp_path):
    run = Forked(tmp_path, *NET, ranks=2, fault=first_rank_may_not_read)
    run.wait()
    assert [process.exitcode for process in run.processes] == [3, 3]
    directory = RunDir(run_of(tmp_path))
    assert run.err.startswith(f"cnnbench: {directory.path.relative_to(tmp_path)}: failed, PermissionError: ")
    assert run.err.count("\n") == 1
    assert directory.status()["reason"].startswith("PermissionError: ")


# ---- torchrun --------------------------------------------------------------------------------------------------------

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


@pytest.mark.soak
def test_torchruns_processes_end_as_ours_do(whole, tmp_path):
    run = Typed(tmp_path, "-m", "cnnbench", *NET, program=(*TORCHRUN, "2"))
    assert run.wait() == 0, run.err
    assert_nobody_left(run)
    assert_same_run(RunDir(run_of(tmp_path)), whole)


@pytest.mark.soak
def test_torchrun_that_is_stopped_has_its_ranks_save_first(whole, tmp_path):
    run = Typed(tmp_path, "-m", "cnnbench", *NET, program=(*TORCHRUN, "2"), NETS_WAIT="0.1")
    until(lambda: saved_in(tmp_path), "it saves")
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() != 0
    assert_nobody_left(run)
    directory = RunDir(run_of(tmp_path))
    assert directory.status()["state"] == "interrupted"
    assert run.err.count("To go on: python -m cnnbench resume=") == 1
    assert_same_run(forked(tmp_path, *NET, "resume=auto", ranks=2), whole)


def test_another_number_of_processes_than_devices_is_told_in_one_line(tmp_path):
    three = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3"}  # as torchrun has it; torch is not imported
    run = Typed(tmp_path, *NET, **three)
    assert run.wait() == 2
    said = "3 processes were started, trainer.devices × trainer.num_nodes is 2; type trainer.devices=3"
    assert run.err == f"cnnbench: {said}\n"
    assert not (tmp_path / "runs").exists()


# ---- what they leave -------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_what_two_processes_have_trained_is_scored_alike_by_one(tmp_path):
    """Batch norm's running sums are each rank's own while it trains; all ranks validate with the first one's, averaged or not."""
    net = ["model=custom", "model._target_=nets.Normed", "ema=0.5", "optimizer.lr=0.05", "batch_size=64"]
    directory = forked(tmp_path, *NET[:-2], *net, ranks=2)
    metrics = json.loads(directory.result.read_text())["metrics"]
    assert metrics["best/val/acc"] > 0.2
    for split, loss, averaged in [
        ("test", "test/loss", []),
        ("val", "best/val/loss", []),
        ("test", "test/ema_loss", ["--ema"]),
        ("val", "best/val/ema_loss", ["--ema"]),
    ]:
        again = Forked(tmp_path, "evaluate", str(directory.path), "--split", split, "--json", "--trust", *averaged)
        assert again.wait() == 0, again.err
        scores = json.loads(again.out)
        assert scores["loss"] == pytest.approx(metrics[loss], abs=1e-6), loss
        assert scores["acc"] == metrics[loss.replace("loss", "acc")], loss


@pytest.mark.slow
def test_two_processes_write_each_point_and_each_file_once(whole):
    assert {len(found) for tag, found in points(whole).items() if tag.startswith(("train/", "val/"))} == {3}
    assert len(list(whole.path.glob("events.out.tfevents.*"))) == 1
    names = {path.name for path in whole.path.iterdir() if "tfevents" not in path.name}
    assert names == {
        *("config.yaml", "status.json", "result.json", "metrics.csv", "curves.png", "log.txt", "log_rank1.txt"),
        *("predictions.npz", "mistakes.npz", "checkpoints"),
    }
    assert Path(whole.path / "log_rank1.txt").read_text().count("epoch 1/3") == 0
