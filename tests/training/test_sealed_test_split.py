"""The test split takes no part in training: it is read once, after the fit, and changes no bit of weights or curves."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer

from cnnbench.__main__ import main
from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.data.datamodule import ImageData
from cnnbench.data.loader import Images
from cnnbench.data.sets.idx import IdxData
from cnnbench.data.sets.imagefolder import ImageFolder
from cnnbench.data.sets.mnist5k import MNIST5k
from cnnbench.data.sets.synthetic import Synthetic
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.run import run
from datafiles import idx, write_idx

MNIST_NET = [
    "threads=1",
    "epochs=2",
    "data=mnist",
    "model=simplecnn",
    "trainer=cpu",
    "batch_size=16",
    "data.val_size=20",
]


def weights(directory: RunDir, name: str) -> dict[str, torch.Tensor]:
    return torch.load(getattr(directory, name), weights_only=True)["state_dict"]


def trained(runs: Path, root: Path, *overrides: str) -> RunDir:
    return run(compose([*MNIST_NET, f"data.root={root}", f"runs_dir={runs}", *overrides])).directory


def assert_same_training(one: RunDir, other: RunDir) -> None:
    """Asserts that weights, curves and validations are equal to the bit."""
    for name in ("best", "last"):
        first, second = weights(one, name), weights(other, name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    curves = [[row[:7] for row in csv.reader(directory.metrics.open())] for directory in (one, other)]
    assert curves[0] == curves[1]
    results = [json.loads(directory.result.read_text()) for directory in (one, other)]
    for key in ("best/val/acc", "best/val/loss", "last/val/acc"):
        assert results[0]["metrics"][key] == results[1]["metrics"][key]
    for key in ("best_epoch", "label_hash"):
        assert results[0][key] == results[1][key]


# ---- when it is read -------------------------------------------------------------------------------------------------


@pytest.fixture
def events(monkeypatch, tmp_path) -> list[str]:
    """The events of a run, in order: a fit or a test begins or ends, a split is read, labelled, decoded, or cut into batches."""
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "nothing_decoded_yet"))
    found: list[str] = []

    def noting(owner, name, label):
        whole = getattr(owner, name)

        def wrapped(self, *arguments, **keys):
            found.append(label(*arguments))
            return whole(self, *arguments, **keys)

        monkeypatch.setattr(owner, name, wrapped)

    for owner in (MNIST5k, Synthetic, IdxData):
        noting(owner, "read", lambda official: f"read {official}")
    for owner in (ImageData, ImageFolder, Synthetic):
        noting(owner, "labels", lambda official: f"labels {official}")
    for owner in (ImageData, ImageFolder):
        noting(owner, "decoder", lambda official, side: f"decode {official}")
    noting(ImageData, "loader", lambda split, shuffle=False: f"batches {split}")
    for name in ("fit", "test"):
        whole = getattr(Trainer, name)

        def around(self, *arguments, whole=whole, name=name, **keys):
            found.append(f"{name} begins")
            whole(self, *arguments, **keys)
            found.append(f"{name} ends")

        monkeypatch.setattr(Trainer, name, around)
    return found


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Class folders without a test folder."""
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(15):
            pixels = np.random.default_rng([number, len(name + name)]).integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize(
    "data", ["mnist5k", "imagefolder", *(pytest.param(name, marks=pytest.mark.slow) for name in ("synthetic", "mnist"))]
)
def test_the_test_split_is_read_once_after_the_fit(events, tmp_path, pictures, data):
    write_idx(tmp_path / "small", 120, 40)
    chosen = {
        "mnist5k": ["data=mnist5k", "data.train_size=64"],
        "synthetic": ["data=synthetic", "data.train_size=64", "data.val_size=20", "data.test_size=20"],
        "mnist": ["data=mnist", f"data.root={tmp_path / 'small'}"],
        "imagefolder": ["data=imagefolder", f"data.root={pictures}"],
    }[data]
    run(compose(["threads=1", "epochs=1", "model=simplecnn", "trainer=cpu", *chosen, f"runs_dir={tmp_path / 'runs'}"]))
    ended = events.index("fit ends")
    assert [event for event in events[:ended] if event.endswith(" test")] == []
    assert events.index("fit begins") < ended < events.index("test begins")
    after = events[ended:]
    assert after.count("batches test") == 1
    assert after.count("read test") <= 1
    assert after.count("decode test") <= 1
    assert {"batches test", "labels test"} <= set(after)
    assert [event for event in after if event.endswith((" train", " val"))] == []


