"""Archives: what is unpacked, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from pathlib import Path

import pytest

from cnnbench.data.download.mirrors import Remote
from cnnbench.errors import DataError
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
    published,
    server,
    tarred,
)
from webserver import (
    PAGE,
    Server,
    good,
)


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
