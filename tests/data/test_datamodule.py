"""What all sets share: their keys and facts, splits read when needed, batches, and fingerprints."""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cnnbench.config.compose import compose, conf_dir
from cnnbench.config.schema import DataKeys
from cnnbench.data.datamodule import ImageData
from cnnbench.data.loader import resize
from cnnbench.data.sets.cifar10 import CIFAR10
from cnnbench.data.sets.fashionmnist import FashionMNIST
from cnnbench.data.sets.idx import FILES
from cnnbench.data.sets.mnist import MNIST
from cnnbench.data.sets.mnist5k import MNIST5k
from cnnbench.data.sets.synthetic import Synthetic
from cnnbench.errors import ConfigError
from cnnbench.training.factories import build_data
from datafiles import ready, refused, write_idx

SETS = sorted(path.stem for path in (conf_dir() / "data").glob("*.yaml") if path.stem != "imagefolder")


@cache
def composed(name: str) -> ImageData:
    """The set that the command line builds for `data=name`; to be looked at only."""
    return build_data(compose([f"data={name}"]))


@pytest.mark.parametrize("name", SETS)
def test_every_choice_of_data_builds_a_set_of_its_own_name(name):
    assert composed(name).name == name


@pytest.mark.parametrize("name", SETS)
def test_every_set_states_a_mean_and_a_deviation_for_each_channel(name):
    data = composed(name)
    assert len(data.own_mean) == len(data.own_std) == data.channels == data.shape[0]
    assert all(0 < mean < 1 for mean in data.own_mean)
    assert all(0 < std < 1 for std in data.own_std)


@pytest.mark.parametrize("name", SETS)
def test_every_class_of_a_set_has_a_name_of_its_own(name):
    data = composed(name)
    assert len(set(data.classes)) == data.num_classes > 1


def test_the_keys_that_every_set_has_are_those_of_the_constructor_and_its_defaults():
    written = yaml.safe_load((conf_dir() / "data_keys.yaml").read_text(encoding="utf-8"))
    parameters = inspect.signature(ImageData).parameters
    assert written.keys() == parameters.keys() - {"batch_size", "shuffle_seed", "make_augment"}
    del written["root"]  # auto is resolved before a set is built
    assert written == {key: parameters[key].default for key in written}


def test_the_keys_that_every_set_has_are_those_of_the_schema():
    written = yaml.safe_load((conf_dir() / "data_keys.yaml").read_text(encoding="utf-8"))
    assert written.keys() == DataKeys.model_fields.keys() - {"target", "fingerprint"}


def test_the_keys_of_the_synthetic_set_are_those_of_its_constructor_and_its_defaults():
    written = yaml.safe_load((conf_dir() / "data" / "synthetic.yaml").read_text(encoding="utf-8"))
    parameters = inspect.signature(Synthetic).parameters
    own = parameters.keys() - {"image_size", "keys"}
    assert {key: written[key] for key in own} == {key: parameters[key].default for key in own}


class Counted(MNIST):
    """Notes what is read."""

    def __init__(self, **keys):
        super().__init__(**keys)
        self.read_splits = []

    def read(self, official):
        self.read_splits.append(official)
        return super().read(official)


@pytest.fixture
def small(tmp_path) -> Path:
    """The root of 200 and 60 made images in MNIST's files."""
    write_idx(tmp_path, 200, 60)
    return tmp_path


def test_training_does_not_read_the_test_split(small):
    data = Counted(root=small)
    data.prepare_data()
    data.setup("fit")
    data.setup("validate")
    assert data.read_splits == ["train"]
    assert set(data.images) == {"train", "val"}


def test_testing_does_not_read_the_train_split(small):
    data = Counted(root=small)
    data.prepare_data()
    data.setup("test")
    assert data.read_splits == ["test"]


def test_a_split_is_read_once_however_often_it_is_set_up(small):
    data = Counted(root=small)
    data.prepare_data()
    for stage in ("fit", "fit", "test", "test"):
        data.setup(stage)
    assert data.read_splits == ["train", "test"]


def test_the_test_indices_and_the_split_hash_are_known_before_the_test_split_is_read(small):
    data = Counted(root=small, test_size=[10, 60])
    data.prepare_data()
    data.setup("fit")
    known = data.split_hash
    assert data.indices["test"].tolist() == list(range(10, 60))
    assert data.read_splits == ["train"]
    data.setup("test")
    assert data.split_hash == known


def test_a_test_size_beyond_the_split_is_refused_before_anything_is_read(small):
    data = Counted(root=small, test_size=61)
    assert refused(data) == "data.test_size=61: the split has 60 images; type at most 60"
    assert data.read_splits == []


def test_train_batches_are_as_large_as_asked_and_those_for_scoring_twice(small):
    data = ready(MNIST(root=small, batch_size=9))
    sizes = [len(next(iter(make()))[1]) for make in (data.train_dataloader, data.val_dataloader, data.test_dataloader)]
    assert sizes == [9, 18, 18]


