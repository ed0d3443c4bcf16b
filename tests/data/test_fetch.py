"""Fetching: mirrors that misbehave, downloads that are cut off, full disks, hostile archives, many processes, the command."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import itertools
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from filelock import FileLock

from cnnbench.__main__ import main
from cnnbench.compose import compose
from cnnbench.data import idx as idx_format
from cnnbench.data import mirrors, transfer
from cnnbench.data.cifar10 import CIFAR10
from cnnbench.data.cifar100 import CIFAR100
from cnnbench.data.fashionmnist import FashionMNIST
from cnnbench.data.fetch import default_root, fetch
from cnnbench.data.idx import FILES
from cnnbench.data.mirrors import Remote
from cnnbench.data.mnist import MNIST
from cnnbench.errors import DataError
from cnnbench.prepare import build_data
from datafiles import equal, ready, refused, write_idx
from webserver import (
    PAGE,
    Behaviour,
    Server,
    another_range,
    answered,
    chunked,
    closing,
    good,
    not_found,
    page,
    redirect,
    serving,
    silent,
    silent_after,
    slow,
    status,
    truncated,
    unannounced,
)

PLAIN = np.random.default_rng(0).bytes(150_000)
PACKED = gzip.compress(PLAIN, mtime=0)
PIECE = PACKED[:60_000]
PART = ".digits.gz.part"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Mirrors are judged within a moment, and asked again at once."""
    for name, value in {
        "CONNECT_S": 1.0,
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
    """The address of a mirror that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


@pytest.fixture
def no_network(monkeypatch):
    """No host has an address."""

    def unknown(*args, **keys):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)


def mirror(server: Server, name: str, behaviour: Behaviour | list[Behaviour], file: str = "digits.gz") -> str:
    """The address of a mirror that answers so when it is asked for the file."""
    server.paths[f"/{name}/{file}"] = behaviour
    return f"{server.url}{name}/"


def published(
    *addresses: str, content: bytes = PACKED, name: str = "digits.gz", members: tuple[str, ...] = ("digits",)
) -> Remote:
    return Remote(name, len(content), f"sha256:{hashlib.sha256(content).hexdigest()}", addresses, members)


def bring(folder: Path, *remotes: Remote, sums: Mapping[str, str] | None = None) -> None:
    fetch("made", remotes, folder, sums or {})


def failed(folder: Path, *remotes: Remote, sums: Mapping[str, str] | None = None) -> str:
    """The message with which a fetch fails, having left nothing but a piece to go on with."""
    with pytest.raises(DataError) as caught:
        bring(folder, *remotes, sums=sums)
    assert names(folder) <= {".made.lock", *(f".{remote.name}.part" for remote in remotes)}
    return str(caught.value)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".sha256"}


def piece(folder: Path, content: bytes = PIECE) -> Path:
    """What an earlier attempt has left."""
    folder.mkdir(exist_ok=True)
    (folder / PART).write_bytes(content)
    return folder


# ---- one mirror, and what it may do ----------------------------------------------------------------------------------

MISBEHAVIOURS: dict[str, tuple[Callable[[], Behaviour], str]] = {  # who: (what it does, what the message says of it)
    "has no such file": (not_found, "HTTP 404 Not Found"),
    "forbids it": (lambda: status(403), "HTTP 403"),
    "is out of order": (lambda: status(503), "HTTP 503"),
    "sends nothing with 204": (lambda: status(204), "HTTP 204"),
    "sends a web page": (page, "sent a web page"),
    "sends a web page as an archive": (lambda: page(kind="application/gzip"), f"has a file of {len(PAGE)} bytes"),
    "sends a web page without type and length": (lambda: unannounced(PAGE), f"stopped after {len(PAGE)} of"),
    "sends a web page in chunks": (lambda: chunked(PAGE), f"stopped after {len(PAGE)} of"),
    "sends a web page in chunks, and says so": (lambda: chunked(PAGE, Content_Type="text/html"), "sent a web page"),
    "sends a web page as long as the file": (lambda: page(PAGE.ljust(len(PACKED)), "image/gif"), "checksum is wrong"),
    "sends a web page longer than the file": (lambda: unannounced(PAGE.ljust(len(PACKED) + 9)), "checksum is wrong"),
    "sends nothing": (lambda: unannounced(b""), "stopped after 0 of"),
    "sends another file of this length": (lambda: good(PACKED[::-1]), "checksum is wrong"),
    "sends another file, and knows no ranges": (lambda: good(PACKED[::-1], ranges=False), "checksum is wrong"),
    "has a longer file": (lambda: good(PACKED + b"x"), f"has a file of {len(PACKED) + 1:,} bytes, expected"),
    "has a shorter file": (lambda: good(PACKED[:-1]), f"has a file of {len(PACKED) - 1:,} bytes, expected"),
    "has a shorter file of untold length": (lambda: chunked(PACKED[:-1]), f"stopped after {len(PACKED) - 1:,} of"),
    "cuts each answer off": (lambda: truncated(PACKED, 7_000), "stopped after 14,000 of"),
    "cuts each answer off, and knows no ranges": (lambda: truncated(PACKED, 7_000, False), "stopped after 7,000 of"),
    "hangs up": (closing, ""),
    "says nothing": (silent, "no answer in time"),
    "falls silent": (lambda: silent_after(PACKED, 7_000), "stopped after"),
    "dribbles": (lambda: slow(PACKED, 10_000), "too slow"),
    "redirects to nowhere": (lambda: redirect("http://127.0.0.1:1/"), "connection refused"),
    "redirects to itself": (lambda: redirect("digits.gz"), "redirects"),
    "redirects to no address": (lambda: redirect("http://[/"), ""),
    "redirects to bytes that are no text": (
        lambda: answered(b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1/\xff\r\n\r\n"),
        "",
    ),
    "redirects to another protocol": (lambda: redirect("ftp://127.0.0.1/digits.gz"), ""),
    "does not speak HTTP": (lambda: answered(b"220 ready\r\n"), ""),
    "sends half a header": (lambda: answered(b"HTTP/1.1 200 OK\r\nContent-Le"), ""),
    "tells a length that is no number": (
        lambda: answered(b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n" + PAGE),
        "stopped after",
    ),
    "tells a negative length": (lambda: answered(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + PAGE), ""),
    "colours the screen": (lambda: answered(b"HTTP/1.1 404 \x1b[31mgone\r\n\r\n"), "HTTP 404"),
    "has much to say": (lambda: answered(b"HTTP/1.1 404 " + b"gone " * 10_000 + b"\r\n\r\n"), "HTTP 404"),
    "sends chunks that are none": (
        lambda: answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + PAGE),
        "",
    ),
}


@pytest.mark.parametrize("mischief", MISBEHAVIOURS)
def test_where_the_only_mirror_misbehaves_one_error_says_how_when_it(tmp_path, server, mischief):
    make, reason = MISBEHAVIOURS[mischief]
    text = failed(tmp_path, published(mirror(server, "bad", make())))
    assert text.startswith(f"data=made: not in {tmp_path}, and cannot be downloaded (127.0.0.1:{server.server_port}: ")
    assert reason in text
    assert len(text) < 700
    assert all(line.isprintable() for line in text.splitlines())
    assert not re.search(r"Errno|IncompleteRead|RemoteDisconnected|BadStatusLine|HTTPConnectionPool", text)


@pytest.mark.parametrize("mischief", MISBEHAVIOURS)
def test_a_good_mirror_makes_up_for_one_that(tmp_path, server, mischief):
    bad = mirror(server, "bad", MISBEHAVIOURS[mischief][0]())
    bring(tmp_path, published(bad, mirror(server, "good", good(PACKED))))
    assert (tmp_path / "digits").read_bytes() == PLAIN
    assert names(tmp_path) == {"digits", ".made.lock"}


@pytest.mark.parametrize("mischief", MISBEHAVIOURS)
def test_what_is_left_by_a_failure_does_not_spoil_the_next_attempt_after_a_mirror_that(tmp_path, server, mischief):
    bad = published(mirror(server, "bad", MISBEHAVIOURS[mischief][0]()))
    failed(tmp_path, bad)
    mirror(server, "bad", good(PACKED))
    bring(tmp_path, bad)
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_good_mirror_without_ranges_makes_up_for_one_that_lies(tmp_path, server):
    lying, plain = mirror(server, "bad", unannounced(PAGE)), mirror(server, "good", good(PACKED, ranges=False))
    bring(tmp_path, published(lying, plain))
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_mirror_that_is_not_there_is_told_in_one_error(tmp_path, dead):
    assert "connection refused" in failed(tmp_path, published(dead))


def test_a_good_mirror_makes_up_for_one_that_is_not_there(tmp_path, server, dead):
    bring(tmp_path, published(dead, mirror(server, "good", good(PACKED))))
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_name_that_is_not_known_is_told_as_no_network(tmp_path, no_network):
    assert "example.org: no such host, or no network" in failed(tmp_path, published("http://example.org/"))


def test_what_each_mirror_did_is_told(tmp_path, server, dead):
    text = failed(tmp_path, published(dead, mirror(server, "bad", not_found())))
    assert f"({dead[7:-1]}: connection refused; 127.0.0.1:{server.server_port}: HTTP 404 Not Found)" in text


@pytest.mark.parametrize(
    "behaviour",
    {
        "in chunks": chunked(PACKED),
        "without telling its length": unannounced(PACKED),
        "with more behind it": unannounced(PACKED + b"more"),
        "and calls its packing an encoding": unannounced(PACKED, Content_Encoding="gzip"),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_mirror_may_send_the_file(tmp_path, server, behaviour):
    bring(tmp_path, published(mirror(server, "good", behaviour[1])))
    assert (tmp_path / "digits").read_bytes() == PLAIN


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_and_asked_for_the_rest(tmp_path, server, code):
    mirror(server, "new", good(PACKED))
    moved = mirror(server, "old", status(code, Location="/new/digits.gz"))
    bring(piece(tmp_path), published(moved))
    assert [request.range for request in server.asked("/new/digits.gz")] == [f"bytes={len(PIECE)}-"]
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_mirror_that_is_out_of_order_for_a_moment_is_asked_again(tmp_path, server):
    bring(tmp_path, published(mirror(server, "a", [status(503), good(PACKED)])))
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_every_mirror_is_asked_before_one_is_asked_again(tmp_path, server):
    failed(tmp_path, published(*(mirror(server, name, not_found()) for name in "abc")))
    assert [request.path[1] for request in server.requests] == list("abcabc")


def test_there_is_a_pause_before_mirrors_are_asked_again(tmp_path, server, monkeypatch):
    pauses = []
    monkeypatch.setattr(mirrors, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append))
    failed(tmp_path, published(mirror(server, "a", not_found()), mirror(server, "b", not_found())))
    assert pauses == [1]


# ---- slow mirrors ----------------------------------------------------------------------------------------------------


def test_a_faster_mirror_is_tried_before_one_that_is_merely_slow_and_goes_on_where_that_was(tmp_path, server):
    crawling = mirror(server, "slow", slow(PACKED, 60_000))
    bring(tmp_path, published(crawling, mirror(server, "good", good(PACKED))))
    (going_on,) = server.asked("/good/digits.gz")
    assert going_on.range is not None
    assert 0 < going_on.sent < len(PACKED)
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_two_mirrors_that_are_merely_slow_give_the_file_together(tmp_path, server):
    content = gzip.compress(PLAIN[:60_000], mtime=0)
    addresses = [mirror(server, name, slow(content, 80_000)) for name in "ab"]
    bring(tmp_path, published(*addresses, content=content))
    begun = [int(request.range[6:-1]) if request.range else 0 for request in server.requests]
    assert begun == sorted(set(begun))
    assert (tmp_path / "digits").read_bytes() == PLAIN[:60_000]


def test_an_only_mirror_that_is_merely_slow_is_waited_for(tmp_path, server):
    content = gzip.compress(PLAIN[:60_000], mtime=0)
    bring(tmp_path, published(mirror(server, "a", slow(content, 80_000)), content=content))
    assert len(server.requests) == 1
    assert (tmp_path / "digits").read_bytes() == PLAIN[:60_000]


def test_a_mirror_that_begins_fast_and_then_dribbles_is_given_up_soon(tmp_path, server, monkeypatch):
    monkeypatch.setattr(mirrors, "SLOW", 20_000)  # of all that it sends, it has sent more a second for seven seconds
    dribbling = mirror(server, "bad", slow(PACKED, 20, at_once=len(PACKED) - 1_000))
    begun = time.monotonic()
    bring(tmp_path, published(dribbling, mirror(server, "good", good(PACKED))))
    assert time.monotonic() - begun < 3
    assert (tmp_path / "digits").read_bytes() == PLAIN


# ---- pieces ----------------------------------------------------------------------------------------------------------


def test_a_download_goes_on_at_another_mirror_with_the_bytes_that_are_missing(tmp_path, server):
    first, second = mirror(server, "a", truncated(PACKED, 7_000)), mirror(server, "b", good(PACKED))
    bring(tmp_path, published(first, second))
    (going_on,) = server.asked("/b/digits.gz")
    assert (going_on.range, going_on.sent) == ("bytes=7000-", len(PACKED) - 7_000)
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_mirror_that_cuts_answers_off_is_gone_on_with_in_the_second_round(tmp_path, server):
    half = len(PACKED) // 2 + 1
    bring(tmp_path, published(mirror(server, "a", truncated(PACKED, half))))
    assert [request.range for request in server.requests] == [None, f"bytes={half}-"]
    assert sum(request.sent for request in server.requests) == len(PACKED)
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_the_next_attempt_goes_on_where_the_last_one_stopped(tmp_path, server):
    remote = published(mirror(server, "a", truncated(PACKED, 30_000)))
    failed(tmp_path, remote)
    mirror(server, "a", good(PACKED))
    bring(tmp_path, remote)
    assert server.requests[-1].range == "bytes=60000-"
    assert server.requests[-1].sent == len(PACKED) - 60_000
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_mirror_that_knows_no_ranges_sends_the_whole_file_over_a_piece(tmp_path, server):
    bring(piece(tmp_path), published(mirror(server, "a", good(PACKED, ranges=False))))
    assert [(request.range, request.sent) for request in server.requests] == [(f"bytes={len(PIECE)}-", len(PACKED))]
    assert (tmp_path / "digits").read_bytes() == PLAIN


POISON = {
    "a web page": PAGE,
    "other bytes": PIECE[::-1],
    "all but the last byte, one of them wrong": b"?" + PACKED[1:-1],
}


@pytest.mark.parametrize("poison", POISON)
def test_a_piece_that_is_not_of_the_file_is_downloaded_anew_at_once_when_it_is(tmp_path, server, poison):
    bring(piece(tmp_path, POISON[poison]), published(mirror(server, "a", good(PACKED))))
    assert [request.range for request in server.requests] == [f"bytes={len(POISON[poison])}-", None]
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_web_page_that_was_taken_for_a_piece_is_downloaded_anew_after_an_answer_that_is_cut_off(tmp_path, server):
    addresses = (mirror(server, "a", unannounced(PAGE)), mirror(server, "b", truncated(PACKED, 30_000)))
    bring(tmp_path, published(*addresses, mirror(server, "c", good(PACKED))))
    assert (tmp_path / "digits").read_bytes() == PLAIN


@pytest.mark.parametrize("content", [PACKED + b"x", PACKED[::-1]], ids=["longer than the file", "another file"])
def test_a_piece_is_thrown_away_before_anything_is_asked_for_when_it_is(tmp_path, server, content):
    bring(piece(tmp_path, content), published(mirror(server, "a", good(PACKED))))
    assert [request.range for request in server.requests] == [None]
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_piece_that_is_the_whole_file_is_unpacked_without_asking_for_anything(tmp_path, dead):
    bring(piece(tmp_path, PACKED), published(dead))
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_an_empty_piece_is_no_piece(tmp_path, server):
    bring(piece(tmp_path, b""), published(mirror(server, "a", good(PACKED))))
    assert [request.range for request in server.requests] == [None]


@pytest.mark.parametrize("shift", [-1000, 1, 1000])
def test_another_part_of_the_file_than_was_asked_for_is_refused(tmp_path, server, shift):
    text = failed(piece(tmp_path), published(mirror(server, "a", another_range(PACKED, shift))))
    assert "sent another part of the file than was asked for" in text
    assert (tmp_path / PART).read_bytes() == PIECE


def test_a_piece_outlives_mirrors_that_have_nothing_to_add(tmp_path, server, dead):
    bad = [
        mirror(server, name, MISBEHAVIOURS[name][0]()) for name in ("sends a web page", "has no such file", "hangs up")
    ]
    shorter = mirror(server, "shorter", good(PACKED[:1000]))
    failed(piece(tmp_path), published(dead, *bad, shorter))
    assert (tmp_path / PART).read_bytes() == PIECE


def test_a_mirror_whose_file_ends_before_the_piece_does_is_told_to_have_a_shorter_file(tmp_path, server):
    assert "has a shorter file" in failed(piece(tmp_path), published(mirror(server, "a", good(PACKED[:1000]))))


# ---- what is asked for, and what is shown ----------------------------------------------------------------------------


def test_nothing_is_asked_for_where_everything_is_there(tmp_path, server):
    (tmp_path / "digits").write_bytes(b"whatever it is")
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert server.requests == []


def test_only_the_files_that_are_absent_are_asked_for(tmp_path, server):
    remotes = [
        published(mirror(server, "a", good(PACKED), f"{name}.gz"), name=f"{name}.gz", members=(name,))
        for name in ("one", "two", "three")
    ]
    (tmp_path / "two").write_bytes(b"there")
    bring(tmp_path, *remotes)
    assert [request.path for request in server.requests] == ["/a/one.gz", "/a/three.gz"]
    assert (tmp_path / "two").read_bytes() == b"there"


def test_a_file_with_an_md5_sum_is_checked_by_that(tmp_path, server):
    remote = published(mirror(server, "a", [good(PACKED[::-1]), good(PACKED)]))
    bring(tmp_path, replace(remote, checksum=f"md5:{hashlib.md5(PACKED).hexdigest()}"))
    assert len(server.requests) == 2
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_file_gets_its_name_only_when_it_is_whole(tmp_path, server, monkeypatch):
    seen = []
    rename = os.replace

    def noted(one, other):
        seen.append((names(tmp_path), Path(one).read_bytes()))
        rename(one, other)

    monkeypatch.setattr(os, "replace", noted)
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    before, content = seen[-1]
    assert "digits" not in before
    assert content == PLAIN


def test_what_is_downloaded_and_how_large_it_is_is_a_line_where_there_is_no_terminal(tmp_path, server, capfd):
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert capfd.readouterr() == ("", "made: downloading digits.gz, 0.2 MB\n")


def test_a_long_download_tells_its_share_now_and_then(tmp_path, server, monkeypatch, capfd):
    minutes = itertools.count(step=11)
    monkeypatch.setattr(mirrors, "time", SimpleNamespace(monotonic=lambda: next(minutes), sleep=None))
    monkeypatch.setattr(mirrors, "STALLED", 0)
    bring(tmp_path, published(mirror(server, "a", slow(PACKED, 400_000))))
    lines = capfd.readouterr().err.splitlines()
    shares = [int(line.removeprefix("made: digits.gz ").removesuffix("%")) for line in lines[1:]]
    assert lines[0].startswith("made: downloading digits.gz")
    assert shares == sorted(shares)
    assert shares[-1] == 100


def code_of(folder: Path, *remotes: Remote, before: str = "", after: str = "") -> str:
    """A program that fetches; a refusal ends it with code 2 and the message."""
    return f"""
import os, sys, time
from pathlib import Path
from cnnbench.data import mirrors, transfer
from cnnbench.data.fetch import fetch
from cnnbench.data.mirrors import Remote
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
    """That program in a process of its own."""
    code = code_of(folder, *remotes, before=before)
    keys = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **keys}
    return subprocess.Popen([sys.executable, "-c", code], **keys)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_terminal_is_shown_a_bar(tmp_path, server):
    ours, theirs = pty.openpty()
    remote = published(mirror(server, "a", slow(PACKED, 300_000)))
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = started(tmp_path, remote, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:
            break
    os.close(ours)
    assert process.wait(20) == 0
    text = shown.decode(errors="replace")
    for part in ("made: digits.gz", "━", "/s"):
        assert part in text


# ---- processes that are killed, and many at once ---------------------------------------------------------------------


def test_a_download_that_was_killed_is_gone_on_with_by_the_next_process(tmp_path, server):
    remote = published(mirror(server, "a", slow(PACKED, 200_000)))
    process = started(tmp_path, remote)
    wait_until(lambda: (tmp_path / PART).is_file() and (tmp_path / PART).stat().st_size > 20_000)
    process.kill()
    process.communicate(timeout=20)
    have = (tmp_path / PART).stat().st_size
    assert names(tmp_path) <= {".made.lock", PART}
    assert (tmp_path / PART).read_bytes() == PACKED[:have]
    mirror(server, "a", good(PACKED))
    second = started(tmp_path, remote)
    _, errors = second.communicate(timeout=20)
    assert second.returncode == 0, errors
    assert "waiting" not in errors
    assert server.requests[-1].range == f"bytes={have}-"
    assert server.requests[-1].sent == len(PACKED) - have
    assert (tmp_path / "digits").read_bytes() == PLAIN
    assert names(tmp_path) == {".made.lock", "digits"}


@pytest.mark.parametrize("moment", ["unpacking", "renaming", "tidying"])
def test_a_process_that_was_killed_is_made_up_for_by_the_next_one_when_it_was(tmp_path, server, moment):
    content = tarred({"set/a": PLAIN, "set/b": PLAIN[::-1]})
    remote = published(
        mirror(server, "a", good(content), "set.tar.gz"), content=content, name="set.tar.gz", members=("set/a", "set/b")
    )
    function = {"unpacking": "shutil.copyfileobj", "renaming": "os.replace", "tidying": "Path.unlink"}[moment]
    second_call = moment != "tidying"
    before = f"""
import shutil
original, calls = {function}, []
def dying(*args, **keys):
    if calls or not {second_call}:
        os.kill(os.getpid(), 9)
    calls.append(1)
    return original(*args, **keys)
{function} = dying
"""
    process = started(tmp_path, remote, before=before)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL
    bring(tmp_path, remote)
    assert len(server.requests) == 1
    assert (tmp_path / "set" / "a").read_bytes() == PLAIN
    assert (tmp_path / "set" / "b").read_bytes() == PLAIN[::-1]
    assert not list(tmp_path.rglob("*.unpacking"))


def test_four_processes_at_once_download_each_file_once_and_all_have_it(tmp_path, server):
    contents = {name: gzip.compress(PLAIN[n:], mtime=0) for n, name in enumerate(("one", "two", "three", "four"))}
    remotes = [
        published(
            mirror(server, "a", slow(content, 300_000), f"{name}.gz"),
            content=content,
            name=f"{name}.gz",
            members=(name,),
        )
        for name, content in contents.items()
    ]
    gate = tmp_path / "gate"
    before = f"print('here', flush=True)\nwhile not Path({str(gate)!r}).exists(): time.sleep(0.01)"
    folder = tmp_path / "data"
    processes = [started(folder, *remotes, before=before) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "here\n"
    gate.touch()
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors
    assert sorted(request.path for request in server.requests) == sorted(f"/a/{name}.gz" for name in contents)
    assert sum("another process is fetching it; waiting" in text for text in errors) == 3
    for n, name in enumerate(contents):
        assert (folder / name).read_bytes() == PLAIN[n:]
    assert names(folder) == {*contents, ".made.lock"}


def test_a_process_that_waits_says_so_and_finds_what_another_one_brought(tmp_path, dead, capfd):
    waiting = threading.Thread(target=bring, args=(tmp_path, published(dead)))
    with FileLock(tmp_path / ".made.lock"):
        waiting.start()
        waiting.join(1.3)
        assert waiting.is_alive()
        assert capfd.readouterr() == ("", "made: another process is fetching it; waiting\n")
        (tmp_path / "digits").write_bytes(PLAIN)
    waiting.join(10)
    assert not waiting.is_alive()
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_the_lock_is_free_after_a_failure(tmp_path, dead):
    failed(tmp_path, published(dead))
    with FileLock(tmp_path / ".made.lock", timeout=0):
        pass


# ---- disks -----------------------------------------------------------------------------------------------------------


def disk_with(free: int):
    return lambda folder: SimpleNamespace(total=10**12, used=10**12 - free, free=free)


def test_nothing_is_asked_for_where_the_disk_has_no_room_for_the_file(tmp_path, server, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", disk_with(free=len(PACKED) - 1))
    text = failed(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert text.startswith(
        f"{tmp_path}: no room (digits.gz needs 0.2 MB, 0 MB are free); make some, or name another folder"
    )
    assert "\n" not in text
    assert server.requests == []


def test_room_for_the_rest_of_a_file_is_enough(tmp_path, server, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", disk_with(free=len(PACKED) - len(PIECE)))
    bring(piece(tmp_path), published(mirror(server, "a", good(PACKED))))
    assert (tmp_path / "digits").read_bytes() == PLAIN


DEV_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


@DEV_FULL
@pytest.mark.parametrize("rate", [None, 20_000], ids=["in large pieces", "in small pieces"])
def test_a_disk_that_fills_up_while_the_file_comes_is_told_as_no_room_and_no_other_mirror_is_asked(
    tmp_path, server, rate, monkeypatch
):
    monkeypatch.setattr(mirrors, "STALLED", 0)
    (tmp_path / PART).symlink_to("/dev/full")
    first = mirror(server, "a", slow(PACKED, rate) if rate else good(PACKED))
    text = failed(tmp_path, published(first, mirror(server, "b", good(PACKED))))
    assert text.startswith(f"{tmp_path}: no room (No space left on device, ")
    assert [request.path for request in server.requests] == ["/a/digits.gz"]


@DEV_FULL
def test_a_small_file_for_which_there_is_no_room_is_told_as_no_room(tmp_path, server):
    (tmp_path / PART).symlink_to("/dev/full")
    content = gzip.compress(b"few bytes")
    assert "no room" in failed(tmp_path, published(mirror(server, "a", good(content)), content=content))


def test_a_disk_that_is_full_while_it_is_unpacked_to_leaves_nothing_half_done(tmp_path, server, monkeypatch):
    def full(source, target, length):
        target.write(source.read(10))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    remote = published(mirror(server, "a", good(PACKED)))
    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfileobj", full)
        assert "no room (No space left on device" in failed(tmp_path, remote)
    bring(tmp_path, remote)
    assert len(server.requests) == 1
    assert (tmp_path / "digits").read_bytes() == PLAIN


@pytest.mark.parametrize("rate", [10**9, 40_000], ids=["in large pieces", "in small pieces"])
def test_a_limit_to_the_size_of_files_is_told_as_no_room_and_the_piece_is_gone_on_with(tmp_path, server, rate):
    remote = published(mirror(server, "a", slow(PACKED, rate)), mirror(server, "b", good(PACKED)))
    limited = started(
        tmp_path, remote, before="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))"
    )
    _, errors = limited.communicate(timeout=30)
    assert limited.returncode == 2, errors
    assert f"{tmp_path}: no room (File too large" in errors
    assert "Traceback" not in errors
    have, asked = (tmp_path / PART).stat().st_size, len(server.requests)
    assert 0 < have <= 20_000
    assert asked == 1
    bring(tmp_path, remote)
    assert server.requests[asked].range == f"bytes={have}-"
    assert (tmp_path / "digits").read_bytes() == PLAIN


def mounted(script: str, folder: Path, code: str) -> subprocess.CompletedProcess:
    """Runs a program after the shell script, which mounts `$0`, in a name space of its own; skips where that is not permitted."""
    trial = subprocess.run(["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"], capture_output=True, text=True)
    if trial.returncode:
        pytest.skip(f"nothing can be mounted here: {trial.stderr.strip()}")
    command = ["unshare", "-rm", "sh", "-c", f'set -e; {script}; exec "$@"', str(folder), sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


LISTED = "print(sorted(path.name for path in folder.iterdir() if path.suffix not in ('.lock', '.sha256')))"


def test_a_disk_without_room_for_the_archive_is_told_in_one_line(tmp_path, server):
    remote = published(mirror(server, "a", good(PACKED)))
    done = mounted('mount -t tmpfs -o size=64k tmpfs "$0"', tmp_path, code_of(tmp_path, remote, after=LISTED))
    assert (done.returncode, done.stdout) == (2, "[]\n")
    assert done.stderr.startswith(f"{tmp_path}: no room (digits.gz needs 0.2 MB, 0 MB are free)")
    assert done.stderr.count("\n") == 1


def test_a_disk_without_room_for_what_is_in_the_archive_is_told_and_gone_on_with_once_there_is(tmp_path, server):
    content = gzip.compress(bytes(1_000_000))
    remote = published(mirror(server, "a", good(content)), content=content)
    again = f"""
{LISTED}
import subprocess
subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)
fetch("made", remotes, folder, {{}})
{LISTED}
print((folder / "digits").read_bytes() == bytes(1_000_000))
"""
    done = mounted('mount -t tmpfs -o size=256k tmpfs "$0"', tmp_path, code_of(tmp_path, remote, after=again))
    assert done.stdout == f"['{PART}']\n['digits']\nTrue\n", done.stderr
    assert f"{tmp_path}: no room (No space left on device, " in done.stderr
    assert len(server.requests) == 1


READ_ONLY = 'mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"'


def test_a_folder_that_cannot_be_written_is_told_with_what_to_do(tmp_path, server):
    remote = published(mirror(server, "a", good(PACKED)))
    done = mounted(READ_ONLY, tmp_path, code_of(tmp_path, remote))
    assert done.returncode == 2
    assert f"data=made: not in {tmp_path}, and cannot be downloaded" in done.stderr
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
    assert server.requests == []


def test_a_piece_that_cannot_be_written_is_not_blamed_on_the_mirror(tmp_path, server):
    (tmp_path / PART).mkdir()
    with pytest.raises(DataError) as caught:
        bring(tmp_path, published(mirror(server, "a", good(PACKED)), mirror(server, "b", good(PACKED))))
    assert "127.0.0.1" not in str(caught.value).splitlines()[0]
    assert len(server.requests) <= 1


def test_a_set_that_is_whole_on_a_disk_that_cannot_be_written_needs_nothing(tmp_path, server):
    (tmp_path / "digits").write_bytes(PLAIN)
    done = mounted(READ_ONLY, tmp_path, code_of(tmp_path, published(mirror(server, "a", good(PACKED)))))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_root_that_is_a_file_is_told_with_what_to_do(tmp_path, dead):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"Not a directory.*data=mnist5k needs no download"):
        bring(tmp_path / "file" / "data", published(dead))


def test_a_root_whose_name_is_too_long_is_refused(tmp_path):
    assert "File name too long" in refused(MNIST(root=tmp_path / ("x" * 300)))


# ---- archives --------------------------------------------------------------------------------------------------------


def tarred(members: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    """A `.tar.gz` of files, or of what a `TarInfo` describes."""
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


def link(kind: bytes, to: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo()
    entry.type, entry.linkname = kind, to
    return entry


def packed_set(server: Server, content: bytes) -> Remote:
    address = mirror(server, "a", good(content), "set.tar.gz")
    return published(address, content=content, name="set.tar.gz", members=("set/a", "set/b"))


def test_a_tar_is_unpacked_to_its_members(tmp_path, server):
    bring(tmp_path, packed_set(server, tarred({"set/a": b"A", "./set/b": b"B", "set/more": b"?"})))
    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    kept = {name: files.pop(f"set/.{name}.sha256").decode().strip() for name in "ab"}
    assert files == {"set/a": b"A", "set/b": b"B", ".made.lock": b""}
    assert kept == {name: hashlib.sha256(name.upper().encode()).hexdigest() for name in "ab"}


@pytest.mark.parametrize("member", ["../x", "set/../../x", "/x", "{outside}/x", "set/.."])
def test_an_archive_with_a_member_outside_its_folder_is_refused(tmp_path, server, member):
    folder, outside = tmp_path / "data", tmp_path / "outside"
    outside.mkdir()
    member = member.format(outside=outside)
    text = failed(folder, packed_set(server, tarred({"set/a": b"A", member: b"evil", "set/b": b"B"})))
    assert f"not unpacked, its member {member} would leave the folder" in text
    assert "\n" not in text
    assert names(tmp_path) == {"data", "outside"}
    assert names(outside) == set()
    assert not Path("/x").exists()


@pytest.mark.parametrize("kind", ["SYMTYPE", "LNKTYPE", "DIRTYPE", "FIFOTYPE", "CHRTYPE"])
def test_a_member_that_is_no_file_is_not_unpacked_when_it_is_of(tmp_path, server, kind):
    entry = link(getattr(tarfile, kind), "a")
    assert "does not hold set/b" in failed(tmp_path, packed_set(server, tarred({"set/a": b"A", "set/b": entry})))


def test_a_link_in_an_archive_leads_nothing_out_of_the_folder(tmp_path, server):
    folder, outside = tmp_path / "data", tmp_path / "outside"
    outside.mkdir()
    bring(
        folder, packed_set(server, tarred({"set": link(tarfile.SYMTYPE, str(outside)), "set/a": b"A", "set/b": b"B"}))
    )
    assert names(outside) == set()
    assert (folder / "set" / "a").read_bytes() == b"A"
    assert not (folder / "set").is_symlink()


def test_an_archive_that_lacks_a_member_is_refused_by_the_member(tmp_path, server):
    text = failed(tmp_path, packed_set(server, tarred({"set/a": b"A"})))
    assert "corrupt, it does not hold set/b" in text


def test_a_member_with_another_sum_than_the_published_one_is_refused(tmp_path, server):
    sums = {"set/b": f"md5:{hashlib.md5(b'not B').hexdigest()}"}
    text = failed(tmp_path, packed_set(server, tarred({"set/a": b"A", "set/b": b"B"})), sums=sums)
    assert "set/b in it has another checksum than the published one" in text


TAR = tarred({"set/a": PLAIN, "set/b": PLAIN})
CORRUPT = {
    "cut off": TAR[:-20_000],
    "empty": b"",
    "one of other bytes in its midst": TAR[:90_000] + bytes(2_000) + TAR[92_000:],
    "no archive": PAGE,
    "packed, but of no files": gzip.compress(PLAIN),
    "packed, but of nothing": gzip.compress(b""),
}


@pytest.mark.parametrize("damage", CORRUPT)
def test_a_tar_of_the_right_sum_that_is_corrupt_is_refused_when_it_is(tmp_path, server, damage):
    if damage == "empty":
        (tmp_path / ".set.tar.gz.part").touch()
    sums = {member: f"md5:{hashlib.md5(PLAIN).hexdigest()}" for member in ("set/a", "set/b")}
    text = failed(tmp_path, packed_set(server, CORRUPT[damage]), sums=sums)
    assert text.startswith(f"{tmp_path / '.set.tar.gz.part'}: corrupt")
    assert "\n" not in text


WRONG_CRC = PACKED[:-8] + bytes(4) + PACKED[-4:]


@pytest.mark.parametrize(
    "content",
    [PACKED[:-20_000], PACKED[:-3], WRONG_CRC, PACKED[:50_000] + bytes(2_000) + PACKED[52_000:], PAGE, PLAIN],
    ids=["cut off", "cut off at its end", "of another CRC", "of other bytes in its midst", "a page", "not packed"],
)
def test_a_gz_of_the_right_sum_that_is_corrupt_is_refused_when_it_is(tmp_path, server, content):
    text = failed(tmp_path, published(mirror(server, "a", good(content)), content=content))
    assert text.startswith(f"{tmp_path / PART}: corrupt")
    assert "\n" not in text


def test_a_corrupt_archive_leaves_the_files_that_are_there_as_they_are(tmp_path, server):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").write_bytes(b"mine")
    remote = packed_set(server, TAR[:-20_000])
    with pytest.raises(DataError):
        bring(tmp_path, remote)
    assert names(tmp_path / "set") == {"a"}
    assert (tmp_path / "set" / "a").read_bytes() == b"mine"


def test_an_archive_that_was_put_there_by_hand_is_unpacked_and_stays(tmp_path, dead):
    (tmp_path / "digits.gz").write_bytes(PACKED)
    bring(tmp_path, published(dead))
    assert (tmp_path / "digits").read_bytes() == PLAIN
    assert (tmp_path / "digits.gz").read_bytes() == PACKED


@pytest.mark.parametrize("content", [PIECE, PACKED[::-1], b""], ids=["a part", "another file", "nothing"])
def test_an_archive_put_there_by_hand_that_is_not_the_published_one_is_left_alone_when_it_is(tmp_path, server, content):
    (tmp_path / "digits.gz").write_bytes(content)
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert (tmp_path / "digits").read_bytes() == PLAIN
    assert (tmp_path / "digits.gz").read_bytes() == content


def test_an_archive_put_there_by_hand_that_is_not_the_published_one_is_named_where_nothing_can_be_downloaded(
    tmp_path, dead
):
    (tmp_path / "digits.gz").write_bytes(PIECE)
    with pytest.raises(DataError) as caught:
        bring(tmp_path, published(dead))
    assert str(tmp_path / "digits.gz") in str(caught.value)


def test_an_archive_put_there_by_hand_that_is_corrupt_inside_is_named(tmp_path, dead):
    (tmp_path / "digits.gz").write_bytes(WRONG_CRC)
    with pytest.raises(DataError, match=r"digits\.gz: corrupt"):
        bring(tmp_path, published(dead, content=WRONG_CRC))
    assert "digits" not in names(tmp_path)


# ---- a mirror of one's own -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_mirror_of_ones_own_is_asked_first_in_a_folder_of_the_sets_name(tmp_path, server, monkeypatch, slash):
    monkeypatch.setenv("CNNBENCH_MIRROR", f"{server.url}own{slash}")
    server.paths["/own/made/digits.gz"] = good(PACKED)
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert [request.path for request in server.requests] == ["/own/made/digits.gz"]
    assert (tmp_path / "digits").read_bytes() == PLAIN


@pytest.mark.parametrize(
    "address",
    [
        "nonsense",
        "/a/folder",
        "ftp://127.0.0.1",
        "http://",
        "http://[",
        "http://127.0.0.1:99999",
        "http://." + "x" * 80,
    ],
)
def test_the_published_mirrors_make_up_for_one_of_ones_own_that_is_no_address(tmp_path, server, monkeypatch, address):
    monkeypatch.setenv("CNNBENCH_MIRROR", address)
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert (tmp_path / "digits").read_bytes() == PLAIN


@pytest.mark.parametrize("mischief", ["has no such file", "sends a web page", "says nothing", "hangs up"])
def test_the_published_mirrors_make_up_for_one_of_ones_own_that(tmp_path, server, monkeypatch, mischief):
    monkeypatch.setenv("CNNBENCH_MIRROR", server.url)
    server.paths["/made/digits.gz"] = MISBEHAVIOURS[mischief][0]()
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert [request.path for request in server.requests] == ["/made/digits.gz", "/a/digits.gz"]


def test_the_password_of_a_mirror_of_ones_own_is_not_shown(tmp_path, server, monkeypatch):
    monkeypatch.setenv("CNNBENCH_MIRROR", f"http://me:secret@127.0.0.1:{server.server_port}")
    text = failed(tmp_path, published(mirror(server, "a", not_found())))
    assert "secret" not in text


def test_an_empty_mirror_of_ones_own_is_none(tmp_path, server, monkeypatch):
    monkeypatch.setenv("CNNBENCH_MIRROR", "")
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert [request.path for request in server.requests] == ["/a/digits.gz"]


# ---- the sets --------------------------------------------------------------------------------------------------------

FETCHABLE = [MNIST, FashionMNIST, CIFAR10, CIFAR100]


@pytest.mark.parametrize("kind", FETCHABLE)
def test_offline_one_message_has_each_file_its_size_its_sum_its_address_and_the_folder_for_it(
    tmp_path, no_network, kind
):
    data = kind(root=tmp_path)
    first, *lines = refused(data).splitlines()
    for part in (f"data={data.name}", str(data.folder), "no network", "data.root=", "data=mnist5k needs no download"):
        assert part in first
    assert len(lines) == len(kind.remotes)
    for line, remote in zip(lines, kind.remotes, strict=True):
        checksum = remote.checksum.replace(":", " ")
        for part in (remote.name, f"{remote.size:,} bytes", checksum, f"{remote.mirrors[0]}{remote.name}"):
            assert part in line


def test_only_the_files_that_are_absent_are_named_offline(tmp_path, no_network):
    folder = write_idx(tmp_path)
    (folder / FILES[2]).unlink()
    text = refused(MNIST(root=tmp_path))
    assert [file for file in FILES if file in text] == [FILES[2]]


def test_files_put_there_by_hand_as_the_message_says_are_used(tmp_path, no_network, digits):
    folder = digits(root=tmp_path).folder
    text = refused(digits(root=tmp_path))
    assert str(folder) in text
    for remote in digits.remotes:
        (folder / remote.name).write_bytes(digits.packed[remote.name])
    assert len(ready(digits(root=tmp_path)).images["test"]) == 20


def test_complete_files_are_not_asked_for(tmp_path, no_network):
    write_idx(tmp_path)
    assert len(ready(MNIST(root=tmp_path)).images["test"]) == 20


@pytest.fixture
def digits(server, tmp_path, monkeypatch) -> type[MNIST]:
    """MNIST, whose published files are small here, and on this machine's server; their own are in `tmp_path/source`."""
    monkeypatch.setattr(idx_format, "PUBLISHED", (40, 20))
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
    """CIFAR-10, whose files, of a few bytes that are no pickles, are on this machine's server."""
    contents = {member: member.encode() * 100 for member in CIFAR10.sums}
    archive = tarred(contents)
    monkeypatch.setattr(
        CIFAR10, "sums", {name: f"md5:{hashlib.md5(content).hexdigest()}" for name, content in contents.items()}
    )
    name = CIFAR10.remotes[0].name
    address = mirror(server, "cifar10", good(archive), name)
    monkeypatch.setattr(CIFAR10, "remotes", (published(address, content=archive, name=name, members=tuple(contents)),))
    return CIFAR10


def test_an_absent_set_is_fetched_and_is_what_was_published(tmp_path, digits):
    fetched, written = ready(digits(root=tmp_path / "new")), ready(digits(root=tmp_path / "source"))
    assert fetched.fingerprint == written.fingerprint
    for split in ("train", "val", "test"):
        assert equal(fetched.images[split], written.images[split])


def test_a_set_is_fetched_once(tmp_path, digits, server):
    for _ in range(2):
        data = digits(root=tmp_path / "new")
        ready(data)
        data.prepare_data()
    assert sorted(request.path for request in server.requests) == sorted(f"/mnist/{file}.gz" for file in FILES)


def test_a_fetched_file_whose_sum_is_not_that_of_its_content_is_refused(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(digits, "sums", {**digits.sums, FILES[0]: f"sha256:{'0' * 64}"})
    assert f"{FILES[0]} in it has another checksum" in refused(digits(root=tmp_path / "new"))
    assert FILES[0] not in names(tmp_path / "new" / "MNIST" / "raw")


def flip(path: Path, settled: bool = False) -> None:
    """Changes one byte; the file's time of change stays where it is settled."""
    times, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    if settled:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("file", FILES)
def test_a_corrupt_file_of_mnist_is_told_with_the_command_that_replaces_it_and_is_then_good(
    tmp_path, digits, server, file
):
    root = tmp_path / "new"
    ready(digits(root=root))
    path = root / "MNIST" / "raw" / file
    flip(path)
    text = refused(digits(root=root))
    assert text.startswith(f"{path}: corrupt")
    assert "python -m cnnbench fetch mnist" in text
    digits(root=root).mend()
    assert f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" == digits.sums[file]
    assert [request.path for request in server.requests[4:]] == [f"/mnist/{file}.gz"]
    ready(digits(root=root))


@pytest.mark.parametrize("member", ["cifar-10-batches-py/data_batch_3", "cifar-10-batches-py/batches.meta"])
def test_a_corrupt_file_of_cifar10_is_told_with_the_command_that_replaces_it_and_is_then_good(
    tmp_path, photographs, server, member
):
    data = photographs(root=tmp_path)
    data.prepare_data()
    flip(tmp_path / member)
    text = refused(photographs(root=tmp_path))
    assert text.startswith(f"{tmp_path / member}: corrupt")
    assert "python -m cnnbench fetch cifar10" in text
    photographs(root=tmp_path).mend()
    assert (tmp_path / member).read_bytes() == member.encode() * 100
    assert len(server.requests) == 2
    photographs(root=tmp_path).prepare_data()


def test_the_command_that_replaces_a_corrupt_file_names_the_root_where_it_is_another_one(tmp_path, photographs):
    photographs(root=tmp_path).prepare_data()
    flip(tmp_path / "cifar-10-batches-py" / "test_batch")
    assert f"--root {tmp_path}" in refused(photographs(root=tmp_path))


def test_a_corrupt_file_is_replaced_from_an_archive_that_lies_there(tmp_path, photographs, server):
    name = photographs.remotes[0].name
    photographs(root=tmp_path).prepare_data()
    archive = requests.get(f"{server.url}cifar10/{name}").content
    (tmp_path / name).write_bytes(archive)
    flip(tmp_path / "cifar-10-batches-py" / "test_batch")
    before = len(server.requests)
    photographs(root=tmp_path).mend()
    assert len(server.requests) == before
    assert (tmp_path / name).is_file()
    photographs(root=tmp_path).prepare_data()


def test_a_corrupt_file_that_cannot_be_replaced_is_named_and_stays_as_it_is(
    tmp_path, photographs, no_network, monkeypatch
):
    member = tmp_path / "cifar-10-batches-py" / "test_batch"
    for path, content in ((tmp_path / name, name.encode() * 100) for name in photographs.sums):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    flip(member)
    content = member.read_bytes()
    with pytest.raises(DataError) as caught:
        photographs(root=tmp_path).mend()
    assert "no network" in str(caught.value)
    assert "test_batch" in str(caught.value)
    assert member.read_bytes() == content


def test_a_file_that_changed_since_it_was_checked_is_checked_again(tmp_path, photographs):
    photographs(root=tmp_path).prepare_data()
    paths = photographs(root=tmp_path).files()
    for path in paths:
        os.utime(path, (1_000_000_000, 1_000_000_000))
    photographs(root=tmp_path).prepare_data()
    flip(paths[1])
    refused(photographs(root=tmp_path))


def test_files_that_were_checked_are_not_read_again_until_one_changes(tmp_path, photographs, monkeypatch):
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


def test_fetching_finds_a_corrupt_byte_behind_the_back_of_what_is_remembered(tmp_path, photographs):
    photographs(root=tmp_path).prepare_data()
    path = photographs(root=tmp_path).files()[3]
    good_content = path.read_bytes()
    os.utime(path, (1_000_000_000, 1_000_000_000))
    photographs(root=tmp_path).prepare_data()
    flip(path, settled=True)
    photographs(root=tmp_path).mend()
    assert path.read_bytes() == good_content


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="this system has no /proc/self/mem")
def test_a_disk_that_cannot_be_read_is_a_data_error(tmp_path, photographs):
    photographs(root=tmp_path).prepare_data()
    path = photographs(root=tmp_path).files()[2]
    path.unlink()
    path.symlink_to("/proc/self/mem")  # a file that is there, and gives an input/output error when it is read
    text = refused(photographs(root=tmp_path))
    assert str(path) in text


def test_a_corrupt_byte_of_a_set_whose_files_have_no_published_sums_is_found_by_fetching(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(digits, "sums", {})  # as FashionMNIST's: published are the sums of its archives alone
    data = digits(root=tmp_path / "new")
    data.prepare_data()
    path = data.files()[0]
    content = path.read_bytes()
    flip(path)
    digits(root=tmp_path / "new").mend()
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", FETCHABLE)
def test_what_is_published_of_a_set_is_whole_and_well_formed(kind):
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


# ---- where data lies -------------------------------------------------------------------------------------------------


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


# ---- python -m cnnbench fetch ----------------------------------------------------------------------------------------


def test_the_command_brings_a_set_and_says_where_it_lies(tmp_path, digits, capfd):
    root = tmp_path / "new"
    assert main(["fetch", "mnist", "--root", str(root)]) == 0
    out, err = capfd.readouterr()
    assert out.startswith(f"mnist: 40 + 20 images in {root / 'MNIST' / 'raw'}\n    LeCun")
    assert "licence: CC BY-SA 3.0" in out
    assert [line.split(",")[0] for line in err.splitlines()] == [f"mnist: downloading {file}.gz" for file in FILES]
    assert ready(digits(root=root)).fingerprint == ready(digits(root=tmp_path / "source")).fingerprint


def test_without_a_root_the_command_brings_a_set_to_the_default_one(tmp_path, digits, monkeypatch):
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "cache"))
    assert main(["fetch", "mnist"]) == 0
    assert names(tmp_path / "cache" / "MNIST" / "raw") == {*FILES, ".mnist.lock"}


def test_the_command_says_that_a_set_is_there_and_asks_for_nothing(tmp_path, digits, no_network, capfd):
    assert main(["fetch", "mnist", "--root", str(tmp_path / "source")]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("mnist: 40 + 20 images in ")
    assert err == ""


@pytest.mark.parametrize("damage", ["flipped", "cut off", "absent", "empty"])
def test_the_command_replaces_a_file_that_is(tmp_path, digits, server, damage):
    path = tmp_path / "source" / "MNIST" / "raw" / FILES[1]
    content = path.read_bytes()
    {
        "flipped": lambda: flip(path),
        "cut off": lambda: path.write_bytes(content[:20]),
        "absent": path.unlink,
        "empty": lambda: path.write_bytes(b""),
    }[damage]()
    assert main(["fetch", "mnist", "--root", str(tmp_path / "source")]) == 0
    assert path.read_bytes() == content
    assert [request.path for request in server.requests] == [f"/mnist/{FILES[1]}.gz"]


@pytest.mark.parametrize("name", ["synthetic", "mnist5k"])
def test_the_command_says_which_sets_need_no_download(tmp_path, no_network, capfd, name):
    assert main(["fetch", name]) == 0
    assert capfd.readouterr() == (f"{name}: needs no download\n", "")


@pytest.mark.parametrize("order", [["cifar10", "mnist"], ["mnist", "cifar10"]])
def test_a_set_that_fails_does_not_keep_others_from_coming(tmp_path, digits, photographs, server, capfd, order):
    server.paths[f"/cifar10/{photographs.remotes[0].name}"] = not_found()
    assert main(["fetch", *order, "synthetic", "--root", str(tmp_path / "new")]) == 2
    out, err = capfd.readouterr()
    assert "mnist: 40 + 20 images" in out
    assert "synthetic: needs no download" in out
    assert err.count("cnnbench: ") == 1
    assert err.count("HTTP 404") == 1
    assert "data=cifar10: not in " in err


def test_two_sets_that_fail_are_both_told(tmp_path, digits, photographs, server, capfd):
    server.paths.clear()
    assert main(["fetch", "mnist", "cifar10", "--root", str(tmp_path / "new")]) == 2
    err = capfd.readouterr().err
    for name in ("mnist", "cifar10"):
        assert f"data={name}: not in " in err


def test_a_set_that_is_named_twice_is_brought_once(tmp_path, digits, capfd):
    assert main(["fetch", "mnist", "mnist", "--root", str(tmp_path / "new")]) == 0
    assert capfd.readouterr().out.count("mnist: 40 + 20 images") == 1


@pytest.mark.parametrize(
    "folder", ["a b", "it's", 'say "so"', "a=b,c", "${x}", "$HOME", "[1]", "Größe", "back\\slash", "a:b", "%41", "#1"]
)
def test_a_root_may_be_called(tmp_path, digits, capfd, folder):
    assert main(["fetch", "mnist", "--root", str(tmp_path / folder)]) == 0, capfd.readouterr().err
    assert set(FILES) <= names(tmp_path / folder / "MNIST" / "raw")


def test_a_tilde_in_the_root_is_the_home_folder(tmp_path, digits, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main(["fetch", "mnist", "--root", "~/sets"]) == 0
    assert set(FILES) <= names(tmp_path / "home" / "sets" / "MNIST" / "raw")


def test_a_home_folder_that_is_not_known_is_told_in_one_line(digits, monkeypatch, capfd):
    monkeypatch.setenv("CNNBENCH_DATA", "~nobody-of-this-name/sets")
    for arguments in (["fetch", "mnist"], ["fetch", "mnist", "--root", "~nobody-of-this-name"]):
        assert main(arguments) == 2
        err = capfd.readouterr().err
        assert "~nobody-of-this-name" in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["fetch"], "cnnbench: the following arguments are required: SET"),
        (["fetch", "mnits"], "cnnbench: data=mnits: no such data; did you mean mnist"),
        (["fetch", ""], "cnnbench: "),
        (["fetch", "data=mnist"], "cnnbench: data=mnist: fetch takes the names of sets, as in fetch mnist"),
        (["fetch", "mnist,cifar10"], "cnnbench: data=mnist,cifar10: "),
        (["fetch", "../mnist"], "cnnbench: "),
        (["fetch", "mnist", "--rot", "x"], "cnnbench: "),
        (["fetch", "mnist", "--root"], "cnnbench: argument --root: expected one argument"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_nothing_is_asked_for(digits, server, capfd, arguments, line):
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert err.startswith(line)
    assert err.count("\n") == 1
    assert (out, server.requests) == ("", [])


def test_a_misspelt_set_is_told_before_any_other_is_fetched(tmp_path, digits, server, capfd):
    assert main(["fetch", "mnist", "mnits", "--root", str(tmp_path / "new")]) == 2
    assert server.requests == []


# ---- the command in a process of its own -----------------------------------------------------------------------------

PROGRAM = """
import sys
from cnnbench.__main__ import main
from cnnbench.data.mirrors import Remote
from cnnbench.data.mnist import MNIST
MNIST.remotes, MNIST.sums = {remotes!r}, {sums!r}
sys.exit(main(sys.argv[1:]))
"""


def program(kind: type[MNIST], tmp_path: Path, *arguments: str, **keys) -> subprocess.Popen:
    """`python -m cnnbench` of a small MNIST."""
    code = PROGRAM.format(remotes=kind.remotes, sums=kind.sums)
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={**os.environ, "CNNBENCH_DATA": str(tmp_path / "cache"), **keys},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    return process.returncode, out, err


TRAINING = "data=mnist threads=1 epochs=1 trainer=cpu".split()


@pytest.mark.slow
def test_the_first_run_fetches_its_set_and_the_second_one_asks_for_nothing(tmp_path, digits, server):
    code, out, err = ended(program(digits, tmp_path, *TRAINING))
    assert code == 0, err
    assert scored(out)
    assert err.splitlines()[0].startswith("mnist: downloading ")
    assert len(server.requests) == 4
    code, out, err = ended(program(digits, tmp_path, *TRAINING, "seed=1"))
    assert code == 0, err
    assert "downloading" not in err
    assert len(server.requests) == 4


def scored(text: str) -> bool:
    """Whether the table of a result is shown."""
    return any(line.startswith("test ") for line in text.splitlines())


@pytest.mark.slow
def test_two_first_runs_at_once_share_one_download(tmp_path, digits, server):
    for path, content in digits.packed.items():
        server.paths[f"/mnist/{path}"] = slow(content, 20_000)
    runs = [program(digits, tmp_path, *TRAINING, f"seed={seed}") for seed in range(2)]
    for run in runs:
        code, out, err = ended(run)
        assert code == 0, err
        assert scored(out)
    assert sorted(request.path for request in server.requests) == sorted(f"/mnist/{file}.gz" for file in FILES)


@pytest.mark.slow
def test_a_run_whose_set_cannot_be_fetched_ends_with_one_message_and_leaves_nothing(tmp_path, digits, server):
    server.paths.clear()
    code, out, err = ended(program(digits, tmp_path, *TRAINING))
    assert code == 2
    assert out == ""
    assert err.count("cnnbench: ") == 1
    assert all(file in err for file in FILES)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["fetch", "mnist"], TRAINING], ids=["fetch", "training"])
def test_ctrl_c_in_a_download_is_one_line_and_the_next_one_goes_on(tmp_path, digits, server, arguments):
    largest = f"{FILES[0]}.gz"
    server.paths[f"/mnist/{largest}"] = [slow(digits.packed[largest], 20_000), good(digits.packed[largest])]
    first = program(digits, tmp_path, *arguments)
    part = tmp_path / "cache" / "MNIST" / "raw" / f".{largest}.part"
    wait_until(lambda: part.is_file() and part.stat().st_size > 0, 60)
    first.send_signal(signal.SIGINT)
    code, _, err = ended(first)
    assert code == 130
    assert err.splitlines()[1:] == ["cnnbench: interrupted"]
    code, out, err = ended(program(digits, tmp_path, "fetch", "mnist"))
    assert code == 0, err
    assert out.startswith("mnist: 40 + 20 images in ")
    assert server.asked(f"/mnist/{largest}")[1].range is not None


@pytest.mark.slow
def test_the_real_command_with_a_lying_mirror_and_no_network_says_what_to_do(tmp_path, server):
    for remote in MNIST.remotes:
        server.paths[f"/mnist/{remote.name}"] = page()
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:1")
    done = subprocess.run(
        [sys.executable, "-m", "cnnbench", "fetch", "mnist", "--root", str(tmp_path / "new")],
        env={**os.environ, **nowhere, "CNNBENCH_MIRROR": server.url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.count("cnnbench: ") == 1
    assert f"127.0.0.1:{server.server_port}: sent a web page in place of the file" in done.stderr
    for remote in MNIST.remotes:
        assert f"{remote.name}  {remote.size:,} bytes  sha256 {remote.checksum[7:]}" in done.stderr
