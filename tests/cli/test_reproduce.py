"""`python -m cnnbench reproduce`: finished runs that are run again."""

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
from cnnbench.report.load.sweep import read
from cnnbench.runs.liveness import this_process
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.sweep_dir import Job, SweepDir
from cnnbench.training.run import run
from nets import Signalled
from sweeping import leave_in, tree

EQUAL = "logits of 32 test images, bit for bit"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> RunDir:
    """A finished run of two steps. Tests copy it."""
    tiny = ["threads=1", "epochs=1", "data=synthetic", "data.train_size=128", "data.val_size=32", "data.test_size=32"]
    return run(compose([*tiny, f"runs_dir={tmp_path_factory.mktemp('trained')}", "name=mine"])).directory


@pytest.fixture
def done(trained, tmp_path, monkeypatch) -> RunDir:
    """Its copy, in runs/mine of an empty folder."""
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


# ---- what comes out ----------------------------------------------------------------------------------------------------------


def test_on_the_same_machine_a_run_comes_out_equal(done, capsys):
    code, told, error = reproduce(capsys, done.path)
    assert (code, error) == (0, "")
    assert told.splitlines()[-1] == f"equal: every metric, loss and accuracy of 1 epoch, {EQUAL}"


def test_the_repetition_lies_beside_the_run_and_is_an_ordinary_one(done, capsys):
    before = tree(done.path)
    reproduce(capsys, done.path)
    assert tree(done.path) == before
    again = second(done)
    assert again.status()["state"] == "done"
    assert again.outcome()["command"] == f"python -m cnnbench reproduce {done.path}"
    configs = [Config.load(each.config) for each in (done, again)]
    assert configs[0].identity() == configs[1].identity()
    assert (configs[1].threads, configs[1].precision) == (configs[0].threads, configs[0].precision)


def test_from_within_its_own_folder_it_lies_beside_as_well(done, capsys, monkeypatch):
    again = second(done).path.resolve()
    monkeypatch.chdir(done.path)
    assert reproduce(capsys, ".")[0] == 0
    assert (again / "result.json").is_file()


def test_a_sweep_does_not_count_the_repetition(done, capsys):
    identity = Config.load(done.config).identity()
    SweepDir(done.path.parent).write(
        {"name": "mine", "keys": ["seed"], "fixed": {}}, [Job(done, identity, {"seed": 0})]
    )
    reproduce(capsys, done.path)
    found = read(done.path.parent)
    assert ([each.name for each in found.runs], found.unlisted, found.twice) == ([done.path.name], [], [])


def test_what_came_out_otherwise_is_told_and_fails(done, capsys):
    metrics = {**done.outcome()["metrics"], "test/acc": 0.99}
    change(done.result, metrics=metrics, code="0123")
    code, told, _ = reproduce(capsys, done.path)
    assert code == 1
    lines = told.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("not equal, and not known"))
    assert lines[at].endswith("how far seeds spread is not known: 0 other seeds of the same cell done beside it")
    assert lines[at + 2].startswith("  test/acc 0.99, now ")
    assert lines[at + 3] == "likely because of:"
    assert lines[at + 4].startswith("  code: 0123 ")


def test_within_the_spread_of_the_seeds_is_good_enough(done, capsys):
    config, own = Config.load(done.config), done.outcome()["metrics"]
    for seed, apart in {1: -0.03, 2: 0.03}.items():
        metrics = {**own, "test/acc": own["test/acc"] + apart}
        leave_in(done.path.with_name(f"s{seed}"), config.model_copy(update={"seed": seed}), "done", metrics=metrics)
    change(done.result, metrics={**own, "test/acc": own["test/acc"] + 0.01})
    code, told, _ = reproduce(capsys, done.path)
    assert code == 0
    assert f"\nwithin the spread of the seeds: test accuracy {own['test/acc'] + 0.01:.4f}, now " in told


def test_a_place_for_it_can_be_typed(done, capsys):
    assert reproduce(capsys, done.path, "runs_dir=elsewhere")[0] == 0
    assert (Path("elsewhere") / "mine" / done.path.name / "result.json").is_file()
    assert not second(done).path.exists()


