"""Synthetic images: shapes, seeds, learnability and invalid keys."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier

from cnnbench.data.sets.synthetic import Synthetic
from cnnbench.errors import ConfigError
from datafiles import equal, ready

SMALL = {"train_size": 60, "val_size": 20, "test_size": 30}


def made(**keys) -> Synthetic:
    return ready(Synthetic(**{**SMALL, **keys}))


@pytest.mark.parametrize(("channels", "classes", "size"), [(1, 2, 1), (3, 10, 2), (5, 7, 5), (1, 10, 28), (3, 7, 33)])
def test_synthetic_images_have_any_shape_and_number_of_classes(channels, classes, size):
    data = made(channels=channels, num_classes=classes, image_size=size)
    assert data.shape == (channels, size, size)
    assert data.images["train"].pixels.shape == (60, channels, size, size)
    assert data.images["train"].pixels.dtype == torch.uint8
    assert set(data.images["train"].labels.tolist()) == set(range(classes))
    assert next(iter(data.train_dataloader()))[0].shape == (60, channels, size, size)


def test_synthetic_splits_have_the_given_sizes():
    assert {split: len(images) for split, images in made().images.items()} == {"train": 60, "val": 20, "test": 30}


def test_synthetic_labels_run_through_the_classes():
    assert made(num_classes=4).images["train"].labels.tolist() == [0, 1, 2, 3] * 15


def test_synthetic_images_depend_on_the_seed_and_not_on_global_generators():
    torch.manual_seed(1)
    np.random.seed(1)
    one = made(seed=3)
    torch.manual_seed(2)
    np.random.seed(2)
    other = made(seed=3)
    assert all(equal(one.images[split], other.images[split]) for split in ("train", "val", "test"))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_another_seed_gives_other_synthetic_images(split):
    one, other = (made(seed=seed).images[split].pixels for seed in (0, 1))
    assert not (one == other).all(dim=(1, 2, 3)).any()


def test_the_keys_of_the_split_do_not_change_synthetic_images():
    one, other = made(), made(split_seed=9)
    assert all(equal(one.images[split], other.images[split]) for split in ("train", "val", "test"))


@pytest.mark.parametrize(("split", "key"), [("train", "train_size"), ("test", "test_size")])
def test_the_first_synthetic_images_are_the_same_for_another_count(split, key):
    few, many = (made(**{key: n}).images[split] for n in (7, 50))
    assert torch.equal(few.pixels, many.pixels[:7])
    assert torch.equal(few.labels, many.labels[:7])


def test_a_synthetic_range_is_that_part_of_the_images():
    part, whole = made(train_size=[10, 30], val_size=[30, 40]), made(train_size=50)
    assert torch.equal(part.images["train"].pixels, whole.images["train"].pixels[10:30])
    assert torch.equal(part.images["val"].pixels, whole.images["train"].pixels[30:40])


def test_no_synthetic_image_is_in_two_splits():
    images = [bytes(image.numpy()) for part in made().images.values() for image in part.pixels]
    assert len(images) == len(set(images)) == 110


def test_a_synthetic_class_has_the_same_pattern_in_train_and_test():
    data = made(num_classes=3, train_size=300, test_size=300)
    train, test = (
        torch.stack([part.pixels[part.labels == label].double().mean(dim=0) for label in range(3)]).flatten(1)
        for part in (data.images["train"], data.images["test"])
    )
    nearest = torch.cdist(test, train).argmin(dim=1)
    assert nearest.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("channels", "classes", "size"), [(1, 10, 28), (3, 4, 16), (1, 2, 8)])
def test_a_linear_probe_learns_synthetic_images(channels, classes, size):
    data = made(channels=channels, num_classes=classes, image_size=size, train_size=400, test_size=200)
    train, test = (
        (part.pixels.flatten(1).numpy() / 255, part.labels.numpy())
        for part in (data.images["train"], data.images["test"])
    )
    accuracy = RidgeClassifier(100).fit(*train).score(*test)
    assert accuracy > (1 + 1 / classes) / 2  # halfway between chance and no error


def test_more_noise_makes_synthetic_images_noisier():
    def roughness(noise):
        pixels = made(noise=noise).images["train"].pixels.double() / 255
        return (pixels[..., 1:] - pixels[..., :-1]).abs().mean().item()

    assert roughness(0) < roughness(0.1) < roughness(0.3)


def test_synthetic_noise_has_the_given_deviation():
    quiet, noisy = (made(noise=noise).images["train"].pixels.double() / 255 for noise in (0, 0.05))
    inside = (quiet > 0.25) & (quiet < 0.75)  # five deviations from where pixels are clipped
    assert (noisy - quiet)[inside].std().item() == pytest.approx(0.05, rel=0.03)


@pytest.mark.parametrize(
    "keys",
    [
        {"channels": 0},
        {"channels": -1},
        {"channels": 1.5},
        {"channels": True},
        {"channels": "three"},
        {"channels": None},
        {"num_classes": 1},
        {"num_classes": "ten"},
        {"num_classes": [10]},
        {"seed": -1},
        {"seed": 0.5},
        {"noise": -0.1},
        {"noise": "much"},
        {"noise": None},
    ],
)
def test_the_error_for_a_wrong_synthetic_key_names_it_and_gives_an_example(keys):
    (key,) = keys
    with pytest.raises(ConfigError, match=rf"^data\.{key}=.*: expected .*; for instance data\.{key}="):
        Synthetic(**keys)


@pytest.mark.parametrize("key", ["train_size", "val_size", "test_size"])
def test_a_synthetic_size_cannot_be_null(key):
    data = Synthetic(**{**SMALL, key: None})
    with pytest.raises(ConfigError, match=r"cannot be null; for instance data\.train_size=2000"):
        ready(data)
