"""Helpers for tests of downloads: small published files, their mirrors, and programs that download."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cnnbench.data.datamodule import ImageData
from cnnbench.data.download import http as transfer
from cnnbench.data.download import mirrors
from cnnbench.data.download.fetch import fetch
from cnnbench.data.download.mirrors import Remote
from cnnbench.data.sets import idx as idx_format
from cnnbench.data.sets.cifar10 import CIFAR10
from cnnbench.data.sets.idx import FILES
from cnnbench.data.sets.mnist import MNIST
from cnnbench.errors import DataError
from datafiles import write_idx
from webserver import Behaviour, Server, good, serving

PLAIN = np.random.default_rng(0).bytes(150_000)
PACKED = gzip.compress(PLAIN, mtime=0)
PIECE = PACKED[:60_000]
PART = ".digits.gz.part"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Shortens all waiting times of downloads."""
    for name, value in {
        "CONNECT_S": 1.0,
        "ANSWER_S": 1.0,
        "SILENCE_S": 0.4,
        "PATIENCE_S": 0.2,
        "SLOW": 200_000,
        "STALLED": 25_000,
    }.items():
        monkeypatch.setattr(mirrors if hasattr(mirrors, name) else transfer, name, value)
    monkeypatch.setattr(mirrors, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: None))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("CNNBENCH_MIRROR", raising=False)


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture
def dead() -> str:
    """The address of a closed port."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


@pytest.fixture
def no_network(monkeypatch):
    """Makes every look-up of a host name fail."""

    def unknown(*args, **keys):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)


def mirror(server: Server, name: str, behaviour: Behaviour | list[Behaviour], file: str = "digits.gz") -> str:
    """The address of a mirror with this behaviour for the file."""
    server.paths[f"/{name}/{file}"] = behaviour
    return f"{server.url}{name}/"


def published(
    *addresses: str, content: bytes = PACKED, name: str = "digits.gz", members: tuple[str, ...] = ("digits",)
) -> Remote:
    return Remote(name, len(content), f"sha256:{hashlib.sha256(content).hexdigest()}", addresses, members)


def bring(folder: Path, *remotes: Remote, sums: Mapping[str, str] | None = None) -> None:
    fetch("made", remotes, folder, sums or {})


def failed(folder: Path, *remotes: Remote, sums: Mapping[str, str] | None = None) -> str:
    """The error message of a failed download, which may leave nothing but part files."""
    with pytest.raises(DataError) as caught:
        bring(folder, *remotes, sums=sums)
    assert names(folder) <= {".made.lock", *(f".{remote.name}.part" for remote in remotes)}
    return str(caught.value)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".sha256"}


def piece(folder: Path, content: bytes = PIECE) -> Path:
    """Writes the part file of an earlier attempt, and returns its folder."""
    folder.mkdir(exist_ok=True)
    (folder / PART).write_bytes(content)
    return folder


def code_of(folder: Path, *remotes: Remote, before: str = "", after: str = "") -> str:
    """The code of a program that downloads; it ends with code 2 and the message if that fails."""
    return f"""
import os, sys, time
from pathlib import Path
from cnnbench.data.download import http as transfer, mirrors
from cnnbench.data.download.fetch import fetch
from cnnbench.data.download.mirrors import Remote
from cnnbench.errors import DataError
folder, remotes = Path({str(folder)!r}), {remotes!r}
{before}
try:
    fetch("made", remotes, folder, {{}})
except DataError as error:
    print(error, file=sys.stderr)
    sys.exitcode = 2
else:
    sys.exitcode = 0
{after}
sys.exit(sys.exitcode)
"""


def started(folder: Path, *remotes: Remote, before: str = "", **keys) -> subprocess.Popen:
    """Starts that program in a new process."""
    code = code_of(folder, *remotes, before=before)
    keys = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **keys}
    return subprocess.Popen([sys.executable, "-c", code], **keys)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def tarred(members: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    """The bytes of a `.tar.gz` of files or `TarInfo` entries."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
            else:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def digits(server, tmp_path, monkeypatch) -> type[MNIST]:
    """MNIST with small published files on the test's server; `tmp_path/source` has the unpacked ones."""
    monkeypatch.setattr(idx_format, "PUBLISHED_COUNTS", {"train": 40, "test": 20})
    packed, sums = {}, {}
    for path in write_idx(tmp_path / "source").iterdir():
        packed[f"{path.name}.gz"] = gzip.compress(path.read_bytes(), mtime=0)
        sums[path.name] = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        mirror(server, "mnist", good(packed[f"{path.name}.gz"]), f"{path.name}.gz")
    remotes = tuple(
        published(f"{server.url}mnist/", content=packed[f"{file}.gz"], name=f"{file}.gz", members=(file,))
        for file in FILES
    )
    monkeypatch.setattr(MNIST, "remotes", remotes)
    monkeypatch.setattr(MNIST, "sums", sums)
    monkeypatch.setattr(MNIST, "packed", packed, raising=False)
    return MNIST


@pytest.fixture
def photographs(server, monkeypatch) -> type[CIFAR10]:
    """CIFAR-10 with files of a few bytes (not pickles) on the test's server."""
    contents = {member: member.encode() * 100 for member in CIFAR10.sums}
    archive = tarred(contents)
    monkeypatch.setattr(
        CIFAR10, "sums", {name: f"md5:{hashlib.md5(content).hexdigest()}" for name, content in contents.items()}
    )
    name = CIFAR10.remotes[0].name
    address = mirror(server, "cifar10", good(archive), name)
    monkeypatch.setattr(CIFAR10, "remotes", (published(address, content=archive, name=name, members=tuple(contents)),))
    return CIFAR10


def flip(path: Path, keep_time: bool = False) -> None:
    """Changes one byte of a file; with `keep_time` its modification time stays."""
    times, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@contextmanager
def served_archive(published_set: type[ImageData], folder: Path, monkeypatch) -> Iterator[Server]:
    """A server of the set's archive, packed from `folder`; its checksum becomes the published one."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(folder, folder.name)
    content = packed.getvalue()
    (remote,) = published_set.remotes
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as running:
        running.paths[f"/{remote.name}"] = good(content)
        checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
        here = replace(remote, size=len(content), checksum=checksum, mirrors=(running.url,))
        monkeypatch.setattr(published_set, "remotes", (here,))
        yield running
