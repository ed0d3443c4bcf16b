"""`cnnbench reproduce`: finished runs are repeated."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from cnnbench.__main__ import main
from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.report.load.sweep import read_runs
from cnnbench.runs.liveness import this_process
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.schema import SweepRecord
from cnnbench.runs.sweep_dir import Job, SweepDir
from cnnbench.training.run import run
from nets import Signalled
from sweeping import tree, write_run_in

EQUAL = "logits of 32 test images, bit for bit"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> RunDir:
    """A finished run of two steps. Tests copy it."""
    tiny = ["threads=1", "epochs=1", "data=synthetic", "data.train_size=128", "data.val_size=32", "data.test_size=32"]
    return run(compose([*tiny, f"runs_dir={tmp_path_factory.mktemp('trained')}", "name=mine"])).directory


@pytest.fixture
def done(trained, tmp_path, monkeypatch) -> RunDir:
    """A copy of the finished run, in runs/mine of an empty folder."""
    monkeypatch.chdir(tmp_path)
    return RunDir(Path(shutil.copytree(trained.path, Path("runs") / "mine" / trained.path.name)))


def reproduce(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["reproduce", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def second(run: RunDir) -> RunDir:
    return RunDir(run.path.with_name(f"{run.path.name}-2"))


def change(file: Path, **values) -> None:
    content = yaml.safe_load(file.read_text())
    file.write_text(json.dumps({**content, **values}))


# ---- results --------------------------------------------------------------------------------------------------------------


def test_a_repetition_on_the_same_machine_is_bit_equal(done, capsys):
    code, printed, error = reproduce(capsys, done.path)
    assert (code, error) == (0, "")
    assert printed.splitlines()[-1] == f"equal: every metric, loss and accuracy of 1 epoch, {EQUAL}"


def test_a_repetition_is_an_ordinary_run_next_to_the_first(done, capsys):
    before = tree(done.path)
    reproduce(capsys, done.path)
    assert tree(done.path) == before
    again = second(done)
    assert again.status().state == "done"
    assert again.load_result().command == f"cnnbench reproduce {done.path}"
    configs = [Config.load(each.config) for each in (done, again)]
    assert configs[0].identity() == configs[1].identity()
    assert (configs[1].threads, configs[1].precision) == (configs[0].threads, configs[0].precision)


def test_a_run_can_be_repeated_from_within_its_folder(done, capsys, monkeypatch):
    again = second(done).path.resolve()
    monkeypatch.chdir(done.path)
    assert reproduce(capsys, ".")[0] == 0
    assert (again / "result.json").is_file()


def test_a_sweep_does_not_count_a_repetition(done, capsys):
    identity = Config.load(done.config).identity()
    SweepDir(done.path.parent).write(
        SweepRecord(schema=1, name="mine", keys=["seed"], fixed={}, jobs=[]), [Job(done, identity, {"seed": 0})]
    )
    reproduce(capsys, done.path)
    found = read_runs(done.path.parent)
    assert ([each.name for each in found.runs], found.unlisted, found.duplicates) == ([done.path.name], [], [])


def test_a_different_result_fails_and_its_differences_are_printed(done, capsys):
    metrics = {**done.load_result().metrics, "test/acc": 0.99}
    change(done.result, metrics=metrics, code="0123")
    code, printed, _ = reproduce(capsys, done.path)
    assert code == 1
    lines = printed.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("not equal: "))
    assert lines[at].endswith("; the spread of the seeds is unknown: 0 other seeds of its setting finished")
    assert lines[at + 2].startswith("  test/acc 0.99, now ")
    assert lines[at + 3] == "possible causes:"
    assert lines[at + 4].startswith("  code: 0123 ")


def test_a_result_within_the_spread_of_the_seeds_passes(done, capsys):
    config, usual = Config.load(done.config), done.load_result().metrics
    for seed, shift in {1: -0.03, 2: 0.03}.items():
        metrics = {**usual, "test/acc": usual["test/acc"] + shift}
        write_run_in(done.path.with_name(f"s{seed}"), config.model_copy(update={"seed": seed}), "done", metrics=metrics)
    change(done.result, metrics={**usual, "test/acc": usual["test/acc"] + 0.01})
    code, printed, _ = reproduce(capsys, done.path)
    assert code == 0
    assert f"\nwithin the spread of the seeds: test accuracy {usual['test/acc'] + 0.01:.4f}, now " in printed


def test_the_folder_of_the_repetition_can_be_typed(done, capsys):
    assert reproduce(capsys, done.path, "runs_dir=elsewhere")[0] == 0
    assert (Path("elsewhere") / "mine" / done.path.name / "result.json").is_file()
    assert not second(done).path.exists()


# ---- stopped and failed repetitions ---------------------------------------------------------------------------------------


@pytest.fixture
def stoppable(tmp_path, monkeypatch, tiny):
    """A finished run of a net that sends a signal at a chosen step."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Signalled, "steps", 0)
    monkeypatch.setenv("NETS_STEP", "0")
    net = ["model=custom", "model._target_=nets.Signalled", "data.image_size=32", "name=mine", "epochs=3"]
    return run(compose([*tiny, *net])).directory


