"""Fetching: absent files, downloads that fail, locks and time limits, the default root, and a mirror on this machine."""

from __future__ import annotations

import gzip
import hashlib
import socket
import threading
import time
from pathlib import Path
from urllib.error import URLError

import pytest
import torchvision.datasets
from filelock import FileLock

from cnnbench.compose import compose
from cnnbench.data.base import ImageData
from cnnbench.data.fashionmnist import FashionMNIST
from cnnbench.data.fetch import TIMEOUT_S, default_root, fetch
from cnnbench.data.idx import FILES
from cnnbench.data.mnist import MNIST
from cnnbench.prepare import build_data
from datafiles import equal, ready, refused, write_idx


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
