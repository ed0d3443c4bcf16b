"""Whole runs: their files, their numbers, their mistakes, and accuracies that are known from books."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.data.datamodule import ImageData
from cnnbench.data.download.http import MirrorError
from cnnbench.errors import ConfigError, Diverged, Interrupted, RunFailed
from cnnbench.runs.load_net import load_net
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.run import run
from sweeps import Sweep


def weights(directory: RunDir, name: str = "best") -> dict:
    return torch.load(getattr(directory, name), weights_only=True)["state_dict"]


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def train(tmp_path, tiny):
    """Trains in an empty folder."""

    def run_in_folder(*overrides, base=tiny):
        return run(compose([*base, f"runs_dir={tmp_path / 'runs'}", *overrides]))

    return run_in_folder


# ---- the directory -----------------------------------------------------------------------------------------------


def test_a_finished_run_has_all_its_files(finished):
    names = {path.name for path in finished.path.iterdir() if "tfevents" not in path.name}
    assert names - {"test_reads.txt"} == {  # written by evaluate
        "config.yaml",
        "status.json",
        "result.json",
        "log.txt",
        "metrics.csv",
        "curves.png",
        "predictions.npz",
        "mistakes.npz",
        "checkpoints",
    }
    assert {path.name for path in (finished.path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert len(list(finished.path.glob("events.out.tfevents.*"))) == 1
    assert finished.status().state == "done"
    assert finished.path.parent.name == "lenet5_mnist5k"


def test_the_result_has_the_documented_keys(finished):
    result = json.loads(finished.result.read_text())
    assert set(result) == set(
        "schema status seed choices classes metrics best_epoch n split_hash label_hash params macs time samples_per_s precision devices "
        "threads numerics versions code git hardware command config_hash".split()
    )
    assert set(result["metrics"]) == {"best/val/acc", "best/val/loss", "last/val/acc", "test/acc", "test/loss"}
    assert result["n"] == {"train": 800, "val": 500, "test": 500}
    assert set(result["time"]) == {"fit_s", "data_wait_share"}
    assert (result["schema"], result["status"], result["seed"], result["devices"], result["threads"]) == (
        1,
        "done",
        0,
        1,
        1,
    )
    assert (result["params"], result["macs"], result["precision"]) == (61706, 416520, "32")
    assert result["command"] == "cnnbench threads=1"
    assert 0 <= result["time"]["data_wait_share"] < 1
    expected = {
        "deterministic": True,
        "tf32": False,
        "cudnn_benchmark": False,
        "channels_last": True,
        "compiled": False,
        "cuda_graph": False,
    }
    assert result["numerics"] == expected


def test_the_config_is_frozen_with_every_auto_resolved(finished):
    config = Config.load(finished.config)
    assert (config.data.image_size, config.data.mean, config.precision) == (32, [0.1307], "32")
    assert (config.deterministic, config.threads, config.trainer.accelerator) == (
        True,
        1,
        "cpu" if not torch.cuda.is_available() else "gpu",
    )
    assert "auto" not in [v for v in config.data.model_dump().values() if isinstance(v, str)]


def test_metrics_csv_has_one_row_an_epoch(finished):
    with finished.metrics.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert list(rows[0]) == [
        "epoch",
        "step",
        "train/loss",
        "train/acc",
        "val/loss",
        "val/acc",
        "val/ema_loss",
        "val/ema_acc",
        "lr",
        "epoch_s",
        "samples_per_s",
    ]
    assert [row["step"] for row in rows] == ["13", "26"]  # 800 images, batches of 64
    averaged = {"val/ema_loss", "val/ema_acc"}  # no averaged weights
    for row in rows:
        assert {column for column in row if not row[column]} == averaged
        assert all(float(row[column]) > 0 for column in row.keys() - averaged)


def test_the_learning_rate_in_metrics_is_that_of_the_epochs_last_step(finished):
    with finished.metrics.open() as file:
        logged = [float(row["lr"]) for row in csv.DictReader(file)]
    expected = [0.003 * (1 + math.cos(math.pi * (step - 1) / 26)) / 2 for step in (13, 26)]
    assert logged == pytest.approx(expected)


def test_curves_png_is_an_image(finished):
    with Image.open(finished.curves) as image:
        assert image.format == "PNG"
        assert image.width > 600
        assert len(image.convert("RGB").getcolors(100_000)) > 50  # not blank


def test_the_predictions_give_the_results_accuracy_and_loss(finished):
    predictions, result = np.load(finished.predictions), json.loads(finished.result.read_text())
    logits, targets = predictions["logits"].astype(np.float64), predictions["targets"]
    assert (logits.argmax(1) == targets).mean() == result["metrics"]["test/acc"]
    log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert -log_softmax[range(500), targets].mean() == pytest.approx(result["metrics"]["test/loss"], abs=1e-6)


def test_net_and_test_score_are_rebuilt_from_the_directory_alone(finished):
    from cnnbench.training.factories import build_data

    net, facts = load_net(finished.path)
    data = build_data(Config.load(finished.config))
    data.setup("test")
    with torch.no_grad():
        correct = sum((net(x).argmax(1) == y).sum().item() for x, y in data.loader("test"))
    assert correct / 500 == json.loads(finished.result.read_text())["metrics"]["test/acc"]
    assert facts["classes"] == list("0123456789")


def test_every_checkpoint_opens_with_weights_only(finished):
    best, last = (torch.load(path, weights_only=True) for path in (finished.best, finished.last))
    assert {"schema", "state_dict", "epoch", "val/acc", "config", "data"} <= set(best)
    assert {f"net.{key}" for key in best["state_dict"]} == set(last["state_dict"])


def test_the_log_has_one_line_an_epoch(finished):
    lines = finished.log.read_text().splitlines()
    assert sum("epoch 1/2" in line for line in lines) == 1
    assert sum("epoch 2/2" in line for line in lines) == 1


# ---- numbers -----------------------------------------------------------------------------------------------------


def test_the_same_config_gives_the_same_bits_in_a_second_directory(finished, quick):
    runs = finished.path.parents[1]
    again = run(compose([*quick, f"runs_dir={runs}", "name=again"])).directory
    assert again.path.name == finished.path.name
    assert equal(weights(finished), weights(again))
    ours, theirs = (json.loads(directory.result.read_text()) for directory in (finished, again))
    for key in ("metrics", "best_epoch", "split_hash", "config_hash"):
        assert ours[key] == theirs[key]
    logits = [np.load(directory.predictions)["logits"] for directory in (finished, again)]
    np.testing.assert_array_equal(*logits, strict=True)


@pytest.mark.slow
def test_another_seed_gives_other_weights_on_the_same_split(finished, quick):
    runs = finished.path.parents[1]
    other = run(compose([*quick, f"runs_dir={runs}", "seed=1"])).directory
    assert other.path.name.startswith("seed1_")
    assert not equal(weights(finished), weights(other))
    ours, theirs = (json.loads(directory.result.read_text()) for directory in (finished, other))
    assert ours["split_hash"] == theirs["split_hash"]


def test_the_tested_weights_are_those_that_were_best_on_validation(train):
    outcome = train("model=custom", "model._target_=nets.Peaking", "epochs=4", "data.train_size=640")
    assert outcome.result.best_epoch == 2
    metrics = outcome.result.metrics
    assert metrics["best/val/acc"] > 0.3 > metrics["last/val/acc"]
    assert metrics["test/acc"] > 0.3


def test_the_test_split_is_read_once_and_last(train, monkeypatch):
    reads = []
    original = ImageData.setup
    monkeypatch.setattr(ImageData, "setup", lambda self, stage: (reads.append(stage), original(self, stage))[1])
    from cnnbench.data.sets.synthetic import Synthetic

    read = Synthetic.read
    monkeypatch.setattr(
        Synthetic, "read", lambda self, official: (reads.append(f"read {official}"), read(self, official))[1]
    )
    train()
    assert reads == ["fit", "read train", "fit", "test", "read test"]


@pytest.mark.slow
def test_val_every_steps_validates_at_these_steps_and_at_the_end(train):
    outcome = train("epochs=3", "data.train_size=320", "trainer.val_every_steps=4")  # 5 steps an epoch
    state = torch.load(outcome.directory.last, weights_only=True)["callbacks"]["History"]
    assert [record["step"] for record in state["validations"]] == [4, 8, 12, 15]
    with outcome.directory.metrics.open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_max_steps_ends_a_run_in_mid_epoch_with_a_validation(train):
    outcome = train("epochs=5", "data.train_size=320", "trainer.max_steps=7")
    state = torch.load(outcome.directory.last, weights_only=True)["callbacks"]["History"]
    assert [record["step"] for record in state["validations"]] == [5, 7]
    assert outcome.result.best_epoch in (1, 2)


@pytest.mark.slow
def test_bf16_runs_on_a_cpu_and_is_recorded(train):
    assert train("precision=bf16").result.precision == "bf16"


@pytest.mark.slow
def test_synthetic_images_of_any_shape_can_be_trained_on(train):
    outcome = train(
        "model=simplecnn",
        "data.channels=5",
        "data.num_classes=3",
        "data.image_size=19",
        "epochs=6",
        "data.train_size=640",
    )
    assert outcome.result.metrics["test/acc"] > 0.6


def test_a_users_net_gets_the_facts_and_keys_that_it_has_parameters_for(train):
    outcome = train("model=custom", "model._target_=nets.Linear", "+model.hidden=5", "data.image_size=8")
    assert outcome.result.params == 64 * 5 + 5 + 5 * 10 + 10
    assert outcome.directory.path.parent.name == "custom_synthetic"


@pytest.mark.slow
def test_a_net_that_fails_on_the_meta_device_trains(train):
    assert train("model=custom", "model._target_=nets.NoMeta").result.params == 784 * 10 + 10


@pytest.mark.slow
def test_a_compiled_net_has_the_checkpoint_of_a_plain_one(train):
    compiled = train("compile=true", "name=compiled")
    assert weights(compiled.directory).keys() == weights(train().directory).keys()
    load_net(compiled.directory.path)
    assert compiled.result.numerics["compiled"] is True


@pytest.mark.slow
def test_without_a_compiler_the_net_trains_and_the_result_has_compiled_false(train, monkeypatch):
    def cannot(*_, **__):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", cannot)
    outcome = train("compile=true")
    assert outcome.result.numerics["compiled"] is False
    assert (
        "compile=true: PyTorch cannot compile here, the run continues uncompiled (no C++"
        in outcome.directory.log.read_text()
    )


# ---- mistakes ----------------------------------------------------------------------------------------------------

MISTAKES = {
    "data.image_size=16": r"data.image_size=16: LeNet5 takes images of 32×32 pixels; type data.image_size=32",
    "model=simplecnn data.image_size=7": r"SimpleCNN takes images of at least 8×8 pixels; type data.image_size=8",
    "data=mnist5k data.train_size=70000": r"data.train_size=70000: the split has 4500 images; type at most 4500",
    "data=mnist5k data.test_size=501": r"data.test_size=501: the split has 500 images; type at most 500",
    "model=custom model._target_=nets.WrongOutput": r"WrongOutput gives \(2, 7\) for a batch of 2, expected logits of shape \(2, 10\)",
    "model=custom model._target_=nets.WrongInput": r"WrongInput does not take images of 1×28×28 .*; change the net or data.image_size",
    "model=custom model._target_=nets.Absent": r"model._target_=nets.Absent: cannot be imported",
    "model=custom model._target_=nets.Linear +model.hiden=3": r"model.hiden: Linear takes no hiden; did you mean hidden\?",
    "model=custom model._target_=torch.nn.Flatten": r"Flatten gives \(2, 784\)",
    "model=custom model._target_=collections.Counter": r"makes a Counter, expected a torch.nn.Module",
    "model=custom model._target_=builtins.dict": r"model._target_=builtins.dict: its arguments are unknown",
    "optimizer.betas=[2,3]": r"optimizer: Adam\(.*\) is refused: Invalid beta parameter",
    "scheduler.final_lr=1": r"scheduler: cosine\(final_lr=1, warmup_epochs=0\) is refused",
    "precision=16": r"precision=16: half precision needs a GPU",
    "trainer=gpu": r"sees no GPU; type trainer=cpu",
    "data.mean=[0.1,0.2]": r"data.mean=\[0.1,0.2\]: synthetic has 1 channels",
    "data=fashionmnist data.root={tmp}/none": r"data=fashionmnist: not in .*/FashionMNIST/raw, and cannot be downloaded .*data=mnist5k",
    "runs_dir={tmp}/file": r"runs_dir: cannot write to .*file/lenet5_synthetic \(Not a directory\); choose another with runs_dir=",
    "data._target_=torch.nn.Linear": r"data._target_=torch.nn.Linear: expected a subclass",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_in_one_line_and_nothing_is_written(mistake, tmp_path, train, monkeypatch):
    if torch.cuda.is_available() and ("gpu" in mistake or "precision" in mistake):
        pytest.skip("not a mistake on a machine with a GPU")
    monkeypatch.setattr("cnnbench.data.download.fetch.download", no_network)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=MISTAKES[mistake]) as raised:
        train(*mistake.format(tmp=tmp_path).split())
    first, *files = str(raised.value).split("\n")
    assert not files or "Put these files there" in first
    assert not list(tmp_path.glob("**/config.yaml"))
    assert not list(tmp_path.glob("**/status.json"))


def no_network(name, remote, folder, failed):
    raise MirrorError("no network in a test")


def test_a_net_that_calls_sys_exit_fails_the_run(train, tmp_path):
    with pytest.raises(RunFailed, match=r"failed, something in it called sys.exit\(7\); the traceback is in .*log.txt"):
        train("model=custom", "model._target_=nets.Quitting", "data.train_size=640")
    (path,) = (tmp_path / "runs").glob("*/*/status.json")
    assert json.loads(path.read_text())["state"] == "failed"


def test_a_failed_run_has_its_reason_and_no_result(train, tmp_path):
    with pytest.raises(RunFailed, match=r"failed, RuntimeError: out of luck; the traceback is in .*log.txt") as raised:
        train("model=custom", "model._target_=nets.Raising", "data.train_size=640")
    directory = RunDir(next((tmp_path / "runs").glob("*/*")))
    assert raised.value.exit_code == 3
    assert directory.status().state == "failed"
    assert directory.status().reason == "RuntimeError: out of luck"
    assert not directory.result.exists()
    assert "Traceback" in directory.log.read_text()


def test_ctrl_c_interrupts_a_run(train, tmp_path):
    with pytest.raises(Interrupted, match=r"stopped by SIGINT. To resume: cnnbench resume=") as raised:
        train("model=custom", "model._target_=nets.Impatient")
    directory = RunDir(next((tmp_path / "runs").glob("*/*")))
    assert (raised.value.exit_code, directory.status().state) == (130, "interrupted")


def test_a_diverged_run_has_no_result(train, tmp_path):
    with pytest.raises(
        Diverged, match=r"diverged, the training loss is nan in step 1, lr 0.003; try a smaller"
    ) as raised:
        train("model=custom", "model._target_=nets.Diverging")
    directory = RunDir(next((tmp_path / "runs").glob("*/*")))
    assert (raised.value.exit_code, directory.status().state, directory.result.exists()) == (3, "diverged", False)


# ---- the figures of the README -----------------------------------------------------------------------------------


@pytest.mark.soak
def test_the_default_run_reaches_96_percent_for_nine_of_ten_seeds(tmp_path):
    sweep = Sweep(tmp_path, "seed=range(10)", "threads=1", "name=swept")
    assert sweep.wait(600) == 0, sweep.err
    scores = [json.loads(run.result.read_text())["metrics"]["test/acc"] for run in sweep.runs().values()]
    assert sum(score >= 0.96 for score in scores) >= 9, scores


@pytest.mark.slow
@pytest.mark.parametrize(
    ("init", "low", "high"),
    [
        ("paddle", 0.86, 0.93),
        pytest.param("paddle_create", 0.79, 0.88, marks=pytest.mark.soak),
        pytest.param("torch", 0.0, 0.55, marks=pytest.mark.soak),
    ],
)
def test_the_books_lenet_experiment_gives_the_books_accuracies(init, low, high, real_data, tmp_path):
    base = [
        "recipe=nndl_lenet",
        "data=mnist",
        f"data.root={real_data}",
        "data.train_size=1000",
        "data.val_size=[50000,50200]",
    ]
    base += ["data.test_size=200", f"init={init}", "threads=1", f"runs_dir={tmp_path}"]
    scores = [run(compose([*base, f"seed={seed}"])).result.metrics["test/acc"] for seed in range(10)]
    assert low <= np.mean(scores) <= high, scores


@pytest.mark.soak
@pytest.mark.parametrize(
    ("model", "lr", "low", "high"), [("plain18", 0.005, 0.78, 0.85), ("resnet18", 0.01, 0.85, 0.91)]
)
def test_the_books_resnet_experiment_gives_the_books_accuracies(model, lr, low, high, real_data, tmp_path):
    base = [
        *("recipe=nndl_resnet", f"model={model}", "model.stem=imagenet", "model.stem_bias=true", f"optimizer.lr={lr}"),
        *("data=mnist", f"data.root={real_data}", "data.train_size=1000", "data.val_size=[50000,50200]"),
        *("data.test_size=200", "threads=1", f"runs_dir={tmp_path}"),
    ]
    scores = [run(compose([*base, f"seed={seed}"])).result.metrics["test/acc"] for seed in range(5)]
    assert low <= np.mean(scores) <= high, scores


@pytest.mark.soak
def test_bf16_is_as_accurate_as_32_bits(tmp_path):
    base = ["trainer=cpu", "threads=1", "epochs=5", f"runs_dir={tmp_path}"]
    scores = {
        precision: [
            run(compose([*base, f"precision={precision}", f"seed={seed}"])).result.metrics["test/acc"]
            for seed in range(5)
        ]
        for precision in ("32", "bf16")
    }
    differences = np.subtract(scores["bf16"], scores["32"])
    assert abs(differences.mean()) <= 2.776 * np.std(differences, ddof=1) / np.sqrt(5) + 0.002, scores  # t, 4 degrees


@pytest.mark.parametrize("optimizer", ["adam", pytest.param("rmsprop", marks=pytest.mark.slow)])
def test_bf16_clips_gradients(train, optimizer):
    assert train("precision=bf16", "clip_grad=0.5", f"optimizer={optimizer}").result.precision == "bf16"