@pytest.mark.slow
def test_a_stopped_repetition_is_resumed_by_the_same_command(stoppable, capsys, monkeypatch):
    monkeypatch.setattr(Signalled, "steps", 0)
    monkeypatch.setenv("NETS_STEP", "3")
    monkeypatch.setenv("NETS_SIGNAL", "SIGTERM")
    code, _, error = reproduce(capsys, stoppable.path, "--trust")
    again = second(stoppable)
    typed = f"cnnbench reproduce {stoppable.path} --trust"
    assert (code, error) == (143, f"cnnbench: {again.path}: stopped. To resume, type the same command again: {typed}\n")
    assert again.effective_status().state == "interrupted"
    code, printed, _ = reproduce(capsys, stoppable.path, "--trust")
    assert (code, printed.splitlines()[-1]) == (0, f"equal: every metric, loss and accuracy of 3 epochs, {EQUAL}")
    assert not again.path.with_name(f"{stoppable.path.name}-3").exists()


def test_an_unfinished_run_with_another_config_is_not_resumed(done, capsys):
    config = Config.load(done.config)
    write_run_in(second(done).path, config.model_copy(update={"threads": 2}), "interrupted")
    assert reproduce(capsys, done.path)[0] == 0
    assert second(done).effective_status().state == "interrupted"
    assert (done.path.with_name(f"{done.path.name}-3") / "result.json").is_file()


def test_a_running_repetition_is_not_started_twice(done, capsys):
    write_run_in(second(done).path, Config.load(done.config), "running", this_process().model_dump())
    code, _, error = reproduce(capsys, done.path)
    assert (code, error) == (
        2,
        f"cnnbench: {second(done).path}: this repetition is still running (pid {os.getpid()} on {this_process().host}); wait for it\n",
    )


def test_a_failed_repetition_exits_with_3(done, capsys, monkeypatch):
    monkeypatch.setattr("cnnbench.training.run.fit_and_test", lambda *arguments: 1 / 0)
    code, _, error = reproduce(capsys, done.path)
    assert code == 3
    assert f"{second(done).path}: failed, ZeroDivisionError" in error


# ---- refusals -------------------------------------------------------------------------------------------------------------


def refused(capsys, *arguments) -> str:
    """The error line of a command that writes nothing."""
    before = tree(Path.cwd())
    code, _, error = reproduce(capsys, *arguments)
    assert (code, error.count("\n"), error[:10]) == (2, 1, "cnnbench: ")
    assert tree(Path.cwd()).keys() == before.keys()
    return error[10:-1]


def test_a_run_that_is_not_finished_is_refused_with_the_command_that_finishes_it(done, capsys):
    done.result.unlink()
    error = refused(capsys, done.path)
    assert error.endswith(f"so there is nothing to compare with; finish it first: cnnbench resume={done.path}")


def test_a_damaged_result_is_refused(done, capsys):
    done.result.write_text("{")
    assert "damaged" in refused(capsys, done.path)


def test_a_sweep_is_refused_and_one_of_its_runs_is_suggested(done, capsys):
    assert refused(capsys, "runs/mine").endswith(f"did you mean {done.path}?")


@pytest.mark.parametrize("typed", ["epochs=3", "data.root=", "elsewhere"])
def test_no_other_key_may_be_typed(done, capsys, typed):
    assert refused(capsys, done.path, typed) == (
        f"{typed}: a repetition keeps the config of its run; only data.root=FOLDER and runs_dir=FOLDER may be typed"
    )


def test_a_data_folder_that_does_not_exist_is_refused(done, capsys):
    text = done.config.read_text()
    done.config.write_text(text.replace("data.sets.synthetic.Synthetic", "data.sets.imagefolder.ImageFolder"))
    assert refused(capsys, done.path, "data.root=none") == "data.root=none: the folder does not exist"


def test_a_data_folder_beside_a_set_that_reads_none_is_refused(done, capsys, tmp_path):
    assert refused(capsys, done.path, f"data.root={tmp_path}").startswith(
        f"data.root={tmp_path}: data=synthetic reads no folder; for your own images type data=imagefolder data.root=..."
    )


def test_data_that_the_run_was_not_trained_on_are_refused(done, capsys):
    content = yaml.safe_load(done.config.read_text())
    content["data"]["fingerprint"] = "another"
    done.config.write_text(yaml.safe_dump(content))
    error = refused(capsys, done.path)
    assert (
        f"{done.path}: the files in {content['data']['root']} are not those that it was trained on; restore them"
        in error
    )


def test_a_run_on_a_gpu_is_refused_without_a_gpu(done, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    content = yaml.safe_load(done.config.read_text())
    content["trainer"]["accelerator"] = "gpu"
    done.config.write_text(yaml.safe_dump(content))
    assert "was trained on a GPU, but PyTorch finds none on this machine" in refused(capsys, done.path)


def test_a_run_of_several_machines_is_refused(done, capsys):
    content = yaml.safe_load(done.config.read_text())
    content["trainer"]["num_nodes"] = 2
    done.config.write_text(yaml.safe_dump(content))
    assert "trainer.num_nodes=2" in refused(capsys, done.path)


def test_a_users_own_net_needs_trust(stoppable, capsys):
    error = refused(capsys, stoppable.path)
    assert error.endswith(f"trust it: {shlex.join(['cnnbench', 'reproduce', str(stoppable.path), '--trust'])}")


# ---- several processes ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_of_two_devices_is_repeated_on_two(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    overrides = [
        "data=synthetic",
        "data.train_size=128",
        "data.val_size=32",
        "data.test_size=32",
        "threads=1",
        "epochs=2",
        "trainer=cpu",
    ]
    assert main([*overrides, "trainer.devices=2"]) == 0
    (path,) = Path("runs").glob("*/*")
    code, printed, _ = reproduce(capsys, path)
    assert (code, printed.splitlines()[-1]) == (0, f"equal: every metric, loss and accuracy of 2 epochs, {EQUAL}")
    assert second(RunDir(path)).load_result().devices == 2
