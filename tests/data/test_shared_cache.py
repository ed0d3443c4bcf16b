"""A cache that others may change is not read, and what they plant there is not followed."""

from __future__ import annotations

import logging
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnbench.data import decoded_cache as cache
from cnnbench.data.decoded_cache import FileFacts, cache_folders
from cnnbench.data.download.archives import checksum_file
from cnnbench.data.download.mirrors import file_checksum
from cnnbench.data.read_only import read_only
from cnnbench.data.sets.mnist import MNIST
from datafiles import ready, write_idx
from decoding import ALL, LOG, image, load, path, root  # noqa: F401
from users import ALICE, AS_ROOT, BOB, FOREIGN, GROUP, acting_as, plant, public  # noqa: F401

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no users")

RIGHT = np.stack([image(row) for row in ALL])
PART = f".train.npy.{os.getpid()}.{threading.get_ident()}.tmp"
SET = "mnist-*"


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.WARNING, LOG)
    logging.getLogger(LOG).propagate = True
    cache._warn_once.cache_clear()
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder outside the cache with a file of the user's."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"a user's")
    return tmp_path / "outside"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("before", ["an empty cache", "an intact cache"])
@pytest.mark.parametrize("kind", ["link", "link to nothing", "FIFO", "folder"])
@pytest.mark.parametrize(
    "name", ["train.npy", ".train.npy.sha256", "train.lock", "source", pytest.param(PART, id="temporary")]
)
def test_what_is_planted_in_place_of_a_file_is_neither_followed_nor_read(path, outside, name, kind, before):
    if before == "an intact cache":
        load(path, source=path.parents[2] / "set")
    target = outside / ("file" if kind == "link" else "absent")
    plant(path.with_name(name), kind.split()[0], target)
    np.testing.assert_array_equal(load(path, source=path.parents[2] / "set"), RIGHT)
    assert content(outside) == {"file": b"a user's"}
    assert not (outside / "absent").exists()


@pytest.fixture
def small(root, tmp_path) -> Path:
    """MNIST's files with 40 and 20 random images, and their decoded images in the default root."""
    write_idx(tmp_path / "set")
    ready(MNIST(root=tmp_path / "set"))
    return tmp_path / "set"


def pixels(folder: Path) -> torch.Tensor:
    data = ready(MNIST(root=folder))
    return torch.cat([data.images[split].pixels for split in ("train", "val", "test")])


def poison(root: Path) -> None:
    """Inverts the decoded pixels of a cache, with right digests."""
    for file in root.glob("decoded/*/*.npy"):
        np.save(file, 255 - np.load(file))
        checksum_file(file).write_text(file_checksum(file))


@pytest.mark.parametrize("which", [".", "decoded", SET])
@AS_ROOT
@pytest.mark.parametrize("how", FOREIGN)
def test_changed_pixels_in_a_folder_that_others_may_change_are_not_used_and_one_line_says_so(
    small, root, tmp_path, lines, which, how
):
    before = pixels(small).clone()
    poison(root)
    (changed,) = [root] if which == "." else [found for found in root.glob(f"**/{which}") if found.is_dir()]
    FOREIGN[how](changed)
    assert torch.equal(pixels(small), before)
    (line,) = lines()
    assert line.startswith(f"{changed}: ")
    assert "CNNBENCH_DATA" in line
    assert "\n" not in line
    assert list((tmp_path / "own").glob("cnnbench/decoded/*/*.npy"))


@AS_ROOT
@pytest.mark.parametrize("how", FOREIGN)
def test_changed_pixels_in_a_file_that_others_may_change_are_decoded_again(small, root, lines, how):
    before = pixels(small).clone()
    poison(root)
    files = list(root.glob("decoded/*/*.npy"))
    for file in files:
        FOREIGN[how](file)
    assert torch.equal(pixels(small), before)
    assert len(lines()) == len(files)
    assert torch.equal(pixels(small), before)
    assert len(lines()) == len(files)  # they are the user's now


def test_nothing_of_another_user_is_used(small, root, lines, monkeypatch):
    """As the test before, where the tests do not run as root."""
    before = pixels(small).clone()
    poison(root)
    number = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: number)
    monkeypatch.setattr("cnnbench.data.ownership.who_may_change", who_owns(number))
    monkeypatch.setattr("cnnbench.data.decoded_cache.who_may_change", who_owns(number))
    assert torch.equal(pixels(small), before)
    assert lines()[0].startswith(f"{root}: belongs to another; no decoded images are read from there")


def who_owns(number: int):
    """`who_may_change` for a user of this number, also where the files are root's."""
    return lambda found: "" if found.st_uid == number else "belongs to another"


@pytest.mark.parametrize("which", ["decoded", SET])
def test_a_link_in_place_of_a_folder_is_not_followed(small, root, outside, lines, which):
    before = pixels(small).clone()
    (folder,) = [found for found in root.glob(f"**/{which}") if found.is_dir()]
    poison(root)
    elsewhere = outside / folder.name
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    inside = next(path.parent for path in outside.rglob("test*.npy"))
    for name in (".train-1x28.npy.1.2.tmp", *(f"{number}.npy" for number in range(40))):
        (inside / name).write_bytes(b"x")
    kept = content(outside)
    assert torch.equal(pixels(small), before)
    assert content(outside) == kept
    assert f"{folder}: is a link; " in lines()[0]