@pytest.mark.slow
def test_without_the_test_images_a_run_trains_until_its_test(tmp_path, monkeypatch):
    write_idx(tmp_path / "small", 120, 40)
    whole = IdxData.read

    def read(self, official):
        assert official == "train", "the test split was read"
        return whole(self, official)

    monkeypatch.setattr(IdxData, "read", read)
    config = compose([*MNIST_NET, f"data.root={tmp_path / 'small'}", f"runs_dir={tmp_path / 'runs'}"])
    with pytest.raises(Exception, match="the test split was read"):
        run(config)
    (directory,) = (RunDir(path.parent) for path in (tmp_path / "runs").rglob("config.yaml"))
    assert directory.status().state == "failed"
    assert len(list(csv.DictReader(directory.metrics.open()))) == 2
    assert weights(directory, "best")


@pytest.mark.slow
def test_the_test_images_are_scored_once_with_the_best_weights(finished, monkeypatch, tmp_path, quick):
    seen = []
    whole = Images.batch

    def batch(self, at):
        pixels, labels = whole(self, at)
        if len(self) == 500 and torch.equal(self.labels, test_labels):
            seen.append(len(labels))
        return pixels, labels

    test_labels = MNIST5k().read("test").labels
    monkeypatch.setattr(Images, "batch", batch)
    directory = run(compose([*quick, f"runs_dir={tmp_path / 'runs'}"])).directory
    assert sum(seen[:4]) == 500  # then the misclassified ones, for mistakes.npz
    assert sum(seen[4:]) < 500 / 2
    saved = [np.load(one.predictions)["logits"] for one in (directory, finished)]
    np.testing.assert_array_equal(*saved)


# ---- what depends on it --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[RunDir, Path]:
    """A run on synthetic images, and their folder."""
    folder = tmp_path_factory.mktemp("first")
    write_idx(folder, 120, 40)
    return trained(folder / "runs", folder), folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", ["both", *(pytest.param(change, marks=pytest.mark.slow) for change in ("images", "labels", "fewer"))]
)
def test_another_test_split_changes_no_weight_curve_or_validation(first, tmp_path, change):
    before, root = first
    shutil.copytree(root / "MNIST", tmp_path / "MNIST")
    random = np.random.default_rng(7)
    n = 11 if change == "fewer" else 40
    if change != "labels":
        images = random.integers(0, 256, (n, 28, 28))
        (tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(idx(images))
    if change != "images":
        (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(idx(random.integers(0, 10, n)))
    after = trained(tmp_path / "runs", tmp_path)
    configs = [Config.load(directory.config) for directory in (before, after)]
    assert configs[0].data.fingerprint != configs[1].data.fingerprint
    assert_same_training(before, after)
    logits = [np.load(directory.predictions)["logits"] for directory in (before, after)]
    assert np.array_equal(*logits) == (change == "labels")


@pytest.mark.slow
def test_another_training_image_gives_other_weights(first, tmp_path):
    before, root = first
    shutil.copytree(root / "MNIST", tmp_path / "MNIST")
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[16 + 784 * 60 : 16 + 784 * 61] = bytes(784)
    path.write_bytes(content)
    after = trained(tmp_path / "runs", tmp_path)
    one, other = weights(before, "last"), weights(after, "last")
    assert not all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_test_images_do_not_influence_size_mean_and_weights(tmp_path):
    random = np.random.default_rng(0)
    tops = [tmp_path / "one", tmp_path / "other"]
    for top in tops:
        for split, name in ((split, name) for split in ("train", "test") for name in ("cat", "dog")):
            (top / split / name).mkdir(parents=True)
    for name in ("cat", "dog"):
        for number in range(12):
            image = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
            for top in tops:
                image.save(top / "train" / name / f"{number}.png")
        for number in range(4):
            Image.new("RGB", (12, 12), "black").save(tops[0] / "test" / name / f"{number}.png")
        for number in range(40):
            Image.new("L", (50, 90), 255).save(tops[1] / "test" / name / f"{number}.png")
    overrides = ["threads=1", "epochs=2", "data=imagefolder", "model=simplecnn", "trainer=cpu", "batch_size=8"]
    runs = [run(compose([*overrides, f"data.root={top}", f"runs_dir={top}_runs"])).directory for top in tops]
    one, other = (Config.load(directory.config).data for directory in runs)
    assert (one.image_size, one.mean, one.std) == (other.image_size, other.mean, other.std)
    best = [weights(directory, "best") for directory in runs]
    assert all(torch.equal(best[0][key], best[1][key]) for key in best[0])


# ---- other commands --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val"])
def test_evaluating_another_split_does_not_read_the_test_split(events, finished, capsys, split):
    assert main(["evaluate", str(finished.path), "--split", split]) == 0
    assert [event for event in events if event.endswith(" test")] == []


def test_info_does_not_read_the_test_split(events, capsys):
    assert main(["info", "data=mnist5k"]) == 0
    assert [event for event in events if event.endswith(" test")] == []
