"""Files in MNIST's format: small ones written here, and the real ones against torchvision's readers."""

from __future__ import annotations

import gzip
import re
import struct

import numpy as np
import pytest
import torch
import torchvision.datasets

from cnnbench.data.fashionmnist import FashionMNIST
from cnnbench.data.idx import FILES, idx_shape
from cnnbench.data.mnist import MNIST
from cnnbench.errors import DataError
from datafiles import idx, ready, refused, write_idx


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


def test_the_classes_of_fashionmnist_have_torchvisions_names_in_its_order():
    assert list(FashionMNIST.classes) == torchvision.datasets.FashionMNIST.classes
