"""The misclassified test images that a run saves."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import log_softmax

from cnnbench.config.compose import compose
from cnnbench.data.loader import Images
from cnnbench.training.misclassified import MAX_IMAGES, misclassified_indices, stored_pixels
from cnnbench.training.run import run
from picturefolders import NET, folders


def pixels(n: int, side: int, channels: int = 1) -> Images:
    values = np.random.default_rng(0).integers(0, 256, (n, channels, side, side), dtype=np.uint8)
    return Images(torch.from_numpy(values), torch.zeros(n, dtype=torch.int64))


def test_all_misclassified_images_are_saved_the_highest_loss_first(finished):
    predictions = np.load(finished.predictions)
    logits, targets = predictions["logits"], predictions["targets"]
    loss = -log_softmax(logits.astype(np.float64), 1)[np.arange(len(targets)), targets]
    wrong = np.flatnonzero(logits.argmax(1) != targets)
    kept = np.load(finished.mistakes)["index"]
    assert kept.dtype == np.int64
    assert kept.tolist() == wrong[np.argsort(-loss[wrong], kind="stable")][:MAX_IMAGES].tolist()


def test_the_number_of_misclassified_images_agrees_with_the_accuracy(finished):
    result = json.loads(finished.result.read_text())
    wrong = round((1 - result["metrics"]["test/acc"]) * result["n"]["test"])
    assert len(np.load(finished.mistakes)["index"]) == min(wrong, MAX_IMAGES)


def test_the_result_names_the_classes_in_the_order_of_the_logits(finished):
    assert json.loads(finished.result.read_text())["classes"] == [str(digit) for digit in range(10)]


def test_saved_pixels_equal_those_of_the_image_files(tmp_path):
    names = ['<script>"quoted"', "naïve 中文", "c"]
    top = folders(tmp_path / "set", dict.fromkeys(names, 10), 20, 20)
    directory = run(compose([*NET, f"data.root='{top}'", f"runs_dir={tmp_path}"])).directory
    files = [np.asarray(Image.open(path)).tolist() for path in top.glob("*/*.png")]
    kept = np.load(directory.mistakes, allow_pickle=False)
    assert kept["images"].dtype == np.uint8
    assert kept["images"].shape == (len(kept["index"]), 20, 20, 3)
    assert len(kept["index"])
    assert all(image.tolist() in files for image in kept["images"])
    assert json.loads(directory.result.read_text())["classes"] == sorted(names)


def test_a_large_image_is_shrunk_to_64_pixels_and_a_small_one_is_not():
    index = torch.tensor([1, 0])
    assert stored_pixels(pixels(2, 100, 3), index).shape == (2, 64, 64, 3)
    small = pixels(2, 28)
    assert np.array_equal(stored_pixels(small, index)[..., 0], small.source[[1, 0], 0].numpy())


@pytest.mark.parametrize("side", [28, 100])
def test_a_net_without_misclassified_images_saves_none(side):
    index = misclassified_indices(torch.eye(3), torch.arange(3))
    assert stored_pixels(pixels(3, side), index).shape[0] == 0


def test_at_most_200_images_are_saved(finished, tmp_path):
    overrides = [
        "threads=1",
        "epochs=1",
        "data=synthetic",
        "data.train_size=64",
        "data.val_size=10",
        "data.test_size=400",
    ]
    directory = run(compose([*overrides, f"runs_dir={tmp_path}"])).directory
    kept = np.load(directory.mistakes)
    assert len(kept["index"]) == len(kept["images"]) == 200
