"""Commands on runs and a sweep that version 0.1.0 made before the package's modules moved.

`fixtures/before` was made by these commands, on one thread of the machine that its result.json files name; large files that no test
needs were removed. `uninterrupted` is the same run as `interrupted`, never stopped.

    C="trainer=cpu precision=32 threads=1 data.train_size=1000 data.val_size=200"
    python -m cnnbench $C name=done model=lenet_3x3 augment=[crop,light] epochs=5 optimizer=adamw optimizer.lr=0.01 \
        scheduler=onecycle ema=0.9 mixup=0.2 label_smoothing=0.1
    python -m cnnbench $C name=interrupted model=resnet20 model.depth=8 augment=[crop,flip] scheduler=cosine scheduler.warmup_epochs=1 \
        ema=0.9 cutmix=1.0 optimizer=nesterov optimizer.lr=0.05 epochs=6 trainer.val_every_steps=10 seed=3    # SIGTERM in epoch 4
    python -m cnnbench -m $C name=sweep model=lenet_3x3 model.pooling=max,mean optimizer.lr=0.005 scheduler=cosine epochs=4 \
        sweep.seeds=2 sweep.baseline={model.pooling:max}
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from cnnbench.__main__ import main
from cnnbench.config.compose import compose
from cnnbench.runs.environment import bit_determining_environment
from cnnbench.runs.load_net import load_checkpoint, load_net
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.run import run

BEFORE = Path(__file__).parent / "fixtures" / "before"
SAME_BITS = ("python", "torch", "numpy", "pytorch-lightning")  # versions that must match for equal bits
COMMON = "trainer=cpu precision=32 threads=1 data.train_size=1000 data.val_size=200".split()
DONE = (
    "name=done model=lenet_3x3 augment=[crop,light] epochs=5 optimizer=adamw optimizer.lr=0.01 scheduler=onecycle ema=0.9 "
    "mixup=0.2 label_smoothing=0.1"
).split()
SWEEP = (
    "name=sweep model=lenet_3x3 model.pooling=max,mean optimizer.lr=0.005 scheduler=cosine epochs=4 sweep.seeds=2 "
    "sweep.baseline={model.pooling:max}"
).split()


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """A copy of the earlier runs, as `runs` in the current folder."""
    shutil.copytree(BEFORE, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return Path("runs")


def only(folder: Path) -> RunDir:
    [path] = [path for path in folder.iterdir() if path.is_dir()]
    return RunDir(path)


def same_machine() -> bool:
    """Whether processor and versions equal those of the earlier runs."""
    result = json.loads((BEFORE / "uninterrupted" / "result.json").read_text())
    now = bit_determining_environment()
    return result["hardware"]["cpu"] == now["processor"] and all(
        result["versions"][name] == now[name] for name in SAME_BITS
    )


def printed(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_evaluate_measures_the_earlier_accuracy(runs, capsys):
    run_dir = only(runs / "done")
    accuracy = run_dir.load_result().metrics["test/acc"]
    assert f"{accuracy:.4f}" in printed(capsys, "evaluate", str(run_dir.path))


@pytest.mark.parametrize("average", [False, True])
def test_the_loaded_net_computes_the_earlier_logits(runs, average):
    from cnnbench.training.validate import prepare

    run_dir = only(runs / "done")
    net, facts = load_net(run_dir.path, ema=average)
    config = compose([*COMMON, *DONE])
    data = prepare(config).data
    data.setup("test")
    images = data.images["test"].source[data.images["test"].rows].float() / 255
    with torch.no_grad():
        logits = net((images - torch.tensor(facts["mean"])[:, None, None]) / torch.tensor(facts["std"])[:, None, None])
    correct = (logits.argmax(dim=1) == data.images["test"].labels).float().mean().item()
    assert correct == pytest.approx(run_dir.load_result().metrics["test/ema_acc" if average else "test/acc"])
    if not average:
        kept = np.load(run_dir.predictions)
        np.testing.assert_allclose(logits.numpy(), kept["logits"], atol=1e-5)


def test_predict_names_the_class(runs, capsys, tmp_path):
    from PIL import Image

    from cnnbench.training.validate import prepare

    data = prepare(compose([*COMMON, *DONE])).data
    data.setup("test")
    kept = np.load(only(runs / "done").predictions)
    sure = int(kept["logits"].max(axis=1).argmax())
    Image.fromarray(data.images["test"].source[data.images["test"].rows[sure]][0].numpy()).save(tmp_path / "digit.png")
    out = printed(capsys, "predict", str(only(runs / "done").path), str(tmp_path / "digit.png"))
    assert str(kept["logits"][sure].argmax()) in out


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_result_of_the_uninterrupted_one(runs):
    directory, screen = only(runs / "interrupted"), io.StringIO()
    from cnnbench.config.schema import Config

    config = Config.load(directory.config).model_copy(update={"resume": str(directory.path)})
    outcome = run(config, console=Console(file=screen, width=1000))
    expected = json.loads((BEFORE / "uninterrupted" / "result.json").read_text())
    assert outcome.directory.path == directory.path
    assert "saved by an earlier version of cnnbench" in screen.getvalue()
    rows, whole = (
        list(csv.DictReader(path.open())) for path in (directory.metrics, BEFORE / "uninterrupted" / "metrics.csv")
    )
    names = [name for name in whole[0] if name not in ("epoch_s", "samples_per_s")]
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in whole]
    if same_machine():
        assert outcome.result.metrics == expected["metrics"]
        assert [[row[name] for name in names] for row in rows] == [[row[name] for name in names] for row in whole]


def test_a_checkpoint_holds_the_environment_in_which_it_was_saved(tmp_path, tiny, monkeypatch):
    from cnnbench.training import resume as resuming
    from cnnbench.training.callbacks.curves import Curves

    monkeypatch.setattr(Curves, "draw", lambda self: None)
    directory = run(compose([*tiny, f"runs_dir={tmp_path}"])).directory
    content = load_checkpoint(directory.last)
    assert content["callbacks"]["Checkpoints"]["environment"] == bit_determining_environment()
    assert resuming.environment_changes(content) == ""
    content["callbacks"]["Checkpoints"]["environment"]["torch"] = "2.0.0"
    assert resuming.environment_changes(content) == f"saved with torch 2.0.0, now {torch.__version__.partition('+')[0]}"


def test_a_repetition_is_equal_or_names_what_differs(runs, capsys):
    code = main(["reproduce", str(only(runs / "done").path)])
    out = capsys.readouterr().out
    if same_machine():
        assert code == 0
        assert "equal: " in out
        assert "bit for bit" in out
    else:
        assert code in (0, 1)
        assert "not bit-equal; compared: every metric" in out
        assert "possible causes:" in out


def test_the_same_run_typed_again_is_done(runs):
    outcome = run(compose([*COMMON, *DONE, "resume=auto"]))
    assert not outcome.fresh
    assert outcome.directory.path.name == only(runs / "done").path.name


def test_the_same_sweep_typed_again_has_nothing_to_do(in_this_process, runs, capsys):
    out = printed(capsys, "-m", *COMMON, *SWEEP)
    assert "4 done already, nothing to run" in out
    listed = json.loads((runs / "sweep" / "sweep.json").read_text())["jobs"]
    assert {job["directory"] for job in listed} == {path.name for path in (runs / "sweep").iterdir() if path.is_dir()}


def test_more_seeds_are_added_to_the_sweep(in_this_process, runs, capsys):
    out = printed(capsys, "plan", *COMMON, *(key.replace("seeds=2", "seeds=3") for key in SWEEP))
    assert "6 jobs, 4 done already, 2 to run" in out


def test_report_shows_the_earlier_settings_and_means(runs, capsys):
    before = {}
    for job in json.loads((runs / "sweep" / "sweep.json").read_text())["jobs"]:
        result = json.loads((runs / "sweep" / job["directory"] / "result.json").read_text())
        before.setdefault(job["setting"]["model.pooling"], []).append(result["metrics"]["test/acc"])
    out = printed(capsys, "report", "--text", str(runs / "sweep"))
    for pooling, accuracies in before.items():
        [line] = [line for line in out.splitlines() if line.startswith(f"pooling {pooling} ")]
        assert f"{statistics.mean(accuracies):.4f}" in line
        assert f" {len(accuracies)} " in line


def test_compare_finds_no_difference_between_an_earlier_sweep_and_its_copy(runs, capsys):
    shutil.copytree(runs / "sweep", runs / "again")
    for config in runs.glob("again/*/config.yaml"):  # as this version writes it
        config.write_text(
            config.read_text().replace("cnnbench.data.sets.mnist5k.MNIST5k", "cnnbench.elsewhere.MNIST5k")
        )
    out = printed(capsys, "compare", str(runs / "sweep"), str(runs / "again"))
    assert "_target_" not in out
    assert "MNIST5k" not in out


def test_a_sweep_named_by_an_earlier_version_keeps_its_name(in_this_process, runs, capsys):
    keys = "model=lenet_3x3 model.pooling=max,mean trainer=cpu precision=32 threads=1".split()
    assert "runs/pooling_74dc6013: " in printed(capsys, "plan", *keys)
    shutil.copytree(runs / "sweep", runs / "pooling_c53c4186")
    sweep = runs / "pooling_c53c4186" / "sweep.json"
    record = json.loads(sweep.read_text())
    sweep.write_text(json.dumps({**record, "fixed": {}, "jobs": []}))
    assert "runs/pooling_c53c4186: holds another sweep" in failed(capsys, "plan", *keys)


def failed(capsys, *arguments: str) -> str:
    """The error message of a command that is refused."""
    assert main(list(arguments)) == 2
    return capsys.readouterr().err
