"""Facts that are kept about a set's files, and how data sets use the cache of decoded images."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from cnnbench.data.decoded_cache import FileFacts, cache_folders
from cnnbench.data.sets.mnist import MNIST
from cnnbench.errors import DataError
from datafiles import idx, ready, write_idx
from decoding import image, load, root  # noqa: F401


def filled(name: str, fingerprint: str, source: Path) -> Path:
    """The folder of decoded images, in which there are some."""
    (folder,) = cache_folders(f"{name}-{fingerprint}")
    load(folder / "train.npy", source=source)
    return folder


def test_decoded_images_of_earlier_files_in_the_same_folder_are_removed(root):
    earlier = filled("mnist", "aaaa", Path("/data/one"))
    later = filled("mnist", "bbbb", Path("/data/one"))
    assert not earlier.exists()
    assert later.is_dir()


@pytest.mark.parametrize(("name", "source"), [("mnist", "/data/two"), ("mnist5k", "/data/one")])
def test_decoded_images_of_other_folders_and_other_sets_stay(root, name, source):
    other = filled(name, "aaaa", Path(source))
    filled("mnist", "bbbb", Path("/data/one"))
    np.testing.assert_array_equal(np.load(other / "train.npy")[3], image(3))


def test_an_existing_folder_is_used_unchanged(root):
    folder = filled("mnist", "aaaa", Path("/data/one"))
    load(folder / "test.npy", source=Path("/data/two"))
    assert (folder / "train.npy").is_file()
    assert (folder / "source").read_text() == "/data/one"


@pytest.mark.parametrize("source", [os.fsdecode(b"/data/caf\xe9"), "/data/ünïcødé 猫", "/data/new\nline"])
def test_the_folder_of_the_files_may_have_any_name(root, source):
    earlier = filled("mnist", "aaaa", Path(source))
    filled("mnist", "bbbb", Path(source))
    assert not earlier.exists()


def test_a_damaged_file_source_is_ignored(root):
    earlier = filled("mnist", "aaaa", Path("/data/one"))
    (earlier / "source").write_bytes(b"\xff\xfe")
    assert filled("mnist", "bbbb", Path("/data/one")).is_dir()


@pytest.fixture
def files(root, tmp_path) -> list[Path]:
    """Two files whose last change is an hour ago."""
    found = []
    for name in ("a", "b"):
        path = tmp_path / "files" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        an_hour_ago(path)
        found.append(path)
    return found


def an_hour_ago(path: Path, seconds: float = 3600) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_saved_facts_are_loaded(files):
    FileFacts("x", files).save(fingerprint="abc", native=32)
    assert FileFacts("x", files).load() == {"fingerprint": "abc", "native": 32}


def test_without_saved_facts_nothing_is_loaded(files):
    assert FileFacts("x", files).load() == {}


def test_facts_are_added_to_earlier_ones(files):
    FileFacts("x", files).save(one=1, two=2)
    FileFacts("x", files).save(two=3)
    assert FileFacts("x", files).load() == {"one": 1, "two": 3}


@pytest.mark.parametrize("change", ["size", "time", "gone", "content with the old time"])
@pytest.mark.parametrize("which", [0, 1])
def test_facts_are_forgotten_when_a_file_changes(files, change, which):
    FileFacts("x", files).save(one=1)
    path = files[which]
    before = path.stat()
    if change == "size":
        path.write_text("longer")
    elif change == "time":
        an_hour_ago(path, 1800)
    elif change == "gone":
        path.unlink()
    else:
        path.write_text("c")
    if "time" not in change.split()[0] and change != "gone":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert FileFacts("x", files).load() == {}


def test_facts_are_forgotten_when_there_is_one_file_more_or_less(files):
    FileFacts("x", files).save(one=1)
    assert FileFacts("x", files[:1]).load() == {}
    assert FileFacts("x", files + files[:1]).load() == {}


def test_facts_of_changed_files_replace_those_of_earlier_ones(files):
    FileFacts("x", files).save(one=1)
    an_hour_ago(files[0], 1800)
    FileFacts("x", files).save(two=2)
    assert FileFacts("x", files).load() == {"two": 2}


@pytest.mark.parametrize(("age", "kept"), [(0, {}), (1.5, {}), (2.5, {"one": 1}), (-100, {})])
def test_facts_written_within_two_seconds_of_a_change_are_ignored(files, age, kept):
    an_hour_ago(files[1], age)
    FileFacts("x", files).save(one=1)
    assert FileFacts("x", files).load() == kept


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"null", b"[]", b"{}", b"\xff\xfe", b'"facts"', b"3", b'{"facts": {"one": 2}}', b'{"signature": "x"}'],
)
def test_a_damaged_file_of_facts_is_ignored_and_replaced(files, text):
    facts = FileFacts("x", files)
    facts.save(one=1)
    facts.paths[0].write_bytes(text)
    assert FileFacts("x", files).load() == {}
    FileFacts("x", files).save(three=3)
    assert FileFacts("x", files).load() == {"three": 3}


@pytest.mark.parametrize("content", [None, []])
def test_facts_of_another_type_are_ignored(files, content):
    facts = FileFacts("x", files)
    facts.save(one=1)
    facts.paths[0].write_text(json.dumps({"signature": facts.signature, "facts": content}))
    assert FileFacts("x", files).load() == {}


def test_sets_of_other_names_and_in_other_folders_have_separate_facts(files, tmp_path):
    FileFacts("x", files).save(one=1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    copies = [path.rename(elsewhere / path.name) for path in files]
    for path in copies:
        (files[0].parent / path.name).write_bytes(path.read_bytes())
        an_hour_ago(files[0].parent / path.name)
    assert FileFacts("y", files).load() == {}
    FileFacts("x", copies).save(two=2)
    assert FileFacts("x", copies).load() == {"two": 2}


def test_no_facts_are_saved_for_absent_files_or_for_no_files(root, tmp_path):
    for files in ([], [tmp_path / "absent"]):
        facts = FileFacts("x", files)
        facts.save(one=1)
        assert facts.load() == {}


def test_facts_that_cannot_be_written_are_computed_again(files, root):
    for folder in (root, root.with_name("own")):
        folder.write_text("a file is in the way")
    FileFacts("x", files).save(one=1)
    assert FileFacts("x", files).load() == {}


def test_files_in_a_folder_whose_name_is_not_utf8_have_facts(root, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9") / "a"
    path.parent.mkdir()
    path.write_text("a")
    an_hour_ago(path)
    FileFacts("x", [path]).save(one=1)
    assert FileFacts("x", [path]).load() == {"one": 1}


@pytest.fixture
def small(root, tmp_path) -> Path:
    """MNIST's files with 40 and 20 random images, dated an hour ago."""
    for path in write_idx(tmp_path / "set").iterdir():
        an_hour_ago(path)
    return tmp_path / "set"