# ---- stopped, failed ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def stoppable(tmp_path, monkeypatch, tiny):
    """A finished run of a net that can be told to send a signal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Signalled, "steps", 0)
    monkeypatch.setenv("NETS_STEP", "0")
    net = ["model=custom", "model._target_=nets.Signalled", "data.image_size=32", "name=mine", "epochs=3"]
    return run(compose([*tiny, *net])).directory


def test_a_stopped_repetition_goes_on_when_it_is_typed_again(stoppable, capsys, monkeypatch):
    monkeypatch.setattr(Signalled, "steps", 0)
    monkeypatch.setenv("NETS_STEP", "3")
    monkeypatch.setenv("NETS_SIGNAL", "SIGTERM")
    code, _, error = reproduce(capsys, stoppable.path, "--trust")
    again = second(stoppable)
    typed = f"python -m cnnbench reproduce {stoppable.path} --trust"
    assert (code, error) == (143, f"cnnbench: {again.path}: stopped. To go on, type the same again: {typed}\n")
    assert again.found()["state"] == "interrupted"
    code, told, _ = reproduce(capsys, stoppable.path, "--trust")
    assert (code, told.splitlines()[-1]) == (0, f"equal: every metric, loss and accuracy of 3 epochs, {EQUAL}")
    assert not again.path.with_name(f"{stoppable.path.name}-3").exists()


def test_an_unfinished_run_with_another_config_is_left_alone(done, capsys):
    config = Config.load(done.config)
    leave_in(second(done).path, config.model_copy(update={"threads": 2}), "interrupted")
    assert reproduce(capsys, done.path)[0] == 0
    assert second(done).found()["state"] == "interrupted"
    assert (done.path.with_name(f"{done.path.name}-3") / "result.json").is_file()


def test_a_repetition_that_is_on_is_not_begun_twice(done, capsys):
    leave_in(second(done).path, Config.load(done.config), "running", this_process())
    code, _, error = reproduce(capsys, done.path)
    assert (code, error) == (
        2,
        f"cnnbench: {second(done).path}: this repetition is on (pid {os.getpid()} on {this_process()['host']}); wait for it\n",
    )


def test_a_repetition_that_fails_ends_with_3(done, capsys, monkeypatch):
    monkeypatch.setattr("cnnbench.training.run.fit_and_test", lambda *arguments: 1 / 0)
    code, _, error = reproduce(capsys, done.path)
    assert code == 3
    assert f"{second(done).path}: failed, ZeroDivisionError" in error


# ---- what is refused ---------------------------------------------------------------------------------------------------------


def refused(capsys, *arguments) -> str:
    """The line, when nothing was written."""
    before = tree(Path.cwd())
    code, _, error = reproduce(capsys, *arguments)
    assert (code, error.count("\n"), error[:10]) == (2, 1, "cnnbench: ")
    assert tree(Path.cwd()).keys() == before.keys()
    return error[10:-1]


def test_a_run_that_is_not_finished_is_refused_with_what_finishes_it(done, capsys):
    done.result.unlink()
    told = refused(capsys, done.path)
    assert told.endswith(f"there is nothing to compare with; finish it first: python -m cnnbench resume={done.path}")


def test_a_damaged_result_is_refused(done, capsys):
    done.result.write_text("{")
    assert "damaged" in refused(capsys, done.path)


def test_a_sweep_is_refused_and_a_run_of_it_named(done, capsys):
    assert refused(capsys, "runs/mine").endswith(f"did you mean {done.path}?")


@pytest.mark.parametrize("typed", ["epochs=3", "data=mnist", "data.root=", "elsewhere"])
def test_no_other_key_may_be_typed(done, capsys, typed):
    assert refused(capsys, done.path, typed) == (
        f"{typed}: a repeated run keeps its own config; data.root=FOLDER and runs_dir=FOLDER may be typed"
    )


def test_a_data_folder_that_is_not_there_is_refused(done, capsys):
    assert refused(capsys, done.path, "data.root=none") == "data.root=none: there is no such folder"


def test_other_data_than_it_was_trained_on_are_refused(done, capsys):
    content = yaml.safe_load(done.config.read_text())
    content["data"]["fingerprint"] = "another"
    done.config.write_text(yaml.safe_dump(content))
    told = refused(capsys, done.path)
    assert (
        f"{done.path}: the files in {content['data']['root']} are not those that it was trained on; restore them"
        in told
    )


def test_a_gpus_run_is_refused_where_there_is_none(done, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    content = yaml.safe_load(done.config.read_text())
    content["trainer"]["accelerator"] = "gpu"
    done.config.write_text(yaml.safe_dump(content))
    assert "was trained on a GPU, and PyTorch sees none here" in refused(capsys, done.path)


def test_a_run_of_several_machines_is_refused(done, capsys):
    content = yaml.safe_load(done.config.read_text())
    content["trainer"]["num_nodes"] = 2
    done.config.write_text(yaml.safe_dump(content))
    assert "trainer.num_nodes=2" in refused(capsys, done.path)


def test_a_net_of_somebodys_own_needs_trust(stoppable, capsys):
    told = refused(capsys, stoppable.path)
    assert told.endswith(
        f"trust it: {shlex.join(['python', '-m', 'cnnbench', 'reproduce', str(stoppable.path), '--trust'])}"
    )


# ---- several processes -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_of_two_devices_is_repeated_on_two(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    typed = [
        "data=synthetic",
        "data.train_size=128",
        "data.val_size=32",
        "data.test_size=32",
        "threads=1",
        "epochs=2",
        "trainer=cpu",
    ]
    assert main([*typed, "trainer.devices=2"]) == 0
    (path,) = Path("runs").glob("*/*")
    code, told, _ = reproduce(capsys, path)
    assert (code, told.splitlines()[-1]) == (0, f"equal: every metric, loss and accuracy of 2 epochs, {EQUAL}")
    assert second(RunDir(path)).outcome()["devices"] == 2
