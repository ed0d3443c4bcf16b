"""CIFAR-10: small files with checksums of this test, against torchvision's reader."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets

from cnnbench.data.loader import BatchPlan
from cnnbench.data.sets.cifar10 import CIFAR10
from datafiles import equal, ready, refused
from fetching import served_archive

CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def accept(monkeypatch, folder: Path) -> None:
    """Replaces the published checksums, ours and torchvision's, by those of the files in `folder`."""
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    published = torchvision.datasets.CIFAR10
    for key in ("train_list", "test_list"):
        monkeypatch.setattr(published, key, [[file, sums[file]] for file, _ in getattr(published, key)])
    monkeypatch.setattr(published, "meta", {**published.meta, "md5": sums["batches.meta"]})
    monkeypatch.setattr(CIFAR10, "sums", {name: f"md5:{sums[name.partition('/')[2]]}" for name in CIFAR10.sums})


def cifar_batch(number: int, n: int = 12) -> dict:
    """Images of batch b: in image k red is 10b + k, green the row, blue the column."""
    rows, columns = np.indices((32, 32))
    images = [np.stack([np.full((32, 32), 10 * number + k), rows, columns]) for k in range(n)]
    return {"data": np.stack(images).reshape(n, 3072).astype(np.uint8), "labels": [(number + k) % 10 for k in range(n)]}


@pytest.fixture
def cifar(tmp_path, monkeypatch) -> Path:
    """The folder of a small CIFAR-10 whose checksums match; its parent is the root."""
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
    data = CIFAR10(root=cifar.parent, train_size=40, val_size=10, test_size=8)
    data = ready(data)
    images, labels = next(iter(data.loader("train", BatchPlan(16, seed=0))))
    assert (images.shape, images.dtype) == ((16, 3, 32, 32), torch.float32)
    assert (labels.dtype, len(data.images["val"]), len(data.images["test"])) == (torch.int64, 10, 8)


def test_each_channel_of_cifar10_is_normalised_with_its_own_numbers(cifar):
    data = ready(CIFAR10(root=cifar.parent, train_size=40, val_size=10, test_size=8))
    images, _ = next(iter(data.test_dataloader()))
    for channel, (mean, std) in enumerate([(0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616)]):
        expected = (data.images["test"].pixels[:, channel].numpy() / 255 - mean) / std
        np.testing.assert_allclose(images[:, channel].numpy(), expected, rtol=0, atol=1e-5)


def test_the_classes_of_cifar10_have_torchvisions_names_in_its_order():
    assert list(CIFAR10.classes) == CIFAR_CLASSES


def test_cifar10_has_the_counts_that_are_published():
    assert (CIFAR10().count("train"), CIFAR10().count("test")) == (50_000, 10_000)


class Trap:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("file", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
def test_a_file_of_cifar10_with_a_wrong_checksum_is_refused_before_it_is_unpickled(cifar, file):
    sprung = cifar.parent / "sprung"
    (cifar / file).write_bytes(pickle.dumps(Trap(sprung)))
    text = refused(CIFAR10(root=cifar.parent))
    assert text.startswith(f"{cifar / file}: corrupt")
    assert "type cnnbench fetch cifar10" in text
    assert not sprung.exists()


def test_the_hostile_file_would_act_if_it_were_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


def test_one_additional_byte_in_a_file_of_cifar10_is_refused(cifar):
    path = cifar / "data_batch_3"
    path.write_bytes(path.read_bytes() + b"\0")
    assert refused(CIFAR10(root=cifar.parent)).startswith(f"{path}: corrupt")


def test_the_fingerprint_of_cifar10_covers_all_its_files(cifar):
    prints = {CIFAR10(root=cifar.parent).fingerprint}
    for path in sorted(cifar.iterdir()):
        path.write_bytes(path.read_bytes() + b"\0")
        prints.add(CIFAR10(root=cifar.parent).fingerprint)
    assert len(prints) == 8


@pytest.fixture
def archived(cifar, monkeypatch):
    with served_archive(CIFAR10, cifar, monkeypatch) as server:
        yield server


def test_an_absent_cifar10_is_downloaded_and_unpacked_where_torchvision_expects_it(cifar, archived, tmp_path):
    keys = {"train_size": 40, "val_size": 10, "test_size": 8}
    fetched, written = (ready(CIFAR10(root=root, **keys)) for root in (tmp_path / "new", cifar.parent))
    assert fetched.fingerprint == written.fingerprint
    assert equal(fetched.images["train"], written.images["train"])
    assert len(torchvision.datasets.CIFAR10(str(tmp_path / "new"))) == 60


def test_an_incomplete_cifar10_is_completed(cifar, archived):
    contents = {path.name: path.read_bytes() for path in cifar.iterdir()}
    (cifar / "data_batch_2").unlink()
    CIFAR10(root=cifar.parent).prepare_data()
    assert {path.name: path.read_bytes() for path in cifar.iterdir()} == contents
    assert len(archived.requests) == 1


def test_the_sums_of_cifar10s_files_are_those_that_torchvision_publishes():
    published = torchvision.datasets.CIFAR10
    files = [*published.train_list, *published.test_list, (published.meta["filename"], published.meta["md5"])]
    assert CIFAR10.sums == {f"{published.base_folder}/{name}": f"md5:{sum}" for name, sum in files}


def test_the_archive_of_cifar10_is_the_one_that_torchvision_downloads():
    (remote,) = CIFAR10.remotes
    published = torchvision.datasets.CIFAR10
    assert remote.name == published.filename
    assert published.url in [f"{mirror}{remote.name}" for mirror in remote.mirrors]
    assert (remote.size, remote.checksum[:13]) == (170_498_071, "sha256:6d958b")
    assert set(remote.members) == set(CIFAR10.sums)
