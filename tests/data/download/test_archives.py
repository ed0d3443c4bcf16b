"""Archives: which are unpacked, and which are refused."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from pathlib import Path

import pytest

from cnnbench.data.download.mirrors import Remote
from cnnbench.errors import DataError
from fetching import PACKED, PART, PIECE, PLAIN, bring, failed, mirror, names, published, tarred
from webserver import PAGE, Server, good


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
    assert files == {"set/a": b"A", "set/b": b"B"}
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
def test_a_member_that_is_not_a_regular_file_is_not_unpacked(tmp_path, server, kind):
    entry = link(getattr(tarfile, kind), "a")
    assert "does not hold set/b" in failed(tmp_path, packed_set(server, tarred({"set/a": b"A", "set/b": entry})))


def test_a_link_in_an_archive_writes_nothing_outside_the_folder(tmp_path, server):
    folder, outside = tmp_path / "data", tmp_path / "outside"
    outside.mkdir()
    bring(
        folder, packed_set(server, tarred({"set": link(tarfile.SYMTYPE, str(outside)), "set/a": b"A", "set/b": b"B"}))
    )
    assert names(outside) == set()
    assert (folder / "set" / "a").read_bytes() == b"A"
    assert not (folder / "set").is_symlink()


def test_the_error_names_a_member_that_an_archive_lacks(tmp_path, server):
    text = failed(tmp_path, packed_set(server, tarred({"set/a": b"A"})))
    assert "corrupt, it does not hold set/b" in text


def test_a_member_with_a_wrong_checksum_is_refused(tmp_path, server):
    sums = {"set/b": f"md5:{hashlib.md5(b'not B').hexdigest()}"}
    text = failed(tmp_path, packed_set(server, tarred({"set/a": b"A", "set/b": b"B"})), sums=sums)
    assert "set/b in it has another checksum than the published one" in text


TAR = tarred({"set/a": PLAIN, "set/b": PLAIN})


CORRUPT = {
    "truncated": TAR[:-20_000],
    "empty": b"",
    "with other bytes in the middle": TAR[:90_000] + bytes(2_000) + TAR[92_000:],
    "a web page": PAGE,
    "a gz of something else": gzip.compress(PLAIN),
    "a gz of nothing": gzip.compress(b""),
}


@pytest.mark.parametrize("damage", CORRUPT)
def test_a_corrupt_tar_with_the_right_checksum_is_refused(tmp_path, server, damage):
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
    ids=[
        "truncated",
        "truncated at its end",
        "with a wrong CRC",
        "with other bytes in the middle",
        "a web page",
        "not compressed",
    ],
)
def test_a_corrupt_gz_with_the_right_checksum_is_refused(tmp_path, server, content):
    text = failed(tmp_path, published(mirror(server, "a", good(content)), content=content))
    assert text.startswith(f"{tmp_path / PART}: corrupt")
    assert "\n" not in text


def test_a_corrupt_archive_does_not_change_existing_files(tmp_path, server):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").write_bytes(b"mine")
    remote = packed_set(server, TAR[:-20_000])
    with pytest.raises(DataError):
        bring(tmp_path, remote)
    assert names(tmp_path / "set") == {"a"}
    assert (tmp_path / "set" / "a").read_bytes() == b"mine"


def test_an_archive_that_the_user_put_there_is_unpacked_and_kept(tmp_path, dead):
    (tmp_path / "digits.gz").write_bytes(PACKED)
    bring(tmp_path, published(dead))
    assert (tmp_path / "digits").read_bytes() == PLAIN
    assert (tmp_path / "digits.gz").read_bytes() == PACKED


@pytest.mark.parametrize("content", [PIECE, PACKED[::-1], b""], ids=["a part", "another file", "nothing"])
def test_another_file_under_the_name_of_the_archive_is_not_changed(tmp_path, server, content):
    (tmp_path / "digits.gz").write_bytes(content)
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert (tmp_path / "digits").read_bytes() == PLAIN
    assert (tmp_path / "digits.gz").read_bytes() == content


def test_the_error_names_another_file_under_the_name_of_the_archive(tmp_path, dead):
    (tmp_path / "digits.gz").write_bytes(PIECE)
    with pytest.raises(DataError) as caught:
        bring(tmp_path, published(dead))
    assert str(tmp_path / "digits.gz") in str(caught.value)


def test_the_error_names_a_corrupt_archive_that_the_user_put_there(tmp_path, dead):
    (tmp_path / "digits.gz").write_bytes(WRONG_CRC)
    with pytest.raises(DataError, match=r"digits\.gz: corrupt"):
        bring(tmp_path, published(dead, content=WRONG_CRC))
    assert "digits" not in names(tmp_path)
