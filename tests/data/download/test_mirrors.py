"""Mirrors that misbehave: the result is the right file or one clear error."""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from cnnbench.data.download import mirrors
from fetching import PACKED, PART, PIECE, PLAIN, bring, failed, mirror, names, piece, published
from webserver import (
    PAGE,
    Behaviour,
    another_range,
    answered,
    chunked,
    closing,
    endless,
    good,
    late,
    not_found,
    page,
    redirect,
    silent,
    silent_after,
    slow,
    status,
    truncated,
    unannounced,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MISBEHAVIOURS: dict[str, tuple[Callable[[], Behaviour], str]] = {  # description: (behaviour, what the error says)
    "has no such file": (not_found, "HTTP 404 Not Found"),
    "forbids it": (lambda: status(403), "HTTP 403"),
    "fails": (lambda: status(503), "HTTP 503"),
    "sends nothing with 204": (lambda: status(204), "HTTP 204"),
    "sends a web page": (page, "sent a web page"),
    "sends a web page as an archive": (lambda: page(kind="application/gzip"), f"has a file of {len(PAGE)} bytes"),
    "sends a web page without type and length": (lambda: unannounced(PAGE), f"stopped after {len(PAGE)} of"),
    "sends a web page in chunks": (lambda: chunked(PAGE), f"stopped after {len(PAGE)} of"),
    "sends a web page in chunks, with its type": (lambda: chunked(PAGE, Content_Type="text/html"), "sent a web page"),
    "sends a web page as long as the file": (lambda: page(PAGE.ljust(len(PACKED)), "image/gif"), "checksum is wrong"),
    "sends a web page longer than the file": (lambda: unannounced(PAGE.ljust(len(PACKED) + 9)), "checksum is wrong"),
    "sends nothing": (lambda: unannounced(b""), "stopped after 0 of"),
    "sends another file of this length": (lambda: good(PACKED[::-1]), "checksum is wrong"),
    "sends another file, without ranges": (lambda: good(PACKED[::-1], ranges=False), "checksum is wrong"),
    "has a longer file": (lambda: good(PACKED + b"x"), f"has a file of {len(PACKED) + 1:,} bytes, expected"),
    "has a shorter file": (lambda: good(PACKED[:-1]), f"has a file of {len(PACKED) - 1:,} bytes, expected"),
    "has a shorter file of unknown length": (lambda: chunked(PACKED[:-1]), f"stopped after {len(PACKED) - 1:,} of"),
    "stops each answer early": (lambda: truncated(PACKED, 7_000), "stopped after 14,000 of"),
    "stops each answer early, without ranges": (lambda: truncated(PACKED, 7_000, False), "stopped after 7,000 of"),
    "closes the connection": (closing, ""),
    "does not answer": (silent, "no answer in time"),
    "stops sending": (lambda: silent_after(PACKED, 7_000), "stopped after"),
    "is too slow": (lambda: slow(PACKED, 10_000), "too slow"),
    "redirects to nowhere": (lambda: redirect("http://127.0.0.1:1/"), "connection refused"),
    "redirects to itself": (lambda: redirect("digits.gz"), "redirects"),
    "redirects to an invalid address": (lambda: redirect("http://[/"), ""),
    "redirects to bytes that are not text": (
        lambda: answered(b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1/\xff\r\n\r\n"),
        "",
    ),
    "redirects to another protocol": (lambda: redirect("ftp://127.0.0.1/digits.gz"), ""),
    "does not use HTTP": (lambda: answered(b"220 ready\r\n"), ""),
    "sends half a header": (lambda: answered(b"HTTP/1.1 200 OK\r\nContent-Le"), ""),
    "announces a length that is not a number": (
        lambda: answered(b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n" + PAGE),
        "stopped after",
    ),
    "announces a negative length": (lambda: answered(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + PAGE), ""),
    "sends terminal colours": (lambda: answered(b"HTTP/1.1 404 \x1b[31mgone\r\n\r\n"), "HTTP 404"),
    "sends a very long status line": (lambda: answered(b"HTTP/1.1 404 " + b"gone " * 10_000 + b"\r\n\r\n"), "HTTP 404"),
    "sends invalid chunks": (
        lambda: answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + PAGE),
        "",
    ),
    "asks to continue for ever": (lambda: endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "no answer in time"),
    "asks to continue now and then": (lambda: endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.2), "no answer in time"),
    "sends the status line byte by byte": (lambda: endless(b"HTTP/1.1 200 O", b"K", 0.2), "no answer in time"),
    "sends a header byte by byte": (lambda: endless(b"HTTP/1.1 200 OK\r\nA: ", b"b", 0.2), "no answer in time"),
    "sends a header now and then": (lambda: endless(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n", 0.2), "no answer in time"),
    "sends headers for ever": (lambda: endless(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"), ""),
    "sends one header for ever": (lambda: endless(b"HTTP/1.1 200 OK\r\nA: ", b"b" * 9999), ""),
    "sends 10 MB of headers": (lambda: answered(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1_600_000 + b"\r\n"), ""),
    "redirects to itself, late": (lambda: late(redirect("digits.gz"), 0.2), "no answer in time"),
    "sends the size of a chunk for ever": (lambda: endless(CHUNKED, b"0"), "stopped after 0 of"),
    "sends the size of a chunk byte by byte": (lambda: endless(CHUNKED, b"0", 0.2), "stopped after 0 of"),
    "sends empty lines as chunks": (lambda: endless(CHUNKED, b"\r\n"), "stopped after 0 of"),
    "sends headers after the last chunk for ever": (
        lambda: endless(CHUNKED + b"0\r\n", b"A: b\r\n"),
        "stopped after 0 of",
    ),
    "sends a byte now and then": (lambda: endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0.1), "too slow"),
    "sends chunks of a byte now and then": (lambda: endless(CHUNKED, b"1\r\nx\r\n", 0.1), "too slow"),
    "sends a text as length": (
        lambda: answered(b"HTTP/1.1 200 OK\r\nContent-Length: 1e9\r\n\r\n" + PAGE),
        "stopped after",
    ),
    "sends a length of 5,000 digits": (
        lambda: answered(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n" + PAGE),
        "",
    ),
    "sends two lengths": (
        lambda: answered(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" + PAGE),
        "",
    ),
    "sends NUL bytes": (lambda: answered(b"\0" * 100_000), ""),
    "redirects to a file of this machine": (lambda: redirect("file:///etc/passwd"), ""),
    "sends an escape sequence as reason": (lambda: answered(b"HTTP/1.1 418 \x1b]0;gotcha\x07\r\n\r\n"), "HTTP 418"),
}


@pytest.mark.parametrize("mischief", MISBEHAVIOURS)
def test_the_error_says_what_the_only_mirror_did_wrong(tmp_path, server, mischief):
    make, reason = MISBEHAVIOURS[mischief]
    text = failed(tmp_path, published(mirror(server, "bad", make())))
    assert text.startswith(f"data=made: not in {tmp_path}, and cannot be downloaded (127.0.0.1:{server.server_port}: ")
    assert reason in text
    assert len(text) < 700
    assert all(line.isprintable() for line in text.splitlines())
    assert not re.search(r"Errno|IncompleteRead|RemoteDisconnected|BadStatusLine|HTTPConnectionPool", text)


def test_a_mirror_that_asks_to_continue_for_ever_is_left_for_a_good_one_in_time(tmp_path, server):
    bad = mirror(server, "bad", endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05))
    begun = time.monotonic()
    bring(tmp_path, published(bad, mirror(server, "good", good(PACKED))))
    assert time.monotonic() - begun < 3
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_proxy_that_sends_headers_for_ever_is_given_up(tmp_path, server, monkeypatch):
    server.paths["http://example.org/digits.gz"] = endless(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n", 0.2)
    monkeypatch.setenv("http_proxy", server.url)
    assert "example.org: no answer in time" in failed(tmp_path, published("http://example.org/"))


def test_a_file_comes_through_the_proxy_of_the_environment(tmp_path, server, monkeypatch):
    server.paths["http://example.org/digits.gz"] = good(PACKED)
    monkeypatch.setenv("http_proxy", server.url)
    bring(tmp_path, published("http://example.org/"))
    assert (tmp_path / "digits").read_bytes() == PLAIN


LEFT_BEHIND = [  # nothing, a web page, a wrong file, the beginning of the file
    "has no such file",
    "sends a web page without type and length",
    "sends a web page longer than the file",
    "sends another file of this length",
    "has a shorter file of unknown length",
    "stops each answer early, without ranges",
    "is too slow",
    "does not use HTTP",
]


@pytest.mark.parametrize("mischief", LEFT_BEHIND)
def test_a_good_mirror_replaces_one_that(tmp_path, server, mischief):
    bad = mirror(server, "bad", MISBEHAVIOURS[mischief][0]())
    bring(tmp_path, published(bad, mirror(server, "good", good(PACKED))))
    assert (tmp_path / "digits").read_bytes() == PLAIN
    assert names(tmp_path) == {"digits"}


@pytest.mark.parametrize("mischief", LEFT_BEHIND)
def test_the_next_attempt_succeeds_after_a_mirror_that(tmp_path, server, mischief):
    bad = published(mirror(server, "bad", MISBEHAVIOURS[mischief][0]()))
    failed(tmp_path, bad)
    mirror(server, "bad", good(PACKED))
    bring(tmp_path, bad)
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_good_mirror_without_ranges_replaces_one_that_sends_a_web_page(tmp_path, server):
    lying, plain = mirror(server, "bad", unannounced(PAGE)), mirror(server, "good", good(PACKED, ranges=False))
    bring(tmp_path, published(lying, plain))
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_the_error_says_that_a_mirror_refuses_the_connection(tmp_path, dead):
    assert "connection refused" in failed(tmp_path, published(dead))


def test_a_good_mirror_replaces_one_that_refuses_the_connection(tmp_path, server, dead):
    bring(tmp_path, published(dead, mirror(server, "good", good(PACKED))))
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_an_unknown_host_name_is_reported_as_no_network(tmp_path, no_network):
    assert "example.org: no such host, or no network" in failed(tmp_path, published("http://example.org/"))


def test_the_error_says_what_each_mirror_did(tmp_path, server, dead):
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
def test_a_redirect_is_followed_also_for_the_missing_bytes(tmp_path, server, code):
    mirror(server, "new", good(PACKED))
    moved = mirror(server, "old", status(code, Location="/new/digits.gz"))
    bring(piece(tmp_path), published(moved))
    assert [request.range for request in server.asked("/new/digits.gz")] == [f"bytes={len(PIECE)}-"]
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_mirror_that_fails_once_is_tried_again(tmp_path, server):
    bring(tmp_path, published(mirror(server, "a", [status(503), good(PACKED)])))
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_every_mirror_is_tried_before_one_is_tried_again(tmp_path, server):
    failed(tmp_path, published(*(mirror(server, name, not_found()) for name in "abc")))
    assert [request.path[1] for request in server.requests] == list("abcabc")


def test_there_is_a_pause_between_two_rounds(tmp_path, server, monkeypatch):
    pauses = []
    monkeypatch.setattr(mirrors, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append))
    failed(tmp_path, published(mirror(server, "a", not_found()), mirror(server, "b", not_found())))
    assert pauses == [1]


def test_a_faster_mirror_continues_the_download_of_a_slow_one(tmp_path, server):
    crawling = mirror(server, "slow", slow(PACKED, 60_000))
    bring(tmp_path, published(crawling, mirror(server, "good", good(PACKED))))
    (going_on,) = server.asked("/good/digits.gz")
    assert going_on.range is not None
    assert 0 < going_on.sent < len(PACKED)
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_two_slow_mirrors_complete_the_file_together(tmp_path, server):
    content = gzip.compress(PLAIN[:60_000], mtime=0)
    addresses = [mirror(server, name, slow(content, 80_000)) for name in "ab"]
    bring(tmp_path, published(*addresses, content=content))
    begun = [int(request.range[6:-1]) if request.range else 0 for request in server.requests]
    assert begun == sorted(set(begun))
    assert (tmp_path / "digits").read_bytes() == PLAIN[:60_000]


def test_the_only_mirror_may_be_slow(tmp_path, server):
    content = gzip.compress(PLAIN[:60_000], mtime=0)
    bring(tmp_path, published(mirror(server, "a", slow(content, 80_000)), content=content))
    assert len(server.requests) == 1
    assert (tmp_path / "digits").read_bytes() == PLAIN[:60_000]


def test_a_mirror_that_becomes_too_slow_is_given_up_soon(tmp_path, server, monkeypatch):
    monkeypatch.setattr(mirrors, "SLOW", 20_000)  # its mean over the whole download stays higher for seven seconds
    dribbling = mirror(server, "bad", slow(PACKED, 20, at_once=len(PACKED) - 1_000))
    begun = time.monotonic()
    bring(tmp_path, published(dribbling, mirror(server, "good", good(PACKED))))
    assert time.monotonic() - begun < 3
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_another_mirror_sends_only_the_missing_bytes(tmp_path, server):
    first, second = mirror(server, "a", truncated(PACKED, 7_000)), mirror(server, "b", good(PACKED))
    bring(tmp_path, published(first, second))
    (going_on,) = server.asked("/b/digits.gz")
    assert (going_on.range, going_on.sent) == ("bytes=7000-", len(PACKED) - 7_000)
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_mirror_that_stops_early_is_continued_in_the_second_round(tmp_path, server):
    half = len(PACKED) // 2 + 1
    bring(tmp_path, published(mirror(server, "a", truncated(PACKED, half))))
    assert [request.range for request in server.requests] == [None, f"bytes={half}-"]
    assert sum(request.sent for request in server.requests) == len(PACKED)
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_the_next_attempt_continues_where_the_last_one_stopped(tmp_path, server):
    remote = published(mirror(server, "a", truncated(PACKED, 30_000)))
    failed(tmp_path, remote)
    mirror(server, "a", good(PACKED))
    bring(tmp_path, remote)
    assert server.requests[-1].range == "bytes=60000-"
    assert server.requests[-1].sent == len(PACKED) - 60_000
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_mirror_without_ranges_sends_the_whole_file_again(tmp_path, server):
    bring(piece(tmp_path), published(mirror(server, "a", good(PACKED, ranges=False))))
    assert [(request.range, request.sent) for request in server.requests] == [(f"bytes={len(PIECE)}-", len(PACKED))]
    assert (tmp_path / "digits").read_bytes() == PLAIN


POISON = {
    "a web page": PAGE,
    "other bytes": PIECE[::-1],
    "all but the last byte, one of them wrong": b"?" + PACKED[1:-1],
}


@pytest.mark.parametrize("poison", POISON)
def test_a_wrong_beginning_is_downloaded_again_at_once(tmp_path, server, poison):
    bring(piece(tmp_path, POISON[poison]), published(mirror(server, "a", good(PACKED))))
    assert [request.range for request in server.requests] == [f"bytes={len(POISON[poison])}-", None]
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_web_page_as_beginning_is_replaced_even_after_an_interrupted_answer(tmp_path, server):
    addresses = (mirror(server, "a", unannounced(PAGE)), mirror(server, "b", truncated(PACKED, 30_000)))
    bring(tmp_path, published(*addresses, mirror(server, "c", good(PACKED))))
    assert (tmp_path / "digits").read_bytes() == PLAIN


@pytest.mark.parametrize("content", [PACKED + b"x", PACKED[::-1]], ids=["longer than the file", "another file"])
def test_a_complete_but_wrong_part_file_is_deleted_before_the_first_request(tmp_path, server, content):
    bring(piece(tmp_path, content), published(mirror(server, "a", good(PACKED))))
    assert [request.range for request in server.requests] == [None]
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_complete_part_file_is_unpacked_without_a_request(tmp_path, dead):
    bring(piece(tmp_path, PACKED), published(dead))
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_an_empty_part_file_is_ignored(tmp_path, server):
    bring(piece(tmp_path, b""), published(mirror(server, "a", good(PACKED))))
    assert [request.range for request in server.requests] == [None]


@pytest.mark.parametrize("shift", [-1000, 1, 1000])
def test_a_wrong_range_of_the_file_is_refused(tmp_path, server, shift):
    text = failed(piece(tmp_path), published(mirror(server, "a", another_range(PACKED, shift))))
    assert "sent another part of the file than was asked for" in text
    assert (tmp_path / PART).read_bytes() == PIECE


def test_mirrors_that_send_nothing_useful_do_not_change_the_part_file(tmp_path, server, dead):
    bad = [
        mirror(server, name, MISBEHAVIOURS[name][0]())
        for name in ("sends a web page", "has no such file", "closes the connection")
    ]
    shorter = mirror(server, "shorter", good(PACKED[:1000]))
    failed(piece(tmp_path), published(dead, *bad, shorter))
    assert (tmp_path / PART).read_bytes() == PIECE


def test_the_error_says_that_a_mirror_has_a_shorter_file(tmp_path, server):
    assert "has a shorter file" in failed(piece(tmp_path), published(mirror(server, "a", good(PACKED[:1000]))))


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_users_mirror_is_tried_first_in_a_folder_named_like_the_set(tmp_path, server, monkeypatch, slash):
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
def test_the_published_mirrors_replace_a_users_mirror_that_is_not_an_address(tmp_path, server, monkeypatch, address):
    monkeypatch.setenv("CNNBENCH_MIRROR", address)
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert (tmp_path / "digits").read_bytes() == PLAIN


@pytest.mark.parametrize(
    "mischief", ["has no such file", "sends a web page", "does not answer", "closes the connection"]
)
def test_the_published_mirrors_replace_a_users_mirror_that(tmp_path, server, monkeypatch, mischief):
    monkeypatch.setenv("CNNBENCH_MIRROR", server.url)
    server.paths["/made/digits.gz"] = MISBEHAVIOURS[mischief][0]()
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert [request.path for request in server.requests] == ["/made/digits.gz", "/a/digits.gz"]


def test_the_password_of_a_users_mirror_is_not_shown(tmp_path, server, monkeypatch):
    monkeypatch.setenv("CNNBENCH_MIRROR", f"http://me:secret@127.0.0.1:{server.server_port}")
    text = failed(tmp_path, published(mirror(server, "a", not_found())))
    assert "secret" not in text


def test_an_empty_users_mirror_is_ignored(tmp_path, server, monkeypatch):
    monkeypatch.setenv("CNNBENCH_MIRROR", "")
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert [request.path for request in server.requests] == ["/a/digits.gz"]
