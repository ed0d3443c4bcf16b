"""Mirrors that misbehave: good data or one clear error, whatever they send."""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from cnnbench.data.download import mirrors
from fetching import (  # noqa: F401
    PACKED,
    PART,
    PIECE,
    PLAIN,
    bring,
    dead,
    digits,
    failed,
    impatient,
    mirror,
    names,
    no_network,
    piece,
    published,
    server,
)
from webserver import (
    PAGE,
    Behaviour,
    another_range,
    answered,
    chunked,
    closing,
    good,
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
