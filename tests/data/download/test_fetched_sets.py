"""The published sets: their files, corrupt files, and their folders."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import requests

from cnnbench.config.compose import compose
from cnnbench.data.datamodule import ImageData
from cnnbench.data.download.fetch import default_root
from cnnbench.data.sets.cifar10 import CIFAR10
from cnnbench.data.sets.cifar100 import CIFAR100
from cnnbench.data.sets.fashionmnist import FashionMNIST
from cnnbench.data.sets.idx import FILES
from cnnbench.data.sets.mnist import MNIST
from cnnbench.errors import DataError
from cnnbench.training.factories import build_data
from datafiles import equal, ready, refused, write_idx
from fetching import flip, names


class Own(MNIST):
    """A user's set that can be downloaded, without published checksums and with the default check."""

    sums: Mapping[str, str] = {}
    check = ImageData.check


FETCHABLE = [MNIST, FashionMNIST, CIFAR10, CIFAR100]


@pytest.mark.parametrize("kind", FETCHABLE)
def test_without_a_network_the_error_lists_each_file_with_size_checksum_address_and_folder(tmp_path, no_network, kind):
    data = kind(root=tmp_path)
    first, *lines = refused(data).splitlines()
    for part in (f"data={data.name}", str(data.folder), "no network", "data.root=", "data=mnist5k needs no download"):
        assert part in first
    assert len(lines) == len(kind.remotes)
    for line, remote in zip(lines, kind.remotes, strict=True):
        checksum = remote.checksum.replace(":", " ")
        for part in (remote.name, f"{remote.size:,} bytes", checksum, f"{remote.mirrors[0]}{remote.name}"):
            assert part in line


def test_without_a_network_the_error_names_absent_files_only(tmp_path, no_network):
    folder = write_idx(tmp_path)
    (folder / FILES[2]).unlink()
    text = refused(MNIST(root=tmp_path))
    assert [file for file in FILES if file in text] == [FILES[2]]


def test_files_that_the_user_puts_where_the_error_says_are_used(tmp_path, no_network, digits):
    folder = digits(root=tmp_path).folder
    text = refused(digits(root=tmp_path))
    assert str(folder) in text
    for remote in digits.remotes:
        (folder / remote.name).write_bytes(digits.packed[remote.name])
    assert len(ready(digits(root=tmp_path)).images["test"]) == 20


def test_complete_files_are_not_requested(tmp_path, no_network):
    write_idx(tmp_path)
    assert len(ready(MNIST(root=tmp_path)).images["test"]) == 20


def test_an_absent_set_is_downloaded_and_equals_the_published_one(tmp_path, digits):
    fetched, written = ready(digits(root=tmp_path / "new")), ready(digits(root=tmp_path / "source"))
    assert fetched.fingerprint == written.fingerprint
    for split in ("train", "val", "test"):
        assert equal(fetched.images[split], written.images[split])


def test_a_set_is_downloaded_once(tmp_path, digits, server):
    for _ in range(2):
        data = digits(root=tmp_path / "new")
        ready(data)
        data.prepare_data()
    assert sorted(request.path for request in server.requests) == sorted(f"/mnist/{file}.gz" for file in FILES)