class Counted(MNIST):
    """Records which splits are read."""

    def __init__(self, **keys):
        super().__init__(**keys)
        self.seen = []

    def read(self, official):
        self.seen.append(official)
        return super().read(official)


def test_a_set_is_not_read_a_second_time(small):
    one, other = (ready(Counted(root=small)) for _ in range(2))
    assert (one.seen, other.seen) == (["train", "test"], [])
    for split in ("train", "val", "test"):
        assert torch.equal(one.images[split].pixels, other.images[split].pixels)
        assert torch.equal(one.images[split].labels, other.images[split].labels)


def test_another_size_is_decoded_separately_and_both_files_stay(small):
    ready(Counted(root=small))
    assert ready(Counted(root=small, image_size=32)).seen == ["train", "test"]
    assert ready(Counted(root=small)).seen == []


@pytest.mark.parametrize("seconds", [3600, 1800, 0])
def test_images_that_change_after_they_were_decoded_are_noticed(small, seconds):
    before = ready(MNIST(root=small))
    path = small / "MNIST" / "raw" / "train-images-idx3-ubyte"
    stamp = path.stat().st_mtime_ns
    pixels = np.random.default_rng(1).integers(0, 256, (40, 28, 28))
    path.write_bytes(idx(pixels))
    if seconds == 3600:
        os.utime(path, ns=(stamp, stamp))
    elif seconds:
        an_hour_ago(path, seconds)
    after = ready(MNIST(root=small))
    assert after.fingerprint != before.fingerprint
    expected = pixels[after.indices["train"]]
    np.testing.assert_array_equal(after.images["train"].pixels.squeeze(1).numpy(), expected)


def test_labels_that_change_after_they_were_read_are_noticed(small):
    ready(MNIST(root=small))
    path = small / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    labels = (np.arange(40) + 1) % 10
    path.write_bytes(idx(labels))
    after = ready(MNIST(root=small))
    assert after.images["train"].labels.tolist() == labels[after.indices["train"]].tolist()