@pytest.mark.parametrize("which", ["earlier", "linked"])
def test_a_folder_of_earlier_images_behind_a_link_is_not_removed(root, outside, which):
    (folder,) = cache_folders("mnist-bbbb")
    if which == "linked":
        (outside / "source").write_bytes(b"/data/one")
        folder.parent.mkdir(parents=True)
        folder.with_name("mnist-aaaa").symlink_to(outside)
    else:
        plant(folder.with_name("mnist-aaaa") / "source", "link", outside / "source")
        (outside / "source").write_bytes(b"/data/one")
    load(folder / "train.npy", source=Path("/data/one"))
    assert content(outside) == {"file": b"a user's", "source": b"/data/one"}


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_others_may_not_change_what_is_written_under_any_umask(root, tmp_path, umask):
    write_idx(tmp_path / "set")
    before = os.umask(umask)
    try:
        ready(MNIST(root=tmp_path / "set"))
    finally:
        os.umask(before)
    made = list(root.rglob("*"))
    assert len(made) >= 8
    assert [path for path in made if stat.S_IMODE(path.stat().st_mode) & 0o022 & ~umask] == []
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("mode", [0o777, 0o666])
def test_a_plan_reads_no_images_that_others_may_change(small, root, mode):
    (file,) = root.glob("decoded/*/test*.npy")
    (file if mode == 0o666 else file.parent).chmod(mode)
    with read_only():
        assert ready(MNIST(root=small)).images["test"].source.is_meta


FACTS = {"fingerprint": "0123456789abcdef", "test labels": [3] * 20}


@AS_ROOT
@pytest.mark.parametrize("how", FOREIGN)
def test_facts_that_others_may_change_are_not_used(small, root, how):
    before = MNIST(root=small).fingerprint
    facts = MNIST(root=small)._facts
    for file in facts.stamps:
        os.utime(file, (1, 1))
    facts = MNIST(root=small)._facts
    facts.save(**FACTS)
    assert MNIST(root=small)._facts.load()["fingerprint"] == FACTS["fingerprint"]
    FOREIGN[how](facts.paths[0])
    assert MNIST(root=small)._facts.load() == {}
    assert MNIST(root=small).fingerprint == before


@pytest.mark.parametrize("kind", ["link", "link to nothing", "FIFO", "folder"])
def test_what_is_planted_in_place_of_facts_is_neither_followed_nor_read(small, outside, kind):
    facts = MNIST(root=small)._facts
    plant(facts.paths[0], kind.split()[0], outside / ("file" if kind == "link" else "absent"))
    facts.save(**FACTS)
    facts.load()
    assert content(outside) == {"file": b"a user's"}
    assert not (outside / "absent").exists()


def test_facts_are_nested_too_deeply(small):
    facts = MNIST(root=small)._facts
    facts.paths[0].write_text("[" * 100_000)
    assert facts.load() == {}


# ---- two users of one folder -----------------------------------------------------------------------------------------


@pytest.fixture
def shared(public, monkeypatch):
    """A function: lets a user load images of a set from `$CNNBENCH_DATA`, and returns them and the folder that they are in."""
    monkeypatch.setenv("CNNBENCH_DATA", str(public / "root"))
    (public / "root").mkdir()
    for user in (0, ALICE, BOB):
        (public / str(user)).mkdir()
        os.chown(public / str(user), user, user)

    def call(user: int, umask: int = 0o022) -> tuple[np.ndarray, Path | None]:
        monkeypatch.setenv("XDG_CACHE_HOME", str(public / str(user)))
        with acting_as(user, umask):
            paths = [folder / "train.npy" for folder in cache_folders("set-0123")]
            images = cache.load_or_decode(paths, ALL, RIGHT.shape[1:], lambda rows: RIGHT[rows], "decoding")
        np.testing.assert_array_equal(images, RIGHT)
        return Path(images.filename).parents[2].relative_to(public) if isinstance(images, np.memmap) else None

    return call


SHARED = Path("root")


def own(user: int) -> Path:
    return Path(str(user), "cnnbench")


@AS_ROOT
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
@pytest.mark.parametrize(
    ("mode", "first"),
    [(0o1777, SHARED), (0o777, own(ALICE)), (0o2775, own(ALICE)), (0o755, own(ALICE)), (0o3775, SHARED)],
)
def test_two_users_of_one_root_both_have_a_cache(shared, public, mode, first, umask):
    os.chown(public / "root", 0, GROUP)
    (public / "root").chmod(mode)
    assert shared(ALICE, umask) == first
    assert shared(BOB, umask) == own(BOB)
    assert shared(ALICE, umask) == first


@AS_ROOT
@pytest.mark.parametrize(("umask", "expected"), [(0o022, SHARED), (0o002, SHARED), (0o077, own(BOB))])
def test_a_cache_of_root_is_used_by_all_who_can_read_it(shared, umask, expected):
    assert shared(0, umask) == SHARED
    assert shared(BOB, umask) == expected


@AS_ROOT
def test_a_size_that_roots_cache_lacks_is_in_the_users_own(shared, public):
    shared(0)
    (public / "root" / "decoded" / "set-0123" / "train.npy").unlink()
    assert shared(BOB) == own(BOB)


@AS_ROOT
def test_a_user_without_a_cache_has_the_images_in_memory(shared, public, lines):
    (public / str(BOB)).chmod(0o555)
    assert shared(BOB) is None
    assert len(lines()) == 1


@AS_ROOT
def test_facts_of_root_are_used_and_the_users_own_are_added(shared, public, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(public / str(BOB)))
    file = public / "file"
    file.touch()
    os.utime(file, (1, 1))
    FileFacts("x", [file]).save(one=1)
    with acting_as(BOB):
        FileFacts("x", [file]).save(two=2)
        assert FileFacts("x", [file]).load() == {"one": 1, "two": 2}
    assert FileFacts("x", [file]).load() == {"one": 1}
