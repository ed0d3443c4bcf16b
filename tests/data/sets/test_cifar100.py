"""CIFAR-100: small files with checksums of this test, against torchvision's reader."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets

from cnnbench.data.loader import BatchPlan
from cnnbench.data.sets.cifar100 import CIFAR100
from datafiles import equal, ready, refused
from fetching import served_archive

SIZES = {"train_size": 60, "val_size": 20, "test_size": 15}


def labelled(n: int, seed: int) -> dict:
    """Random images with the fine labels 99, 98, ...; a coarse label is a fifth of the fine one."""
    fine = [99 - k % 100 for k in range(n)]
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)
    return {"data": pixels, "fine_labels": fine, "coarse_labels": [label // 5 for label in fine]}


@pytest.fixture
def cifar(tmp_path, monkeypatch) -> Path:
    """The folder of a small CIFAR-100 whose checksums match ours and torchvision's; its parent is the root."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    (folder / "train").write_bytes(pickle.dumps(labelled(120, 0)))
    (folder / "test").write_bytes(pickle.dumps(labelled(30, 1)))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": list(CIFAR100.classes)}))
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    published = torchvision.datasets.CIFAR100
    for key in ("train_list", "test_list"):
        monkeypatch.setattr(published, key, [[file, sums[file]] for file, _ in getattr(published, key)])
    monkeypatch.setattr(published, "meta", {**published.meta, "md5": sums["meta"]})
    monkeypatch.setattr(CIFAR100, "sums", {f"{folder.name}/{name}": f"md5:{sum}" for name, sum in sums.items()})
    return folder


@pytest.mark.parametrize("official", ["train", "test"])
def test_cifar100_equals_torchvisions_pictures(cifar, official):
    images = CIFAR100(root=cifar.parent).read(official)
    reference = torchvision.datasets.CIFAR100(str(cifar.parent), train=official == "train")
    assert len(images) == len(reference)
    for number, (picture, label) in enumerate(reference):
        assert (images.pixels[number].permute(1, 2, 0).numpy() == np.asarray(picture)).all()
        assert images.labels[number] == label


def test_the_labels_of_cifar100_are_the_fine_ones(cifar):
    labels = CIFAR100(root=cifar.parent).read("test").labels
    assert labels.tolist() == list(range(99, 69, -1))
    assert labels.dtype == torch.int64


def test_the_classes_of_cifar100_have_the_names_that_torchvision_reads_in_its_order(cifar):
    assert list(CIFAR100.classes) == torchvision.datasets.CIFAR100(str(cifar.parent)).classes


def test_the_hundred_classes_of_cifar100_are_in_alphabetical_order():
    assert len(CIFAR100.classes) == 100
    assert list(CIFAR100.classes) == sorted(set(CIFAR100.classes))


@pytest.mark.parametrize(
    ("label", "name"),
    [(0, "apple"), (19, "cattle"), (71, "sea"), (99, "worm")],
)
def test_a_label_of_cifar100_stands_for_its_class(label, name):
    assert CIFAR100.classes[label] == name


def test_cifar100_has_the_counts_that_are_published():
    assert (CIFAR100().count("train"), CIFAR100().count("test")) == (50_000, 10_000)


def test_cifar100_is_split_and_cut_into_batches(cifar):
    data = ready(CIFAR100(root=cifar.parent, **SIZES))
    images, labels = next(iter(data.loader("train", BatchPlan(16, seed=0))))
    assert (images.shape, images.dtype) == ((16, 3, 32, 32), torch.float32)
    assert (labels.dtype, len(data.images["val"]), len(data.images["test"])) == (torch.int64, 20, 15)


@pytest.mark.parametrize("file", ["train", "test", "meta"])
def test_the_error_for_a_corrupt_file_of_cifar100_names_the_command_that_repairs_it(cifar, file):
    (cifar / file).write_bytes((cifar / file).read_bytes() + b"\0")
    text = refused(CIFAR100(root=cifar.parent))
    assert text.startswith(f"{cifar / file}: corrupt")
    assert "cnnbench fetch cifar100" in text


@pytest.fixture
def archived(cifar, monkeypatch):
    with served_archive(CIFAR100, cifar, monkeypatch) as server:
        yield server


def test_an_absent_cifar100_is_downloaded_and_unpacked_where_torchvision_expects_it(cifar, archived, tmp_path):
    fetched, written = (ready(CIFAR100(root=root, **SIZES)) for root in (tmp_path / "new", cifar.parent))
    assert fetched.fingerprint == written.fingerprint
    assert equal(fetched.images["train"], written.images["train"])
    assert len(torchvision.datasets.CIFAR100(str(tmp_path / "new"))) == 120


def test_a_corrupt_file_of_cifar100_is_replaced_by_the_published_one(cifar, archived):
    content = (cifar / "test").read_bytes()
    (cifar / "test").write_bytes(content[:-1] + b"?")
    CIFAR100(root=cifar.parent).repair_files()
    assert (cifar / "test").read_bytes() == content


def test_the_sums_of_cifar100s_files_are_those_that_torchvision_publishes():
    published = torchvision.datasets.CIFAR100
    files = [*published.train_list, *published.test_list, (published.meta["filename"], published.meta["md5"])]
    assert CIFAR100.sums == {f"{published.base_folder}/{name}": f"md5:{sum}" for name, sum in files}


def test_the_archive_of_cifar100_is_the_one_that_torchvision_downloads():
    (remote,) = CIFAR100.remotes
    published = torchvision.datasets.CIFAR100
    assert remote.name == published.filename
    assert published.url in [f"{mirror}{remote.name}" for mirror in remote.mirrors]
    assert (remote.size, remote.checksum[:13]) == (169_001_437, "sha256:85cd44")
    assert set(remote.members) == set(CIFAR100.sums)