def test_a_downloaded_file_with_a_wrong_checksum_is_refused(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(digits, "sums", {**digits.sums, FILES[0]: f"sha256:{'0' * 64}"})
    assert f"{FILES[0]} in it has another checksum" in refused(digits(root=tmp_path / "new"))
    assert FILES[0] not in names(tmp_path / "new" / "MNIST" / "raw")


@pytest.mark.parametrize("file", FILES)
def test_the_error_for_a_corrupt_file_of_mnist_names_the_command_that_repairs_it(tmp_path, digits, server, file):
    root = tmp_path / "new"
    ready(digits(root=root))
    path = root / "MNIST" / "raw" / file
    flip(path)
    text = refused(digits(root=root))
    assert text.startswith(f"{path}: corrupt")
    assert "cnnbench fetch mnist" in text
    digits(root=root).repair_files()
    assert f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" == digits.sums[file]
    assert [request.path for request in server.requests[4:]] == [f"/mnist/{file}.gz"]
    ready(digits(root=root))


@pytest.mark.parametrize("member", ["cifar-10-batches-py/data_batch_3", "cifar-10-batches-py/batches.meta"])
def test_the_error_for_a_corrupt_file_of_cifar10_names_the_command_that_repairs_it(
    tmp_path, photographs, server, member
):
    data = photographs(root=tmp_path)
    data.prepare_data()
    flip(tmp_path / member)
    text = refused(photographs(root=tmp_path))
    assert text.startswith(f"{tmp_path / member}: corrupt")
    assert "cnnbench fetch cifar10" in text
    photographs(root=tmp_path).repair_files()
    assert (tmp_path / member).read_bytes() == member.encode() * 100
    assert len(server.requests) == 2
    photographs(root=tmp_path).prepare_data()


def test_the_command_that_repairs_a_file_has_the_root_if_it_is_not_the_default(tmp_path, photographs):
    photographs(root=tmp_path).prepare_data()
    flip(tmp_path / "cifar-10-batches-py" / "test_batch")
    assert f"--root {tmp_path}" in refused(photographs(root=tmp_path))


def test_a_corrupt_file_is_replaced_from_an_archive_in_the_same_folder(tmp_path, photographs, server):
    name = photographs.remotes[0].name
    photographs(root=tmp_path).prepare_data()
    archive = requests.get(f"{server.url}cifar10/{name}").content
    (tmp_path / name).write_bytes(archive)
    flip(tmp_path / "cifar-10-batches-py" / "test_batch")
    before = len(server.requests)
    photographs(root=tmp_path).repair_files()
    assert len(server.requests) == before
    assert (tmp_path / name).is_file()
    photographs(root=tmp_path).prepare_data()


def test_a_corrupt_file_that_cannot_be_replaced_is_named_and_kept(tmp_path, photographs, no_network, monkeypatch):
    member = tmp_path / "cifar-10-batches-py" / "test_batch"
    for path, content in ((tmp_path / name, name.encode() * 100) for name in photographs.sums):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    flip(member)
    content = member.read_bytes()
    with pytest.raises(DataError) as caught:
        photographs(root=tmp_path).repair_files()
    assert "no network" in str(caught.value)
    assert "test_batch" in str(caught.value)
    assert member.read_bytes() == content


def test_a_file_that_changed_after_a_check_is_checked_again(tmp_path, photographs):
    photographs(root=tmp_path).prepare_data()
    paths = photographs(root=tmp_path).files()
    for path in paths:
        os.utime(path, (1_000_000_000, 1_000_000_000))
    photographs(root=tmp_path).prepare_data()
    flip(paths[1])
    refused(photographs(root=tmp_path))


def test_checked_files_are_read_again_only_after_a_change(tmp_path, photographs, monkeypatch):
    data = photographs(root=tmp_path)
    data.prepare_data()
    for path in data.files():
        os.utime(path, (1_000_000_000, 1_000_000_000))
    checks = []
    check = photographs.check
    monkeypatch.setattr(photographs, "check", lambda self: (checks.append(1), check(self)))
    for _ in range(3):
        photographs(root=tmp_path).prepare_data()
    assert len(checks) == 1
    os.utime(data.files()[0], (1_000_000_001, 1_000_000_001))
    photographs(root=tmp_path).prepare_data()
    assert len(checks) == 2


def test_repairing_reads_files_that_were_checked_before(tmp_path, photographs):
    photographs(root=tmp_path).prepare_data()
    path = photographs(root=tmp_path).files()[3]
    good_content = path.read_bytes()
    os.utime(path, (1_000_000_000, 1_000_000_000))
    photographs(root=tmp_path).prepare_data()
    flip(path, keep_time=True)
    photographs(root=tmp_path).repair_files()
    assert path.read_bytes() == good_content


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="this system has no /proc/self/mem")
def test_a_disk_that_cannot_be_read_is_a_data_error(tmp_path, photographs):
    photographs(root=tmp_path).prepare_data()
    path = photographs(root=tmp_path).files()[2]
    path.unlink()
    path.symlink_to("/proc/self/mem")  # a file that exists, and raises an input/output error when it is read
    text = refused(photographs(root=tmp_path))
    assert str(path) in text


def test_repairing_finds_a_wrong_byte_in_files_without_published_checksums(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(digits, "sums", {})  # as for FashionMNIST, of which only archives have published checksums
    data = digits(root=tmp_path / "new")
    data.prepare_data()
    path = data.files()[0]
    content = path.read_bytes()
    flip(path)
    digits(root=tmp_path / "new").repair_files()
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", FETCHABLE)
def test_the_published_facts_of_a_set_are_complete_and_well_formed(kind):
    sums = [remote.checksum for remote in kind.remotes] + list(kind.sums.values())
    members = [member for remote in kind.remotes for member in remote.members]
    assert all(len(text.removeprefix("sha256:")) == 64 or len(text.removeprefix("md5:")) == 32 for text in sums)
    assert all(set(text.partition(":")[2]) <= set("0123456789abcdef") for text in sums)
    assert len(set(sums)) == len(sums)
    assert set(kind.sums) <= set(members)
    assert len(set(members)) == len(members)
    assert all(remote.size > 0 for remote in kind.remotes)
    assert [path.relative_to(kind(root="r").folder).as_posix() for path in kind(root="r").files()] == members


@pytest.mark.parametrize("kind", FETCHABLE)
def test_every_file_of_a_set_has_two_mirrors_that_are_folders(kind):
    for remote in kind.remotes:
        assert len(set(remote.mirrors)) >= 2
        assert all(address.startswith(("https://", "http://")) and address.endswith("/") for address in remote.mirrors)


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


def test_a_wrong_byte_in_a_users_set_is_found_by_its_checksum_at_unpacking(tmp_path, digits):
    data = Own(root=tmp_path)
    data.prepare_data()
    flip(data.files()[0])
    assert refused(Own(root=tmp_path)).startswith(f"{data.files()[0]}: corrupt, its SHA256 sum is not ")
    Own(root=tmp_path).repair_files()
    ready(Own(root=tmp_path))
