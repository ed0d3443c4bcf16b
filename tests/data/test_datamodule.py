"""The base class of all data sets: keys and facts, splits, batches and fingerprints."""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cnnbench.augment.functional import resize
from cnnbench.config.compose import compose, conf_dir
from cnnbench.config.schema import DataKeys
from cnnbench.data.datamodule import ImageData, TrainingBatches
from cnnbench.data.loader import BatchPlan
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
    """The set that the command line builds for `data=name`; cached, tests must not change it."""
    return build_data(compose([f"data={name}"]))


@pytest.mark.parametrize("name", SETS)
def test_every_choice_of_data_builds_the_set_of_that_name(name):
    assert composed(name).name == name


@pytest.mark.parametrize("name", SETS)
def test_every_set_states_a_mean_and_a_deviation_for_each_channel(name):
    data = composed(name)
    assert len(data.own_mean) == len(data.own_std) == data.channels == data.shape[0]
    assert all(0 < mean < 1 for mean in data.own_mean)
    assert all(0 < std < 1 for std in data.own_std)


@pytest.mark.parametrize("name", SETS)
def test_the_class_names_of_a_set_differ(name):
    data = composed(name)
    assert len(set(data.classes)) == data.num_classes > 1


def test_the_keys_in_conf_and_their_values_are_those_of_the_schema_and_its_defaults():
    written = yaml.safe_load((conf_dir() / "data_keys.yaml").read_text(encoding="utf-8"))
    assert written == DataKeys(target="x").model_dump(exclude={"target", "fingerprint", "typed_root"})


class OwnDigits(MNIST5k):
    """A user's own set, with the key `shade` in addition to the keys of every set."""

    def __init__(self, *, shade: int = 3, **keys):
        super().__init__(**keys)
        self.shade = shade


def test_a_users_set_takes_its_key_and_those_of_every_set():
    data = OwnDigits(shade=5, train_size=7, image_size=32, mean=0.5)
    assert (data.shade, data.keys.train_size, data.image_size, data.mean) == (5, 7, 32, [0.5])
    assert OwnDigits().keys == DataKeys(target="test_datamodule.OwnDigits")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"shad": 5},
            "data.shad: OwnDigits takes no shad; did you mean shade? it takes: shade, root, image_size, mean",
        ),
        ({"fracton": 0.5}, "data.fracton: OwnDigits takes no fracton; did you mean fraction? it takes: shade, root"),
        ({"fraction": 2}, "data.fraction=2: expected a number above 0, at most 1; for instance data.fraction=0.5"),
        ({"train_size": [5, 3]}, "data.train_size=[5,3]: expected a count, a range [a,b] with a below b, or null"),
        ({"image_size": "large"}, "data.image_size=large: expected auto or pixels a side"),
    ],
)
def test_a_wrong_key_or_value_in_the_constructor_is_one_clear_line(keys, message):
    with pytest.raises(ConfigError) as caught:
        OwnDigits(**keys)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_keys_of_the_synthetic_set_are_those_of_its_constructor_and_its_defaults():
    written = yaml.safe_load((conf_dir() / "data" / "synthetic.yaml").read_text(encoding="utf-8"))
    parameters = inspect.signature(Synthetic).parameters
    own = parameters.keys() - {"image_size", "keys"}
    assert {key: written[key] for key in own} == {key: parameters[key].default for key in own}


class Counted(MNIST):
    """Records which official splits are read."""

    def __init__(self, **keys):
        super().__init__(**keys)
        self.read_splits = []

    def read(self, official):
        self.read_splits.append(official)
        return super().read(official)


@pytest.fixture
def small(tmp_path) -> Path:
    """The root of a set in MNIST's files with 200 and 60 random images."""
    write_idx(tmp_path, 200, 60)
    return tmp_path


def in_batches_of(size: int, root: Path, seed: int = 0) -> ImageData:
    """The set with its images decoded, and a run's batch size and seed."""
    data = ready(MNIST(root=root))
    data.batches = TrainingBatches(BatchPlan(size, seed=seed))
    return data


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


def test_a_split_is_read_once_even_if_it_is_set_up_twice(small):
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


def test_scoring_batches_are_twice_as_large_as_train_batches(small):
    data = in_batches_of(9, small)
    sizes = [len(next(iter(make()))[1]) for make in (data.train_dataloader, data.val_dataloader, data.test_dataloader)]
    assert sizes == [9, 18, 18]


def test_train_batches_are_shuffled_and_those_for_scoring_are_not(small):
    data = in_batches_of(9, small)
    assert torch.cat([labels for _, labels in data.train_dataloader()]).tolist() != data.images["train"].labels.tolist()
    assert torch.cat([labels for _, labels in data.val_dataloader()]).tolist() == data.images["val"].labels.tolist()
    assert torch.cat([labels for _, labels in data.test_dataloader()]).tolist() == data.images["test"].labels.tolist()


def test_the_train_split_can_be_scored_in_its_stored_order(small):
    data = ready(MNIST(root=small))
    assert torch.cat([labels for _, labels in data.loader("train")]).tolist() == data.images["train"].labels.tolist()


def test_the_runs_seed_changes_the_order_of_the_train_images_and_not_the_split(small):
    one, other = (in_batches_of(64, small, seed) for seed in (0, 1))
    assert one.split_hash == other.split_hash
    assert one.train_dataloader().order(0).tolist() != other.train_dataloader().order(0).tolist()


def test_the_split_seed_changes_the_split_and_not_the_order(small):
    one, other = (ready(MNIST(root=small, split_seed=seed)) for seed in (0, 1))
    assert one.split_hash != other.split_hash
    assert one.train_dataloader().order(0).tolist() == other.train_dataloader().order(0).tolist()


@pytest.mark.parametrize(
    ("keys", "mean", "std"),
    [({}, 0.1307, 0.3081), ({"mean": 0.5, "std": [0.25]}, 0.5, 0.25)],
    ids=["the set's own", "given ones"],
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


def test_images_are_resized_to_image_size(small):
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
    other = MNIST(root=tmp_path, image_size=32, train_size=20, split_seed=3)
    assert one.fingerprint == other.fingerprint


def test_the_same_files_have_another_fingerprint_under_another_sets_name(tmp_path):
    write_idx(tmp_path)
    write_idx(tmp_path, name="FashionMNIST")
    assert MNIST(root=tmp_path).fingerprint != FashionMNIST(root=tmp_path).fingerprint


def test_the_fingerprint_changes_when_two_files_are_exchanged(tmp_path):
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