def test_files_that_turn_corrupt_after_they_were_decoded_are_refused(small):
    ready(MNIST(root=small))
    path = small / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte"):
        ready(MNIST(root=small))


def test_a_set_that_changed_leaves_no_decoded_images_behind(small, root):
    ready(MNIST(root=small))
    path = small / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(idx(np.zeros((40, 28, 28))))
    ready(MNIST(root=small))
    assert len([found for found in (root / "decoded").iterdir() if found.is_dir()]) == 1


def test_a_damaged_decoded_image_is_decoded_again(small, root):
    before = ready(MNIST(root=small)).images["train"].pixels.clone()
    (decoded,) = (root / "decoded").glob("*/train-*.npy")
    content = bytearray(decoded.read_bytes())
    content[784 * 7] ^= 255
    decoded.write_bytes(content)
    data = ready(Counted(root=small))
    assert data.seen == ["train"]
    assert torch.equal(data.images["train"].pixels, before)


def test_without_a_writable_folder_the_images_are_the_same(small, root):
    shared = ready(MNIST(root=small))
    shutil.rmtree(root)
    for folder in (root, root.with_name("own")):
        folder.write_text("a file is in the way")
    own = ready(MNIST(root=small))
    assert not root.is_dir()
    for split in ("train", "val", "test"):
        assert torch.equal(own.images[split].pixels, shared.images[split].pixels)


def test_changing_images_in_memory_does_not_change_those_of_another_set(small):
    one, other = ready(MNIST(root=small)), ready(MNIST(root=small))
    before = other.images["train"].pixels.clone()
    one.images["train"].source.zero_()
    assert torch.equal(other.images["train"].pixels, before)
    assert torch.equal(ready(MNIST(root=small)).images["train"].pixels, before)


TWICE = """
import hashlib, sys, torch
sys.path.insert(0, {tests!r})
from datafiles import ready
from cnnbench.data.sets.mnist import MNIST
data = ready(MNIST(root={root!r}, image_size=20))
for split in ("train", "val", "test"):
    print(hashlib.sha256(data.images[split].pixels.numpy().tobytes()).hexdigest())
"""


@pytest.mark.soak
def test_two_processes_that_decode_separately_get_the_same_bits(small, tmp_path):
    code = TWICE.format(tests=str(Path(__file__).parents[1]), root=str(small))
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "CNNBENCH_DATA": str(tmp_path / name), "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name, threads in (("one", "1"), ("two", "2"))
    }
    assert len(answers) == 1


@pytest.mark.slow
def test_mnist_is_mapped_and_is_what_torchvision_reads(root, real_data):
    data = ready(MNIST(root=real_data, train_size=2000, val_size=[50_000, 50_500]))
    for official, split, rows in (("train", "train", range(2000)), ("train", "val", range(50_000, 50_500))):
        expected = datasets.MNIST(real_data, train=official == "train").data[rows.start : rows.stop]
        assert torch.equal(data.images[split].pixels.squeeze(1), expected)
    assert torch.equal(data.images["test"].pixels.squeeze(1), datasets.MNIST(real_data, train=False).data)
    assert {path.name for path in (root / "decoded").glob("*/test*.npy")} == {"test-1x28.npy"}


@pytest.mark.slow
def test_of_mnist_only_the_images_in_use_are_written_to_the_disk(root, real_data):
    ready(MNIST(root=real_data, train_size=100, val_size=100))
    (decoded,) = (root / "decoded").glob("*/train-1x28-*.npy")
    assert decoded.stat().st_size == 128 + 200 * 784


def test_the_decoded_file_has_the_pixels_of_the_set_and_its_digest_beside_it(root, small):
    ready(MNIST(root=small))
    (decoded,) = (root / "decoded").glob("*/test-1x28.npy")
    content = (small / "MNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()[16:]
    assert np.load(decoded).tobytes() == content
    digest = decoded.with_name(f".{decoded.name}.sha256").read_text()
    assert digest == hashlib.sha256(decoded.read_bytes()).hexdigest()


def test_altered_facts_are_ignored(files):
    facts = FileFacts("x", files)
    facts.save(labels=[1, 2, 3])
    facts.paths[0].write_text(facts.paths[0].read_text().replace("[1, 2, 3]", "[0, 0, 0]"))
    assert FileFacts("x", files).load() == {}
