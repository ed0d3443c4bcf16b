"""Runs on image folders: train, evaluate, predict; also real photographs."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder as TorchvisionFolder

from cnnbench.config.compose import compose
from cnnbench.data.sets.imagefolder import ImageFolder
from cnnbench.runs.load_net import load_net
from cnnbench.training.run import run
from cnnbench.training.validate import prepare
from picturefolders import (  # noqa: F401
    FITS,
    NET,
    built,
    command,
    folders,
    loaded,
    names,
    nothing_decoded_yet,
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Two classes of images that are not square: light and dark, with noise."""
    top = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (top / name).mkdir()
        for number in range(30):
            pixels = np.clip(random.normal(level, 60, (12, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(top / name / f"{number:02}.png")
    return top


def test_a_key_that_the_folders_make_useless_gets_a_warning(tmp_path):
    flat = {"a": 20, "b": 20}
    parts = {f"{split}/{name}": 8 for split in ("train", "val", "test") for name in "ab"}
    keys = ["model=lenet5", "data=imagefolder", "batch_size=4", "data.split_seed=1", "data.test_share=0.3"]

    def unused(counts: dict[str, int], name: str) -> list[str]:
        prepared = prepare(compose([*keys, f"data.root={folders(tmp_path / name, counts)}"]))
        return [warning.partition(": has no effect here")[0] for warning in prepared.warnings]

    assert unused(flat, "flat") == []
    assert unused(parts, "parts") == ["data.split_seed=1", "data.test_share=0.3"]


@pytest.mark.slow
@pytest.mark.parametrize("fit", FITS)
def test_predict_gives_the_probabilities_of_the_test(photographs, tmp_path, capsys, fit):
    overrides = [f"data.root={photographs}", f"data.fit={fit}", f"runs_dir={tmp_path / 'runs'}", "epochs=2"]
    directory = run(compose([*NET, *overrides])).directory
    data = loaded(photographs, fit=fit)
    saved = np.load(directory.predictions)
    expected = torch.from_numpy(saved["logits"]).softmax(1).numpy()
    paths = [photographs / name for name in names(data, "test")]
    code, out, _ = command(capsys, "predict", directory.path, *paths, "--top", 2, "--json")
    assert code == 0
    for row, prediction in zip(expected, json.loads(out)["predictions"], strict=True):
        answer = {top["index"]: top["probability"] for top in prediction["top"]}
        assert [answer[0], answer[1]] == pytest.approx(row.tolist(), abs=1e-5 if fit == "crop" else 0.02)
    assert load_net(directory.path)[1]["fit"] == fit


@pytest.fixture(scope="module")
def oddly_named(tmp_path_factory) -> tuple[Path, Path]:
    """A run on classes with unusual names, and one of their images."""
    top = tmp_path_factory.mktemp("odd names")
    folders(top, {"[red]": 6, os.fsdecode(b"A\xe9"): 6, "$x$": 6})
    config = compose([*NET, f"data.root='{top}'", f"runs_dir='{top.parent / '[bold] runs'}'"])
    return run(config).directory.path, top / "$x$" / "000.png"


@pytest.mark.slow
def test_evaluate_prints_class_names_unchanged(oddly_named, capsys):
    code, out, err = command(capsys, "evaluate", oddly_named[0])
    assert (code, err) == (0, "")
    printed = [line.split()[0] for line in out.splitlines()[-3:]]
    assert (printed[0], printed[1][0], printed[2]) == ("$x$", "A", "[red]")


def test_predict_prints_class_names_unchanged(oddly_named, tmp_path, capsys):
    code, out, err = command(capsys, "predict", *oddly_named, "--show", tmp_path / "answer.png")
    assert (code, err) == (0, "")
    assert all(re.search(rf"{name} 0\.", out) for name in (r"\$x\$", r"\[red\]", r"A\S+"))
    assert (tmp_path / "answer.png").is_file()


def test_a_run_directory_of_any_name_is_printed_unchanged(oddly_named, capsys):
    directory, _ = oddly_named
    assert "[bold] runs" in str(directory)
    assert command(capsys, "evaluate", directory)[1].startswith(f"{directory} on imagefolder, test")


def test_a_frozen_config_has_the_absolute_folder_the_size_and_the_measured_mean(photographs, tmp_path, monkeypatch):
    monkeypatch.chdir(photographs.parent)
    overrides = [f"data.root={photographs.name}", f"runs_dir={tmp_path / 'runs'}", "data.image_size=12"]
    frozen = prepare(compose([*NET, *overrides])).config.data
    assert frozen.root == str(photographs)
    assert (frozen.image_size, frozen.fingerprint) == (12, built(photographs).fingerprint)
    assert frozen.mean == loaded(photographs, image_size=12).mean


def test_a_moved_folder_gives_the_same_identity(photographs, tmp_path):
    moved = shutil.copytree(photographs, tmp_path / "moved")
    one, other = (prepare(compose([*NET, f"data.root={top}"])).config for top in (photographs, moved))
    assert one.identity() == other.identity()


@pytest.fixture(scope="module")
def cifar(real_data) -> Path:
    folder = real_data / "cifar10_images"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


@pytest.fixture(scope="module")
def photos(cifar) -> ImageFolder:
    return loaded(cifar)


@pytest.mark.slow
def test_cifar_folders_have_ten_classes_and_five_thousand_images(photos):
    assert photos.classes == tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
    assert {part: len(images) for part, images in photos.images.items()} == {"train": 3600, "val": 400, "test": 1000}
    assert photos.shape == (3, 32, 32)


@pytest.mark.slow
def test_cifar_images_and_labels_equal_those_of_torchvision_and_pil(photos, cifar):
    for part in ("train", "test"):
        reference = TorchvisionFolder(str(cifar / part))
        known = dict(reference.samples)
        for row in range(0, len(photos.indices[part]), 97):
            name = names(photos, part)[row]
            assert known[str(cifar / name)] == photos.images[part].labels[row]
            expected = np.asarray(Image.open(cifar / name).convert("RGB"))
            np.testing.assert_array_equal(photos.images[part].pixels[row].permute(1, 2, 0).numpy(), expected)


@pytest.mark.slow
def test_cifar_mean_and_standard_deviation_equal_numpys(photos):
    pixels = photos.images["train"].pixels.numpy() / 255
    np.testing.assert_allclose(photos.mean, pixels.mean((0, 2, 3)), atol=1e-9)
    np.testing.assert_allclose(photos.std, pixels.std((0, 2, 3)), atol=1e-9)


@pytest.mark.slow
def test_cifar_validation_is_stratified(photos):
    assert torch.bincount(photos.images["val"].labels).tolist() == [40] * 10
    assert torch.bincount(photos.images["train"].labels).tolist() == [360] * 10


@pytest.mark.slow
def test_a_folder_without_a_test_folder_is_cut_into_three_splits(cifar):
    data = built(cifar / "train")
    data.prepare_data()
    assert (data.count("train"), data.count("test")) == (3200, 800)
    assert np.bincount(data.labels("test")).tolist() == [80] * 10


@pytest.mark.slow
def test_cifar_folders_can_be_trained_on(cifar, tmp_path):
    overrides = [f"data.root={cifar}", "data.train_size=256", "data.test_size=100", f"runs_dir={tmp_path / 'runs'}"]
    outcome = run(compose([*NET, *overrides]))
    assert outcome.result.n == {"train": 256, "val": 400, "test": 100}