def test_train_batches_are_shuffled_and_those_for_scoring_are_not(small):
    data = ready(MNIST(root=small, batch_size=9))
    assert torch.cat([labels for _, labels in data.train_dataloader()]).tolist() != data.images["train"].labels.tolist()
    assert torch.cat([labels for _, labels in data.val_dataloader()]).tolist() == data.images["val"].labels.tolist()
    assert torch.cat([labels for _, labels in data.test_dataloader()]).tolist() == data.images["test"].labels.tolist()


def test_the_train_split_can_be_scored_in_its_stored_order(small):
    data = ready(MNIST(root=small))
    assert torch.cat([labels for _, labels in data.loader("train")]).tolist() == data.images["train"].labels.tolist()


def test_the_runs_seed_changes_the_order_of_the_train_images_and_not_the_split(small):
    one, other = (ready(MNIST(root=small, shuffle_seed=seed)) for seed in (0, 1))
    assert one.split_hash == other.split_hash
    assert one.train_dataloader().order(0).tolist() != other.train_dataloader().order(0).tolist()


def test_the_split_seed_changes_the_split_and_not_the_order(small):
    one, other = (ready(MNIST(root=small, split_seed=seed)) for seed in (0, 1))
    assert one.split_hash != other.split_hash
    assert one.train_dataloader().order(0).tolist() == other.train_dataloader().order(0).tolist()


@pytest.mark.parametrize(
    ("keys", "mean", "std"),
    [({}, 0.1307, 0.3081), ({"mean": 0.5, "std": [0.25]}, 0.5, 0.25)],
    ids=["the set's own", "those one asks for"],
)
def test_batches_are_normalised_with_the_mean_and_deviation(small, keys, mean, std):
    data = ready(MNIST(root=small, **keys))
    images, _ = next(iter(data.test_dataloader()))
    expected = (data.images["test"].pixels.numpy() / 255 - mean) / std
    np.testing.assert_allclose(images.numpy(), expected, rtol=0, atol=1e-5)


def test_one_mean_serves_all_channels():
    assert CIFAR10(mean=0.5, std=[0.25]).mean == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("key", ["mean", "std"])
@pytest.mark.parametrize("values", [[0.5, 0.5], [0.5] * 4])
def test_a_mean_for_another_number_of_channels_is_refused(key, values):
    with pytest.raises(ConfigError, match=rf"^data\.{key}=\[0\.5,.*cifar10 has 3 channels; type one number for each$"):
        CIFAR10(**{key: values})


def test_images_are_resized_to_what_is_asked_for(small):
    own, large = ready(MNIST(root=small)), ready(MNIST(root=small, image_size=32))
    assert (own.shape, large.shape) == ((1, 28, 28), (1, 32, 32))
    for split in ("train", "val", "test"):
        assert large.images[split].pixels.shape == (len(own.images[split]), 1, 32, 32)
        assert torch.equal(large.images[split].pixels, resize(own.images[split].pixels, 32))
        assert torch.equal(large.images[split].labels, own.images[split].labels)


def test_images_kept_on_the_device_give_the_same_batches(small):
    kept, fetched = (ready(MNIST(root=small, pipeline=where)) for where in ("device", "memory"))
    for (x, y), (u, v) in zip(kept.train_dataloader(), fetched.train_dataloader(), strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)


# ---- fingerprints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
def test_the_fingerprint_changes_with_one_byte_of_any_file(tmp_path, file):
    path = write_idx(tmp_path) / file
    before = MNIST(root=tmp_path).fingerprint
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert MNIST(root=tmp_path).fingerprint != before


def test_the_fingerprint_does_not_change_with_the_root(tmp_path):
    prints = set()
    for root in (tmp_path / "one", tmp_path / "two" / "deeper"):
        write_idx(root)
        prints.add(MNIST(root=root).fingerprint)
    assert len(prints) == 1


def test_the_fingerprint_does_not_change_with_the_keys(tmp_path):
    write_idx(tmp_path)
    one = MNIST(root=tmp_path)
    other = MNIST(root=tmp_path, image_size=32, train_size=20, split_seed=3, batch_size=7)
    assert one.fingerprint == other.fingerprint


def test_the_same_files_have_another_fingerprint_under_another_sets_name(tmp_path):
    write_idx(tmp_path)
    write_idx(tmp_path, name="FashionMNIST")
    assert MNIST(root=tmp_path).fingerprint != FashionMNIST(root=tmp_path).fingerprint


def test_the_fingerprint_changes_when_two_files_change_places(tmp_path):
    folder = write_idx(tmp_path, 20, 20)
    before = MNIST(root=tmp_path).fingerprint
    train, test = (folder / f"{prefix}-images-idx3-ubyte" for prefix in ("train", "t10k"))
    kept = train.read_bytes()
    train.write_bytes(test.read_bytes())
    test.write_bytes(kept)
    assert MNIST(root=tmp_path).fingerprint != before


@pytest.mark.parametrize("make", [MNIST5k, Synthetic])
def test_a_fingerprint_is_sixteen_hex_digits(make):
    assert re.fullmatch("[0-9a-f]{16}", make().fingerprint)
