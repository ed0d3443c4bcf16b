"""Files in MNIST's format: small ones of this test, and the real ones against torchvision's readers."""

from __future__ import annotations

import gzip
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets

from cnnbench.data.download.mirrors import has_checksum
from cnnbench.data.sets.fashionmnist import FashionMNIST
from cnnbench.data.sets.idx import FILES, idx_shape
from cnnbench.data.sets.mnist import MNIST
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


@pytest.mark.parametrize("file", [FILES[0], FILES[3]])
@pytest.mark.parametrize("damage", DAMAGES)
def test_the_error_names_a_damaged_file(tmp_path, file, damage):
    path = write_idx(tmp_path) / file
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    text = refused(MNIST(root=tmp_path))
    assert text.startswith(f"{path}: corrupt")
    assert text.endswith(f"type cnnbench fetch mnist --root {tmp_path}, which replaces it")


@pytest.mark.parametrize("prefix", ["train", "t10k"])
@pytest.mark.parametrize("labels", [5, 100])
def test_different_numbers_of_images_and_labels_are_refused(tmp_path, prefix, labels):
    folder = write_idx(tmp_path, 40, 40)
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(labels) % 10))
    text = refused(MNIST(root=tmp_path))
    assert f"{folder / prefix}-images-idx3-ubyte holds 40 images, {prefix}-labels-idx1-ubyte {labels} labels" in text


@pytest.mark.parametrize("prefix", ["train", "t10k"])
@pytest.mark.parametrize("label", [10, 255])
def test_the_error_names_the_file_of_an_invalid_label(tmp_path, prefix, label):
    path = write_idx(tmp_path) / f"{prefix}-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + bytes([label]))
    assert refused(MNIST(root=tmp_path)).startswith(f"{path}: corrupt, it has a label {label}, expected 0 to 9")


@pytest.mark.parametrize("size", [(27, 28), (28, 27), (32, 32)])
def test_the_error_for_another_image_size_names_both_sizes(tmp_path, size):
    path = write_idx(tmp_path) / "t10k-images-idx3-ubyte"
    path.write_bytes(idx(np.zeros((20, *size))))
    text = refused(MNIST(root=tmp_path))
    assert str(path) in text
    assert f"images of {size[0]}×{size[1]}, expected 28×28" in text


PUBLISHED = {"train": 60_000, "t10k": 10_000}


@pytest.fixture(scope="module")
def as_large_as_published(tmp_path_factory) -> Path:
    """The root of files of MNIST's size, whose images are black except one pixel."""
    folder = tmp_path_factory.mktemp("large") / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for prefix, n in PUBLISHED.items():
        images = np.zeros((n, 28, 28), np.uint8)
        images[0, 0, 0] = 1
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(n) % 10))
    return folder.parents[1]


def test_files_of_the_published_size_with_wrong_checksums_are_refused(
    as_large_as_published,
):
    text = refused(MNIST(root=as_large_as_published))
    assert text.startswith(f"{as_large_as_published / 'MNIST' / 'raw' / FILES[0]}: corrupt, its SHA256 sum is not ")
    assert "cnnbench fetch mnist" in text


@pytest.mark.parametrize("prefix", PUBLISHED)
def test_the_checksums_of_each_split_are_verified_independently(as_large_as_published, tmp_path, prefix):
    folder = write_idx(tmp_path)
    for kind in ("images-idx3", "labels-idx1"):
        name = f"{prefix}-{kind}-ubyte"
        (folder / name).unlink()
        (folder / name).symlink_to(as_large_as_published / "MNIST" / "raw" / name)
    assert refused(MNIST(root=tmp_path)).startswith(f"{folder / prefix}-images-idx3-ubyte: corrupt")


@pytest.mark.parametrize(("train", "test"), [(40, 20), (59_999, 9_999), (9_000, 10_001)])
def test_a_set_of_another_size_than_mnist_is_accepted(tmp_path, train, test):
    write_idx(tmp_path, train, test)
    data = MNIST(root=tmp_path)
    data.prepare_data()
    assert (data.count("train"), data.count("test")) == (train, test)


def test_files_of_fashionmnists_size_are_accepted_without_checksums(as_large_as_published, tmp_path):
    (tmp_path / "FashionMNIST").symlink_to(as_large_as_published / "MNIST")
    FashionMNIST(root=tmp_path).prepare_data()


def test_unchanged_files_are_checked_once(tmp_path, monkeypatch):
    folder = write_idx(tmp_path)
    for path in folder.iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
    MNIST(root=tmp_path).prepare_data()
    monkeypatch.setattr(MNIST, "check", None)
    MNIST(root=tmp_path).prepare_data()


def test_files_that_have_just_changed_are_checked_at_each_start(tmp_path):
    folder = write_idx(tmp_path)
    MNIST(root=tmp_path).prepare_data()
    (folder / FILES[1]).write_bytes(idx(np.full(40, 10)))
    assert "it has a label 10" in refused(MNIST(root=tmp_path))


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_the_published_files_are_those_that_torchvision_downloads(kind):
    published = getattr(torchvision.datasets, kind.folder_name)
    assert [remote.name for remote in kind.remotes] == [name for name, _ in published.resources]
    assert [remote.members for remote in kind.remotes] == [
        (name.removesuffix(".gz"),) for name, _ in published.resources
    ]
    assert all(set(published.mirrors) & set(remote.mirrors) for remote in kind.remotes)


def test_the_sums_of_fashionmnists_archives_are_those_that_torchvision_publishes():
    published = torchvision.datasets.FashionMNIST.resources
    assert [remote.checksum for remote in FashionMNIST.remotes] == [f"md5:{sum}" for _, sum in published]


def test_mnists_archives_have_the_sizes_that_are_published():
    assert [remote.size for remote in MNIST.remotes] == [9_912_422, 28_881, 1_648_877, 4_542]


def test_fashionmnists_archives_have_the_sizes_that_are_published():
    assert [remote.size for remote in FashionMNIST.remotes] == [26_421_880, 29_515, 4_422_102, 5_148]


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    path = write_idx(tmp_path) / "t10k-labels-idx1-ubyte"
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=re.escape(f"{path}: cannot be read")):
        idx_shape(path, 1)


def test_reading_a_set_writes_nothing_into_its_folder(tmp_path):
    write_idx(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    ready(MNIST(root=tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


# ---- the real files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
def test_the_published_checksum_of_the_real_file_holds(real_data, file):
    assert has_checksum(real_data / "MNIST" / "raw" / file, MNIST.sums[file])


@pytest.fixture
def linked(real_data, tmp_path) -> Path:
    """A folder of links to the real files of MNIST."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for file in FILES:
        (folder / file).symlink_to(real_data / "MNIST" / "raw" / file)
    return folder


def test_repairing_intact_files_requests_nothing(linked, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", None)
    MNIST(root=linked.parents[1]).repair_files()


@pytest.mark.parametrize(("file", "at"), [(FILES[0], 20), *((file, -1) for file in FILES)])
def test_one_wrong_bit_in_a_real_file_is_found(linked, file, at):
    content = bytearray((linked / file).read_bytes())
    content[at] ^= 1
    (linked / file).unlink()
    (linked / file).write_bytes(content)
    assert refused(MNIST(root=linked.parents[1])).startswith(f"{linked / file}: corrupt, its SHA256 sum is not ")


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


def test_900_images_of_fashionmnist_are_read_as_torchvision_reads_them(real_data):
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
