"""Class folders of pictures: every layout, every kind of file, with PIL, NumPy and torchvision as oracles."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unicodedata
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torchvision.datasets import ImageFolder as TorchvisionFolder

from cnnbench.__main__ import main
from cnnbench.compose import compose
from cnnbench.data.imagefolder import ImageFolder
from cnnbench.data.split import stratified
from cnnbench.errors import ConfigError, DataError
from cnnbench.pictures import read_image, short_side, squared
from cnnbench.prepare import build_data, prepare
from cnnbench.restore import load_net
from cnnbench.train import run
from datafiles import equal, ready

FITS = ("crop", "pad", "stretch")
NET = ["threads=1", "epochs=1", "data=imagefolder", "model=simplecnn", "trainer=cpu"]


def picture(key: str, width: int = 12, height: int = 12) -> Image.Image:
    """Random colours that are drawn from the key."""
    random = np.random.default_rng(zlib.crc32(key.encode("utf-8", "surrogateescape")))
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth(width: int, height: int) -> Image.Image:
    """Colours that change slowly, so that any good filter gives nearly the same."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return Image.fromarray((255 * np.stack([x, y, (x + y) / 2], 2)).round().astype(np.uint8))


def folders(top: Path, counts: dict[str, int], width: int = 12, height: int = 12) -> Path:
    """So many PNG files in each folder below `top`: 000.png, 001.png, ..."""
    for name, count in counts.items():
        (top / name).mkdir(parents=True)
        for number in range(count):
            picture(f"{name}/{number}", width, height).save(top / name / f"{number:03}.png")
    return top


def built(top: Path, **keys) -> ImageFolder:
    return ImageFolder(root=top, **keys)


def loaded(top: Path, **keys) -> ImageFolder:
    return ready(built(top, **keys))


def refusal(top: Path, **keys) -> str:
    """The message with which a folder is refused, whichever step it is that looks."""
    with pytest.raises(DataError) as caught:
        loaded(top, **keys)
    return str(caught.value)


def names(data: ImageFolder, split: str) -> list[str]:
    """Where the pictures of a split lie below the root, in the split's order."""
    official = data.pictures["test" if split == "test" else "train"]
    return [str(official[row].path.relative_to(data.top)) for row in data.indices[split]]


def row_of(data: ImageFolder, name: str) -> np.ndarray:
    """(H, W, C) uint8 of the picture of that name, from whichever split it is in."""
    for split in data.images:
        if name in names(data, split):
            return data.images[split].pixels[names(data, split).index(name)].permute(1, 2, 0).numpy()
    raise KeyError(name)


def command(capsys, *arguments) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


@pytest.fixture(autouse=True)
def nothing_decoded_yet(tmp_path_factory, monkeypatch):
    """What one test decodes is of no use to another."""
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path_factory.mktemp("decoded")))


@pytest.fixture
def flat(tmp_path) -> Path:
    """Ten pictures of each of two classes, not split."""
    return folders(tmp_path / "flat", {"cat": 10, "dog": 10})


@pytest.fixture
def split(tmp_path) -> Path:
    """Two classes in train, val and test."""
    counts = {"train/cat": 6, "train/dog": 6, "val/cat": 3, "val/dog": 3, "test/cat": 4, "test/dog": 4}
    return folders(tmp_path / "split", counts)


# ---- layouts -------------------------------------------------------------------------------------------------------


def test_a_flat_folder_is_cut_into_train_val_and_test(flat):
    data = loaded(flat)
    assert {split: len(images) for split, images in data.images.items()} == {"train": 14, "val": 2, "test": 4}
    together = names(data, "train") + names(data, "val") + names(data, "test")
    assert sorted(together) == [f"{name}/{number:03}.png" for name in ("cat", "dog") for number in range(10)]


def test_folders_train_and_test_are_the_official_splits(tmp_path):
    top = folders(tmp_path / "x", {"train/a": 20, "train/b": 20, "test/a": 3, "test/b": 2})
    data = loaded(top)
    assert (data.count("train"), data.count("test")) == (40, 5)
    assert all(name.startswith("test/") for name in names(data, "test"))
    assert all(name.startswith("train/") for name in names(data, "train") + names(data, "val"))
    assert len(data.images["val"]) == 4


def test_a_folder_val_validates(split):
    data = loaded(split)
    assert {name.split("/")[0] for name in names(data, "val")} == {"val"}
    assert {name.split("/")[0] for name in names(data, "train")} == {"train"}
    assert {name.split("/")[0] for name in names(data, "test")} == {"test"}
    assert {split: len(images) for split, images in data.images.items()} == {"train": 12, "val": 6, "test": 8}


def test_folders_train_and_val_alone_leave_the_test_split_to_be_taken_from_train(tmp_path):
    top = folders(tmp_path / "x", {"train/a": 10, "train/b": 10, "val/a": 2, "val/b": 2})
    data = loaded(top)
    assert {split: len(images) for split, images in data.images.items()} == {"train": 16, "val": 4, "test": 4}
    assert all(name.startswith("val/") for name in names(data, "val"))
    assert all(name.startswith("train/") for name in names(data, "test"))


@pytest.mark.parametrize(("size", "taken"), [(2, 2), ([1, 3], 2)])
def test_a_val_size_counts_within_the_folder_val_none_of_which_trains(split, size, taken):
    data = loaded(split, val_size=size)
    assert len(names(data, "val")) == taken
    assert all(name.startswith("val/") for name in names(data, "val"))
    assert all(name.startswith("train/") for name in names(data, "train"))


def test_a_train_size_counts_within_the_folder_train(split):
    trained = len(names(loaded(split), "train"))
    assert len(names(loaded(split, train_size=trained), "train")) == trained
    assert f"type at most {trained}" in refusal(split, train_size=trained + 1)


def test_a_fraction_is_of_the_folder_train(split):
    whole, half = (names(loaded(split, fraction=share), "train") for share in (1.0, 0.5))
    assert len(half) == round(len(whole) / 2)
    assert set(half) < set(whole)


@pytest.mark.parametrize("first", ["training_set", "seg_train"])
def test_splits_under_names_that_are_not_known_are_not_taken_for_classes(tmp_path, first):
    top = folders(tmp_path / "x", {f"{first}/a": 2, f"{first}/b": 2, "test_set/a": 2, "test_set/b": 2})
    text = refusal(top)
    assert first in text
    assert "hold the same class folders" in text


def test_files_that_are_no_pictures_are_counted_in_a_line(flat, caplog):
    for name in ("a.HEIC", "b.HEIC", "c"):
        (flat / "cat" / name).write_bytes(b"?")
    loaded(flat)
    assert "2 .heic, 1 without an ending" in caplog.text


def test_a_picture_that_changes_before_it_is_decoded_is_refused_and_not_kept(flat):
    data = built(flat)
    data.prepare_data()
    path = data.pictures["test"][0].path
    content = path.read_bytes()
    Image.new("RGB", (8, 8), "red").save(path)
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: has changed since this command began"):
        data.setup("test")
    path.write_bytes(content)
    assert torch.equal(ready(built(flat)).images["test"].pixels, ready(built(flat)).images["test"].pixels)
    expected = np.asarray(read_image(path, 3, fit="crop").resize((data.image_size,) * 2, Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(ready(built(flat)).images["test"].pixels[0].permute(1, 2, 0).numpy(), expected)


def test_classes_that_validation_leaves_no_image_to_train_on_are_named(tmp_path, caplog):
    top = folders(tmp_path / "x", {"train/a": 9, "train/b": 9, "train/c": 9, "test/a": 1, "test/b": 1, "test/c": 1})
    loaded(top, fraction=0.05)
    assert "2 classes have no image to train on" in caplog.text


@pytest.mark.parametrize("val", ["val", "valid", "validation", "VAL", "Validation"])
@pytest.mark.parametrize("train", ["train", "Training"])
def test_split_folders_have_several_names(tmp_path, train, val):
    counts = {f"{train}/a": 4, f"{train}/b": 4, f"{val}/a": 1, f"{val}/b": 1, "Testing/a": 1, "Testing/b": 1}
    data = built(folders(tmp_path / "x", counts))
    data.prepare_data()
    data.setup("fit")
    assert (data.count("train"), data.count("test")) == (10, 2)
    assert data.indices["val"].tolist() == [8, 9]


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_a_class_may_be_called_as_a_split_is(tmp_path, name):
    data = loaded(folders(tmp_path / "x", {name: 6, "bus": 6}))
    assert set(data.classes) == {name, "bus"}
    assert sum(map(len, data.images.values())) == 12


def test_a_class_of_a_split_set_may_be_called_train(tmp_path):
    data = loaded(folders(tmp_path / "x", {"train/train": 6, "train/bus": 6, "test/train": 2, "test/bus": 2}))
    assert data.classes == ("bus", "train")
    assert len(data.images["test"]) == 4


def test_an_unknown_folder_beside_train_is_named(tmp_path):
    top = folders(tmp_path / "x", {"train/a": 4, "train/b": 4, "extra/a": 4})
    assert refusal(top).startswith(f"{top}: holds extra beside train; expected FOLDER/<class>/<pictures>")


def test_hidden_folders_and_files_beside_train_do_not_matter(split):
    (split / ".git").mkdir()
    (split / "__MACOSX").mkdir()
    (split / "README.txt").write_text("mine")
    assert loaded(split).num_classes == 2


def test_a_class_may_be_absent_from_test(tmp_path):
    data = loaded(folders(tmp_path / "x", {"train/a": 6, "train/b": 6, "test/a": 3}))
    assert data.images["test"].labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_train_lacks_is_named(tmp_path, split):
    top = folders(tmp_path / "x", {"train/a": 4, "train/b": 4, f"{split}/c": 4})
    assert refusal(top) == (
        f"{top / split / 'c'}: there is no class c in {top / 'train'}; add it there, or remove it here"
    )


def test_two_folders_that_differ_in_case_alone_are_not_passed_over(tmp_path):
    top = folders(tmp_path / "x", {"train/a": 4, "train/b": 4, "Train/a": 4, "Train/b": 4})
    if len(list(top.iterdir())) == 1:
        pytest.skip("this file system does not tell them apart")
    assert "Train" in refusal(top)


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ({"a": 5}, "holds 1 class folder, expected two at least"),
        ({"wrapped/a": 5, "wrapped/b": 5}, "holds 1 class folder, expected two at least"),
        ({"train/a": 5, "test/a": 5}, "holds 1 class folder, expected two at least"),
        ({".": 5}, "holds no class folders, expected two at least"),
    ],
)
def test_less_than_two_classes_are_refused(tmp_path, counts, found):
    (tmp_path / "x").mkdir() if "." not in counts else None
    assert found in refusal(folders(tmp_path / "x", counts))


@pytest.mark.parametrize("place", ["absent", "file.txt"])
def test_a_root_that_is_no_folder_is_named(tmp_path, place):
    (tmp_path / "file.txt").write_text("")
    assert f"data.root={tmp_path / place}: no such folder" in refusal(tmp_path / place)


def test_data_imagefolder_without_a_root_is_one_clear_line(capsys):
    code, out, err = command(capsys, *NET)
    assert (code, out) == (2, "")
    assert err == "cnnbench: data=imagefolder: which folder? Name the one of your pictures with data.root=FOLDER\n"


def test_a_root_is_found_from_where_one_is_and_from_home(flat, monkeypatch):
    expected = built(flat).fingerprint
    monkeypatch.chdir(flat.parent)
    assert built(Path("flat")).fingerprint == expected
    monkeypatch.setenv("HOME", str(flat.parent))
    assert built("~/flat").fingerprint == expected


# ---- classes and their order -----------------------------------------------------------------------------------------


def test_classes_are_in_alphabetical_order_as_torchvision_has_them(tmp_path):
    top = folders(tmp_path / "x", dict.fromkeys(("zebra", "Ant", "10", "9", "émeu", "bee"), 3))
    assert list(built(top).classes) == TorchvisionFolder(str(top)).classes


def test_every_label_is_that_of_the_pictures_folder(split):
    data = loaded(split)
    for part in ("train", "val", "test"):
        held = [data.classes[label] for label in data.images[part].labels.tolist()]
        assert held == [name.split("/")[1] for name in names(data, part)]


def test_classes_take_turns_and_within_a_class_pictures_are_in_the_order_of_their_names(tmp_path):
    data = built(folders(tmp_path / "x", {"train/a": 3, "train/b": 1, "train/c": 2, "test/a": 1}))
    found = [str(picture.path.relative_to(data.top / "train")) for picture in data.pictures["train"]]
    assert found == ["a/000.png", "b/000.png", "c/000.png", "a/001.png", "c/001.png", "a/002.png"]
    assert data.labels("train").tolist() == [0, 1, 2, 0, 2, 0]


def test_every_first_n_of_train_are_balanced(tmp_path):
    top = folders(tmp_path / "x", {"train/a": 9, "train/b": 9, "train/c": 9, "test/a": 1})
    data = loaded(top, train_size=7, val_size=6)
    assert torch.bincount(data.images["train"].labels).tolist() == [3, 2, 2]


def test_the_order_does_not_depend_on_the_order_in_which_the_files_were_written(tmp_path):
    top = tmp_path / "x"
    for number in (5, 0, 3, 1, 4, 2):
        for name in ("b", "a"):
            (top / name).mkdir(parents=True, exist_ok=True)
            picture(f"{name}/{number}").save(top / name / f"{number:03}.png")
    other = folders(tmp_path / "y", {"a": 6, "b": 6})
    one, two = loaded(top), loaded(other)
    assert one.fingerprint == two.fingerprint
    assert all(equal(one.images[part], two.images[part]) for part in one.images)


# ---- the test split where there is no folder of it -------------------------------------------------------------------


@pytest.mark.parametrize(("share", "each"), [(0.2, [8, 4, 2]), (0.5, [20, 10, 5]), (0.05, [2, 1, 0])])
def test_test_share_of_every_class_is_set_apart(tmp_path, share, each):
    data = built(folders(tmp_path / "x", {"a": 40, "b": 20, "c": 10}), test_share=share)
    counts = np.bincount(data.labels("test"), minlength=3)
    assert counts.sum() == round(70 * share)
    assert all(abs(count - wanted) <= 1 for count, wanted in zip(counts, each, strict=True))


@pytest.mark.parametrize("keys", [{"split_seed": 7}, {"shuffle_seed": 7}, {"fraction": 0.5}, {"train_size": 3}])
def test_no_seed_or_size_changes_which_pictures_are_the_test_split(flat, keys):
    one, other = built(flat), built(flat, **keys)
    assert one.pictures["test"] == other.pictures["test"]


def test_the_test_split_of_a_flat_folder_is_a_constant(flat):
    data = built(flat)
    found = [str(picture.path.relative_to(data.top)) for picture in data.pictures["test"]]
    in_turn = [f"{name}/{number:03}.png" for number in range(10) for name in ("cat", "dog")]
    assert found == [in_turn[at] for at in stratified(np.arange(20) % 2, 4, 5000)]
    assert found == ["cat/004.png", "dog/005.png", "cat/006.png", "dog/007.png"]


def test_no_picture_is_in_two_splits(flat):
    data = loaded(flat)
    content = [bytes(image.numpy()) for images in data.images.values() for image in images.pixels]
    assert len(set(content)) == len(content) == 20


def test_a_class_of_one_picture_is_not_said_to_hold_none(tmp_path):
    top = folders(tmp_path / "x", {"a": 1, "b": 1})
    assert "holds no picture" not in refusal(top)


def test_a_test_share_that_leaves_nothing_to_train_on_says_so(flat):
    assert "test_share" in refusal(flat, test_share=0.99)


def an_hour_old(top: Path) -> Path:
    """A folder whose files are old enough for what is found out about them to be kept."""
    for path in top.rglob("*.png"):
        os.utime(path, (time.time() - 3600,) * 2)
    return top


def test_what_is_known_of_one_test_share_is_not_taken_for_granted_of_another(flat):
    folders(flat, {"emu": 1})
    an_hour_old(flat)
    assert loaded(flat, test_share=0.05).num_classes == 3
    assert str(flat / "emu") in refusal(flat, test_share=0.6)


def test_a_picture_that_only_another_test_share_tests_is_checked_as_well(flat):
    tested = {str(picture.path) for picture in built(flat).pictures["test"]}
    untested = next(path for path in sorted(flat.glob("cat/*.png"), reverse=True) if str(path) not in tested)
    untested.write_bytes(b"bad")
    an_hour_old(flat)
    small = {"train_size": 2, "val_size": 2}
    loaded(flat, **small)
    data = built(flat, test_share=0.8, **small)
    assert untested in [picture.path for picture in data.pictures["test"]]
    with pytest.raises(DataError, match=re.escape(str(untested))):
        data.prepare_data()


def test_an_auto_image_size_does_not_depend_on_which_share_was_tested_before(tmp_path, monkeypatch):
    top = tmp_path / "x"
    for name in ("a", "b"):
        (top / name).mkdir(parents=True)
        for number in range(10):
            side = 10 + number
            picture(f"{name}/{number}", side, side).save(top / name / f"{number}.png")
    an_hour_old(top)
    known = {}
    for share in (0.2, 0.9):
        monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / f"fresh{share}"))
        known[share] = built(top, test_share=share).native
    assert known[0.2] != known[0.9]
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "used"))
    assert {share: built(top, test_share=share).native for share in (0.2, 0.9)} == known


# ---- classes without pictures ----------------------------------------------------------------------------------------


def test_an_empty_class_is_named(flat):
    (flat / "emu").mkdir()
    assert refusal(flat) == f"{flat / 'emu'}: holds no picture to train on; put some there, or remove the folder"


def test_a_class_that_holds_other_files_alone_is_named(flat):
    (flat / "emu").mkdir()
    for name in ("notes.txt", ".hidden.png", ".DS_Store", "Thumbs.db"):
        (flat / "emu" / name).write_bytes(b"x")
    assert str(flat / "emu") in refusal(flat)


def test_a_class_with_pictures_in_val_alone_is_named(split):
    folders(split, {"train/emu": 0, "val/emu": 3})
    assert str(split / "train" / "emu") in refusal(split)


def test_folders_without_any_picture_are_named(tmp_path):
    top = folders(tmp_path / "x", {"a": 0, "b": 0})
    assert str(top) in refusal(top)


def test_an_empty_folder_test_is_not_passed_over_in_silence(tmp_path):
    top = folders(tmp_path / "x", {"train/a": 10, "train/b": 10, "test/a": 0, "test/b": 0})
    assert str(top / "test") in refusal(top)


# ---- which files are pictures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "IMG_1.JPG", "x.jpeg", "x.Png", "x.webp", "x.bmp", "x.gif", "x.tif", "x.TIFF", "x.ppm", "x.jp2",
        "two words.png", "ünïcødé 猫.png", unicodedata.normalize("NFD", "é.png"), "a=b,[c]{d}'$.png", "per%cent#.png",
        "-dash.png", "two.dots.png", "new\nline.png", "x" * 200 + ".png",
    ],
)  # fmt: skip
def test_a_picture_may_have_any_name_and_any_usual_ending(flat, name):
    picture(name).save(flat / "cat" / name)
    data = loaded(flat)
    assert row_of(data, f"cat/{name}").shape == (12, 12, 3)
    assert sum(map(len, data.images.values())) == 21


@pytest.mark.parametrize("name", [".DS_Store", "._IMG.jpg", ".hidden.png", "notes.txt", "Thumbs.db", "no_ending"])
def test_hidden_files_and_other_files_are_left_out(flat, name):
    (flat / "cat" / name).write_bytes(b"not a picture")
    assert sum(map(len, loaded(flat).images.values())) == 20


@pytest.mark.parametrize("name", [".hidden", "__MACOSX"])
def test_hidden_folders_are_left_out_wherever_they_are(flat, name):
    folders(flat, {name: 3, f"cat/{name}": 3})
    data = loaded(flat)
    assert data.classes == ("cat", "dog")
    assert sum(map(len, data.images.values())) == 20


def test_pictures_in_folders_within_a_class_belong_to_it(flat):
    folders(flat, {"cat/tabby/old": 2, "dog/album.jpg": 3})
    data = loaded(flat)
    assert sum(map(len, data.images.values())) == 25
    assert row_of(data, "cat/tabby/old/000.png").shape == (12, 12, 3)


@pytest.mark.parametrize("name", ["ünïcødé 猫", "two words", "a=b,[c]", "[red]", "[b]", "$x$", "%d", "{0}", "-m"])
def test_a_class_may_have_any_name(tmp_path, name):
    data = loaded(folders(tmp_path / "x", {name: 6, "other": 6}))
    assert set(data.classes) == {name, "other"}


@pytest.mark.parametrize("other", ["0", "~"])
@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), os.fsdecode(b"\xff\xfe")])
def test_names_that_are_not_utf8_are_names(tmp_path, name, other):
    top = folders(tmp_path / "x", {f"{split}/{label}": 3 for split in ("train", "test") for label in (name, other)})
    picture("x").save(top / "train" / other / f"{name}.png")
    data = loaded(top)
    assert data.classes == tuple(sorted([name, other]))
    assert sum(map(len, data.images.values())) == 13


def test_a_root_that_is_not_utf8_is_a_root(tmp_path):
    top = folders(tmp_path / os.fsdecode(b"caf\xe9"), {"a": 6, "b": 6})
    assert sum(map(len, loaded(top).images.values())) == 12


@pytest.mark.slow
def test_a_broken_picture_whose_name_is_not_utf8_is_named_on_the_screen(flat, tmp_path):
    (flat / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"broken")
    done = subprocess.run(
        [sys.executable, "-m", "cnnbench", *NET, f"data.root={flat}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert r"caf\udce9.png: not a picture" in done.stderr


def test_a_link_to_a_picture_and_a_link_to_a_folder_are_followed(flat, tmp_path):
    elsewhere = folders(tmp_path / "elsewhere", {"emus": 6})
    (flat / "emu").symlink_to(elsewhere / "emus")
    (flat / "cat" / "linked.png").symlink_to(elsewhere / "emus" / "000.png")
    data = loaded(flat)
    assert data.classes == ("cat", "dog", "emu")
    np.testing.assert_array_equal(row_of(data, "cat/linked.png"), np.asarray(picture("emus/0")))


def test_a_link_that_leads_back_does_not_multiply_the_pictures(flat):
    (flat / "cat" / "again").symlink_to(flat / "cat")
    assert sum(map(len, loaded(flat).images.values())) == 20


def test_a_link_that_leads_nowhere_is_named(flat):
    (flat / "cat" / "gone.png").symlink_to(flat / "nowhere.png")
    assert str(flat / "cat" / "gone.png") in refusal(flat)


def test_a_link_to_itself_is_named(flat):
    (flat / "cat" / "self.png").symlink_to(flat / "cat" / "self.png")
    assert str(flat / "cat" / "self.png") in refusal(flat)


NOBODY = 65534


@pytest.fixture
def without_rights(flat, monkeypatch):
    """A copy of the folder, of which a place may not be read: what a user is told who is not root."""
    loaded(flat)  # all modules are imported: whoever is nobody may not be allowed to
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    monkeypatch.setenv("CNNBENCH_DATA", str(place / "decoded"))
    (place / "decoded").mkdir()
    (place / "decoded").chmod(0o777)

    def told(name: str) -> str:
        top = shutil.copytree(flat, place / "flat")
        (top / name).chmod(0)
        before = os.geteuid()
        if before == 0:
            os.seteuid(NOBODY)
        try:
            return refusal(top)
        finally:
            os.seteuid(before)
            (top / name).chmod(0o755)

    yield told
    shutil.rmtree(place)


@pytest.mark.parametrize("name", ["cat/000.png", "cat", "cat/within", "dog/009.png"])
def test_a_picture_or_folder_that_may_not_be_read_is_named(flat, without_rights, name):
    folders(flat, {"cat/within": 2})
    assert f"/flat/{name}" in without_rights(name)


def test_a_picture_whose_reading_fails_is_named(flat, monkeypatch):
    whole = Path.open

    def refusing(path, *mode):
        if path.name == "003.png":
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path, *mode)

    monkeypatch.setattr(Path, "open", refusing)
    assert "003.png" in refusal(flat)


# ---- every kind of picture -------------------------------------------------------------------------------------------


def solid(mode: str, colour, width: int = 12, height: int = 12) -> Image.Image:
    return Image.new(mode, (width, height), colour)


def deep(value: int) -> Image.Image:
    """Sixteen bits of grey."""
    return Image.fromarray(np.full((12, 12), value, dtype=np.uint16))


def palette_with_transparency(folder: Path) -> None:
    image = solid("P", 3)
    image.putpalette([200, 10, 10] * 256)
    image.save(folder / "palette_with_transparency.png", transparency=3)


def animated(folder: Path) -> None:
    first, second = solid("RGB", (250, 0, 0)), solid("RGB", (0, 250, 0))
    first.save(folder / "animated.gif", save_all=True, append_images=[second], duration=50)


def with_exif(orientation: int, image: Image.Image) -> tuple[Image.Image, Image.Exif]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return image, exif


def in_lab(folder: Path) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(solid("RGB", (200, 100, 50)), srgb, lab, outputMode="LAB")
    converted.save(folder / "lab.tiff")


def float_tiff(folder: Path) -> None:
    Image.fromarray(np.full((12, 12), 0.5, dtype=np.float32)).save(folder / "float.tiff")


# name: (how it is written, the colour that it then has)
KINDS = {
    "grey.png": (lambda f: solid("L", 77).save(f / "grey.png"), (77, 77, 77)),
    "grey.jpg": (lambda f: solid("L", 77).save(f / "grey.jpg"), (77, 77, 77)),
    "one_bit.png": (lambda f: solid("1", 1).save(f / "one_bit.png"), (255, 255, 255)),
    "rgb.bmp": (lambda f: solid("RGB", (1, 2, 3)).save(f / "rgb.bmp"), (1, 2, 3)),
    "rgb.webp": (lambda f: solid("RGB", (200, 100, 50)).save(f / "rgb.webp", lossless=True), (200, 100, 50)),
    "rgb.ppm": (lambda f: solid("RGB", (1, 2, 3)).save(f / "rgb.ppm"), (1, 2, 3)),
    "grey.pgm": (lambda f: solid("L", 9).save(f / "grey.pgm"), (9, 9, 9)),
    "rgb.jp2": (lambda f: solid("RGB", (200, 100, 50)).save(f / "rgb.jp2"), (200, 100, 50)),
    "transparent.png": (lambda f: solid("RGBA", (10, 20, 30, 0)).save(f / "transparent.png"), (255, 255, 255)),
    "half.png": (lambda f: solid("RGBA", (0, 0, 0, 128)).save(f / "half.png"), (127, 127, 127)),
    "opaque.png": (lambda f: solid("RGBA", (10, 20, 30, 255)).save(f / "opaque.png"), (10, 20, 30)),
    "transparent.webp": (
        lambda f: solid("RGBA", (10, 20, 30, 0)).save(f / "transparent.webp", lossless=True), (255, 255, 255)),
    "grey_alpha.png": (lambda f: solid("LA", (10, 0)).save(f / "grey_alpha.png"), (255, 255, 255)),
    "palette.png": (lambda f: solid("RGB", (9, 99, 199)).convert("P", palette=1).save(f / "palette.png"), (9, 99, 199)),
    "palette_with_transparency.png": (palette_with_transparency, (255, 255, 255)),
    "cmyk.jpg": (lambda f: solid("CMYK", (0, 255, 255, 0)).save(f / "cmyk.jpg"), (255, 0, 0)),
    "cmyk.tif": (lambda f: solid("CMYK", (255, 0, 255, 0)).save(f / "cmyk.tif"), (0, 255, 0)),
    "deep.png": (lambda f: deep(32896).save(f / "deep.png"), (128, 128, 128)),
    "deep_dark.png": (lambda f: deep(257).save(f / "deep_dark.png"), (1, 1, 1)),
    "deep.tiff": (lambda f: deep(65535).save(f / "deep.tiff"), (255, 255, 255)),
    "animated.gif": (animated, (250, 0, 0)),
    "float.tiff": (float_tiff, (127, 127, 127)),
    "lab.tiff": (in_lab, (200, 100, 50)),
    "one_by_one.png": (lambda f: solid("RGB", (4, 5, 6), 1, 1).save(f / "one_by_one.png"), (4, 5, 6)),
    "tall.png": (lambda f: solid("RGB", (4, 5, 6), 1, 500).save(f / "tall.png"), (4, 5, 6)),
    "wide.png": (lambda f: solid("RGB", (4, 5, 6), 500, 1).save(f / "wide.png"), (4, 5, 6)),
    "panorama.png": (lambda f: solid("RGB", (4, 5, 6), 3000, 20).save(f / "panorama.png"), (4, 5, 6)),
    "huge.png": (lambda f: solid("RGB", (4, 5, 6), 20_000, 2).save(f / "huge.png"), (4, 5, 6)),
    "UPPER.JPG": (lambda f: solid("RGB", (128, 128, 128)).save(f / "UPPER.JPG"), (128, 128, 128)),
    "misnamed.jpg": (lambda f: solid("RGB", (7, 8, 9)).save(f / "misnamed.jpg", format="PNG"), (7, 8, 9)),
}  # fmt: skip


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> Path:
    """One picture of each kind, and as many usual ones."""
    top = tmp_path_factory.mktemp("kinds")
    (top / "odd").mkdir()
    for write, _ in KINDS.values():
        write(top / "odd")
    return folders(top, {"usual": len(KINDS)})


@pytest.fixture(scope="module")
def decoded_kinds(kinds) -> dict[str, ImageFolder]:
    """All of them read, for each `fit`."""
    return {fit: loaded(kinds, fit=fit) for fit in FITS}


@pytest.mark.slow
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("name", KINDS)
def test_a_picture_of_every_kind_has_its_colour(decoded_kinds, name, fit):
    pixels = row_of(decoded_kinds[fit], f"odd/{name}").astype(int)
    assert pixels.shape == (12, 12, 3)
    assert np.abs(pixels - KINDS[name][1]).max() <= 2


@pytest.mark.parametrize("name", KINDS)
def test_a_picture_of_every_kind_has_its_grey(kinds, name):
    red, green, blue = KINDS[name][1]
    grey = np.asarray(read_image(kinds / "odd" / name, 1, fit="crop")).astype(int)
    assert np.abs(grey - (0.299 * red + 0.587 * green + 0.114 * blue)).max() <= 3


def test_as_many_pictures_are_read_as_there_are(decoded_kinds):
    assert sum(map(len, decoded_kinds["crop"].images.values())) == 2 * len(KINDS)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(flat, orientation):
    upright = smooth(12, 12)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition whose inverse EXIF asks for
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    image, exif = with_exif(orientation, stored)
    image.save(flat / "cat" / "turned.png", exif=exif)
    np.testing.assert_array_equal(row_of(loaded(flat), "cat/turned.png"), np.asarray(upright))


@pytest.mark.parametrize("fit", FITS)
def test_a_picture_on_its_side_is_cut_as_it_is_seen(tmp_path, fit):
    seen = smooth(20, 10)
    image, exif = with_exif(6, seen.transpose(Image.Transpose.ROTATE_90))
    image.save(tmp_path / "turned.png", exif=exif)
    assert image.size == (10, 20)
    np.testing.assert_array_equal(
        np.asarray(read_image(tmp_path / "turned.png", 3, fit=fit)), np.asarray(squared(seen, fit))
    )


def test_one_channel_is_pils_grey(flat):
    data = loaded(flat, channels=1)
    assert data.shape == (1, 12, 12)
    for name in ("cat/000.png", "dog/007.png"):
        expected = np.asarray(Image.open(flat / name).convert("L"))
        np.testing.assert_array_equal(row_of(data, name)[..., 0], expected)


def test_grey_and_colour_of_one_folder_do_not_share_their_rows(flat):
    colour, grey, again = loaded(flat), loaded(flat, channels=1), loaded(flat)
    assert grey.images["train"].pixels.shape[1] == 1
    assert equal(colour.images["train"], again.images["train"])


# ---- what cannot be read ---------------------------------------------------------------------------------------------

BROKEN = {
    "empty.jpg": b"",
    "html.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
    "text.png": b"not a picture",
    "noise.png": bytes(range(256)) * 4,
    "header.png": b"\x89PNG\r\n\x1a\n",
    "vector.gif": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("place", ["cat", "cat/within"])
def test_a_file_that_is_no_picture_is_named(flat, name, place):
    (flat / place).mkdir(exist_ok=True)
    (flat / place / name).write_bytes(BROKEN[name])
    message = refusal(flat)
    assert message.startswith(f"{flat / place / name}: ")
    assert message.endswith("; replace or remove it")
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp", "gif", "jp2"])
@pytest.mark.parametrize("left", [0.3, 0.6, 0.9])
def test_a_picture_that_is_cut_short_is_named(flat, kind, left):
    path = flat / "dog" / f"cut.{kind}"
    picture("cut", 60, 60).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content))])
    assert refusal(flat).startswith(f"{path}: ")


def test_a_damaged_checksum_inside_a_png_is_named(flat):
    path = flat / "dog" / "004.png"
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 255
    path.write_bytes(bytes(content))
    assert refusal(flat).startswith(f"{path}: damaged")


def test_a_picture_that_claims_to_be_enormous_is_named(flat):
    header = b"P6 60000 60000 255\n"
    (flat / "cat" / "bomb.ppm").write_bytes(header + b"\0" * 100)
    assert refusal(flat).startswith(f"{flat / 'cat' / 'bomb.ppm'}: ")


@pytest.mark.parametrize("where", ["train", "val", "test"])
def test_a_broken_picture_in_any_split_is_named_before_anything_is_trained(split, where, tmp_path, capsys):
    (split / where / "cat" / "bad.png").write_bytes(b"bad")
    code, out, err = command(capsys, *NET, f"data.root={split}", f"runs_dir={tmp_path / 'runs'}")
    assert f"{split / where / 'cat' / 'bad.png'}: not a picture" in err
    assert (code, out) == (2, "")
    assert not (tmp_path / "runs").exists()


def test_many_broken_pictures_are_listed_in_one_message(flat, tmp_path, capsys):
    bad = [flat / name / f"bad{number}.png" for number in range(4) for name in ("cat", "dog")]
    for path in bad:
        path.write_bytes(b"bad")
    code, _, err = command(capsys, *NET, f"data.root={flat}", f"runs_dir={tmp_path / 'runs'}")
    assert code == 2
    assert err.startswith("cnnbench: 8 pictures cannot be read; replace or remove them\n")
    assert [str(path) in err for path in bad] == [True] * 8


def test_of_very_many_broken_pictures_ten_are_named_and_the_rest_counted(tmp_path):
    top = folders(tmp_path / "x", {"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 2})
    for number in range(25):
        (top / "train" / "a" / f"bad{number:02}.png").write_bytes(b"bad")
    lines = refusal(top).splitlines()
    assert lines[0] == "25 pictures cannot be read; replace or remove them"
    assert [line.split(":")[0].strip() for line in lines[1:11]] == [
        str(top / "train" / "a" / f"bad{number:02}.png") for number in range(10)
    ]
    assert lines[11:] == ["    and 15 more"]


def test_broken_pictures_beyond_the_first_hundreds_are_listed_too(tmp_path):
    top = folders(tmp_path / "x", {"train/a": 4, "train/b": 4, "test/a": 1, "test/b": 1}, 2, 2)
    content = (top / "train" / "a" / "000.png").read_bytes()
    for number in range(600):
        (top / "train" / "a" / f"m{number:03}.png").write_bytes(content)
    for name in ("001.png", "z.png"):
        (top / "train" / "a" / name).write_bytes(b"bad")
    message = refusal(top)
    assert message.startswith("2 pictures cannot be read")
    assert all(str(top / "train" / "a" / name) in message for name in ("001.png", "z.png"))


def test_a_picture_that_was_repaired_is_read_the_next_time(flat):
    path = flat / "cat" / "000.png"
    content = path.read_bytes()
    path.write_bytes(b"bad")
    refusal(flat)
    path.write_bytes(content)
    data = loaded(flat)
    np.testing.assert_array_equal(row_of(data, "cat/000.png"), np.asarray(picture("cat/0")))


class Counting(ImageFolder):
    """Notes which pictures are decoded."""

    decoded: list[str]

    def _decoded(self, path, side):
        self.decoded.append(path.name)
        return super()._decoded(path, side)


@pytest.fixture
def counting(monkeypatch) -> type[Counting]:
    monkeypatch.setattr(Counting, "decoded", [], raising=False)
    return Counting


def test_every_picture_is_decoded_once_and_those_of_the_test_once_before_to_see_whether_they_can_be(flat, counting):
    an_hour_old(flat)
    ready(counting(root=flat))
    assert len(counting.decoded) == 20 + 4
    ready(counting(root=flat))
    assert len(counting.decoded) == 20 + 4


def test_pictures_that_no_split_takes_are_not_decoded(flat, counting):
    ready(counting(root=flat, train_size=4, val_size=2, test_size=2))
    assert len(counting.decoded) == 8 + 4  # the test split's four are looked at before


def test_reading_in_several_threads_leaves_the_filters_of_warnings_as_they_were(flat):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
            before = list(warnings.filters)
            list(pool.map(lambda _: read_image(flat / "cat" / "000.png", 3), range(1500)))
            assert warnings.filters == before
    finally:
        sys.setswitchinterval(interval)


def test_a_large_picture_is_read_without_a_warning(flat, recwarn, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    loaded(flat)
    assert [str(warning.message) for warning in recwarn] == []


# ---- the size --------------------------------------------------------------------------------------------------------


def test_an_auto_image_size_is_the_commonest_shorter_side(tmp_path):
    top = folders(tmp_path / "x", {"train/a": 5, "test/a": 5}, 30, 20)
    folders(top, {"train/b": 3}, 16, 40)
    folders(top, {"test/b": 9}, 50, 50)
    data = built(top)
    assert (data.native, data.image_size, data.shape) == (20, 20, (3, 20, 20))


def test_of_two_sizes_as_common_the_larger_is_taken(tmp_path):
    top = folders(tmp_path / "x", {"train/a": 4, "test/a": 1}, 10, 10)
    folders(top, {"train/b": 4, "test/b": 1}, 14, 14)
    assert built(top).image_size == 14


@pytest.mark.parametrize(("side", "wanted"), [(223, 223), (224, 224), (225, 224), (300, 224)])
def test_an_auto_image_size_is_at_most_224(tmp_path, side, wanted):
    data = built(folders(tmp_path / "x", {"a": 2, "b": 2}, side + 10, side))
    assert (data.native, data.image_size) == (side, wanted)


def test_a_net_brings_an_auto_size_into_what_it_takes(flat):
    assert prepare(compose([*NET, "model=lenet5", f"data.root={flat}"])).config.data.image_size == 32


def test_broken_pictures_do_not_count_for_the_size(flat):
    for number in range(30):
        (flat / "cat" / f"bad{number}.png").write_bytes(b"bad")
    assert built(flat).image_size == 12


def test_a_shorter_side_is_read_from_the_header(tmp_path):
    picture("x", 30, 20).save(tmp_path / "x.png")
    (tmp_path / "y.png").write_bytes(b"bad")
    assert (short_side(tmp_path / "x.png"), short_side(tmp_path / "y.png"), short_side(tmp_path / "z")) == (
        20,
        None,
        None,
    )


# ---- what becomes of pictures that are not square --------------------------------------------------------------------


def test_crop_keeps_the_middle(tmp_path):
    picture("x", 21, 10).save(tmp_path / "x.png")
    found = np.asarray(read_image(tmp_path / "x.png", 3, fit="crop"))
    np.testing.assert_array_equal(found, np.asarray(picture("x", 21, 10))[:, 5:15])


def test_pad_keeps_all_of_it_in_the_middle_of_the_borders_mean(tmp_path):
    image = picture("x", 20, 10)
    image.save(tmp_path / "x.png")
    found, pixels = np.asarray(read_image(tmp_path / "x.png", 3, fit="pad")), np.asarray(image)
    np.testing.assert_array_equal(found[5:15], pixels)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(float)
    assert np.abs(found[[0, 4, 15, 19]] - border.mean(0)).max() <= 0.5


def test_stretch_keeps_all_of_it_and_distorts_it(tmp_path):
    smooth(40, 20).save(tmp_path / "x.png")
    found = np.asarray(read_image(tmp_path / "x.png", 3, fit="stretch")).astype(int)
    assert np.abs(found - np.asarray(smooth(40, 40)).astype(int)).max() <= 6


def by_pil(path: Path, fit: str, side: int) -> np.ndarray:
    """(side, side, 3): a picture of 24 × 16, made square and scaled by PIL in the plainest way."""
    image = Image.open(path).convert("RGB")
    if fit == "crop":
        image = image.crop((4, 0, 20, 16))
    elif fit == "pad":
        pixels = np.asarray(image)
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).mean(0).round().astype(np.uint8)
        canvas = np.empty((24, 24, 3), np.uint8)
        canvas[:] = border
        canvas[4:20] = pixels
        image = Image.fromarray(canvas)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("side", [16, 24, 9, 40])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_rows_are_what_pil_decodes_and_scales(tmp_path, fit, side):
    data = loaded(folders(tmp_path / "x", {"a": 4, "b": 4}, 24, 16), fit=fit, image_size=side)
    for name in ("a/000.png", "a/001.png", "b/003.png"):
        np.testing.assert_array_equal(row_of(data, name), by_pil(data.top / name, fit, side))


@pytest.mark.parametrize("side", [16, 24, 9])
def test_stretched_rows_are_what_pil_scales_at_once_to_within_some_grey_levels(tmp_path, side):
    top = folders(tmp_path / "x", {"a": 4, "b": 4}, 24, 16)
    smooth(24, 16).save(top / "a" / "000.png")
    found = row_of(loaded(top, fit="stretch", image_size=side), "a/000.png").astype(int)
    assert np.abs(found - by_pil(top / "a" / "000.png", "stretch", side)).max() <= 6


def test_the_three_fits_of_one_folder_do_not_share_their_rows(tmp_path):
    top = folders(tmp_path / "x", {"a": 4, "b": 4}, 24, 16)
    rows = {fit: loaded(top, fit=fit).images["train"].pixels for fit in FITS}
    assert not torch.equal(rows["crop"], rows["pad"])
    assert not torch.equal(rows["stretch"], rows["pad"])
    for fit in FITS:
        assert torch.equal(loaded(top, fit=fit).images["train"].pixels, rows[fit])


# ---- mean and deviation ----------------------------------------------------------------------------------------------


def numpy_statistics(data: ImageFolder) -> tuple[np.ndarray, np.ndarray]:
    side = data.image_size
    train = [
        Image.open(data.top / name).resize((side, side), Image.Resampling.BILINEAR) for name in names(data, "train")
    ]
    pixels = np.stack([np.asarray(image) for image in train]) / 255
    return pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))


@pytest.mark.parametrize("keys", [{}, {"train_size": 5, "val_size": 3}, {"image_size": 7}, {"split_seed": 3}])
def test_mean_and_deviation_are_those_of_the_train_images_as_numpy_has_them(flat, keys):
    data = loaded(flat, **keys)
    mean, std = numpy_statistics(data)
    np.testing.assert_allclose(data.mean, mean, atol=1e-12)
    np.testing.assert_allclose(data.std, std, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["augment=notes", "augment=resized_crop"])
def test_mean_and_deviation_do_not_depend_on_the_augmentation(tmp_path, augment):
    top = folders(tmp_path / "x", {"a": 10, "b": 10}, 16, 16)
    plain, augmented = (prepare(compose([*NET, f"data.root={top}", *more])).config.data for more in ([], [augment]))
    assert (plain.mean, plain.std) == (augmented.mean, augmented.std)


def test_a_mean_that_is_typed_is_kept_and_the_deviation_measured(flat):
    data = loaded(flat, mean=[0.1, 0.2, 0.3])
    assert data.mean == [0.1, 0.2, 0.3]
    np.testing.assert_allclose(data.std, numpy_statistics(data)[1], atol=1e-12)


def test_pictures_of_one_colour_have_a_deviation_that_one_can_divide_by(tmp_path):
    top = folders(tmp_path / "x", {"a": 0, "b": 0})
    for name in ("a", "b"):
        for number in range(4):
            solid("RGB", (50, 60, 70)).save(top / name / f"{number}.png")
    images, _ = next(iter(loaded(top).train_dataloader()))
    assert torch.isfinite(images).all()


def test_label_noise_leaves_mean_and_deviation_alone(flat):
    assert loaded(flat, label_noise=0.5).mean == loaded(flat).mean


# ---- fingerprints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["train", "val", "test"])
def test_the_fingerprint_changes_with_one_byte_of_any_picture(split, where):
    before = built(split).fingerprint
    with (split / where / "dog" / "001.png").open("ab") as file:
        file.write(b"\0")
    assert built(split).fingerprint != before


@pytest.mark.parametrize("where", ["train", "val", "test"])
def test_the_fingerprint_changes_with_any_new_name(split, where):
    before = built(split).fingerprint
    folder = split / where / "dog"
    (folder / "001.png").rename(folder / "001b.png")
    assert built(split).fingerprint != before


def test_the_fingerprint_changes_when_two_pictures_change_classes(flat):
    before = built(flat).fingerprint
    one, other = flat / "cat" / "000.png", flat / "dog" / "000.png"
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    assert built(flat).fingerprint != before


def test_the_fingerprint_changes_when_a_class_is_renamed(flat):
    before = built(flat).fingerprint
    (flat / "dog").rename(flat / "wolf")
    assert built(flat).fingerprint != before


@pytest.mark.parametrize("change", ["added", "removed"])
def test_the_fingerprint_changes_when_a_picture_is(flat, change):
    before = built(flat).fingerprint
    if change == "added":
        picture("new").save(flat / "cat" / "new.png")
    else:
        (flat / "cat" / "009.png").unlink()
    assert built(flat).fingerprint != before


def test_a_folder_that_is_moved_or_copied_keeps_its_fingerprint(flat, tmp_path):
    before = built(flat).fingerprint
    copied = shutil.copytree(flat, tmp_path / "elsewhere" / "deeper")
    assert built(copied).fingerprint == before
    moved = flat.rename(tmp_path / "moved")
    assert built(moved).fingerprint == before


def test_the_fingerprint_does_not_change_with_files_that_are_not_read(flat):
    before = built(flat).fingerprint
    (flat / "cat" / "notes.txt").write_text("nice cat")
    (flat / ".DS_Store").write_bytes(b"x")
    assert built(flat).fingerprint == before


@pytest.mark.parametrize(
    "keys", [{"channels": 1}, {"fit": "pad"}, {"image_size": 9}, {"split_seed": 4}, {"train_size": 5}]
)
def test_the_fingerprint_does_not_change_with_the_keys(flat, keys):
    assert built(flat, **keys).fingerprint == built(flat).fingerprint


def test_the_fingerprint_does_not_change_with_the_share_that_is_tested(flat):
    assert built(flat, test_share=0.4).fingerprint == built(flat).fingerprint


def test_two_pictures_that_change_names_give_another_split_of_the_same_pictures(flat):
    before = loaded(flat)
    for old, new in (("000", "x"), ("001", "000"), ("x", "001")):
        (flat / "cat" / f"{old}.png").rename(flat / "cat" / f"{new}.png")
    after = loaded(flat)
    assert before.fingerprint != after.fingerprint
    np.testing.assert_array_equal(row_of(after, "cat/000.png"), np.asarray(picture("cat/1")))


# ---- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"channels": 2}, "data.channels=2: expected 3, or 1 for grey"),
        ({"channels": True}, "data.channels=true: expected 3, or 1 for grey"),
        ({"channels": "grey"}, "data.channels=grey: expected 3, or 1 for grey"),
        ({"fit": "cropp"}, "data.fit=cropp: expected crop, pad or stretch"),
        ({"fit": None}, "data.fit=null: expected crop, pad or stretch"),
        ({"test_share": 0}, "data.test_share=0: expected a number above 0, below 1"),
        ({"test_share": 1}, "data.test_share=1: expected a number above 0, below 1"),
        ({"test_share": -0.1}, "data.test_share=-0.1: expected a number above 0, below 1"),
        ({"test_share": "a"}, "data.test_share=a: expected a number above 0, below 1"),
        ({"test_share": None}, "data.test_share=null: expected a number above 0, below 1"),
        ({"test_share": float("nan")}, "data.test_share=nan: expected a number above 0, below 1"),
        ({"test_size": 5}, "data.test_size=5: the split has 4 images; type at most 4"),
        ({"train_size": 17}, "data.train_size=17: the split has 16 images"),
        ({"mean": [0.5, 0.5]}, "data.mean=[0.5,0.5]: imagefolder has 3 channels; type one number for each"),
    ],
)
def test_a_value_that_cannot_be_is_told_as_one_types_it(flat, keys, message):
    with pytest.raises(ConfigError) as caught:
        loaded(flat, **keys)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["data.channels=true", "data.channels=grey", "data.fit=null", "data.size=3"])
def test_a_mistake_on_the_command_line_is_one_line(flat, tmp_path, capsys, override):
    code, out, err = command(capsys, *NET, f"data.root={flat}", f"runs_dir={tmp_path / 'runs'}", override)
    assert err.startswith(f"cnnbench: {override.split('=')[0]}")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_the_keys_in_conf_are_those_of_the_constructor_and_its_defaults(flat):
    config = compose(["data=imagefolder", f"data.root={flat}"])
    data = build_data(config)
    assert (data.channels, data.fit, data.test_share) == (3, "crop", 0.2)
    assert isinstance(data, ImageFolder)
    assert config.data.model_extra == {"channels": 3, "fit": "crop", "test_share": 0.2}


# ---- training and asking ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Two classes of pictures that are not square: light and dark, with noise."""
    top = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (top / name).mkdir()
        for number in range(30):
            pixels = np.clip(random.normal(level, 60, (12, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(top / name / f"{number:02}.png")
    return top


@pytest.mark.slow
@pytest.mark.parametrize("fit", FITS)
def test_a_net_says_of_a_picture_what_it_said_in_its_test(photographs, tmp_path, capsys, fit):
    overrides = [f"data.root={photographs}", f"data.fit={fit}", f"runs_dir={tmp_path / 'runs'}", "epochs=2"]
    directory = run(compose([*NET, *overrides])).directory
    data = loaded(photographs, fit=fit)
    saved = np.load(directory.predictions)
    expected = torch.from_numpy(saved["logits"]).softmax(1).numpy()
    paths = [photographs / name for name in names(data, "test")]
    code, out, _ = command(capsys, "predict", directory.path, *paths, "--top", 2, "--json")
    assert code == 0
    for row, prediction in zip(expected, json.loads(out)["predictions"], strict=True):
        answer = {top["index"]: top["probability"] for top in prediction["top"]}
        assert [answer[0], answer[1]] == pytest.approx(row.tolist(), abs=1e-5 if fit == "crop" else 0.02)
    assert load_net(directory.path)[1]["fit"] == fit


@pytest.fixture(scope="module")
def oddly_named(tmp_path_factory) -> tuple[Path, Path]:
    """A run on classes of odd names, and one of their pictures."""
    top = tmp_path_factory.mktemp("odd names")
    folders(top, {"[red]": 6, os.fsdecode(b"A\xe9"): 6, "$x$": 6})
    config = compose([*NET, f"data.root='{top}'", f"runs_dir='{top.parent / '[bold] runs'}'"])
    return run(config).directory.path, top / "$x$" / "000.png"


@pytest.mark.slow
def test_a_net_names_its_classes_as_they_are_when_it_is_scored(oddly_named, capsys):
    code, out, err = command(capsys, "evaluate", oddly_named[0])
    assert (code, err) == (0, "")
    printed = [line.split()[0] for line in out.splitlines()[-3:]]
    assert (printed[0], printed[1][0], printed[2]) == ("$x$", "A", "[red]")


def test_a_net_names_its_classes_as_they_are_when_it_is_asked(oddly_named, tmp_path, capsys):
    code, out, err = command(capsys, "predict", *oddly_named, "--show", tmp_path / "answer.png")
    assert (code, err) == (0, "")
    assert all(re.search(rf"{name} 0\.", out) for name in (r"\$x\$", r"\[red\]", r"A\S+"))
    assert (tmp_path / "answer.png").is_file()


def test_a_folder_of_any_name_is_printed_as_it_is(oddly_named, capsys):
    directory, _ = oddly_named
    assert "[bold] runs" in str(directory)
    assert command(capsys, "evaluate", directory)[1].startswith(f"{directory} on imagefolder, test")


def test_a_run_keeps_the_folder_the_size_and_what_was_measured(photographs, tmp_path, monkeypatch):
    monkeypatch.chdir(photographs.parent)
    overrides = [f"data.root={photographs.name}", f"runs_dir={tmp_path / 'runs'}", "data.image_size=12"]
    frozen = prepare(compose([*NET, *overrides])).config.data
    assert frozen.root == str(photographs)
    assert (frozen.image_size, frozen.fingerprint) == (12, built(photographs).fingerprint)
    assert frozen.mean == loaded(photographs, image_size=12).mean


def test_a_moved_folder_gives_a_run_of_the_same_identity(photographs, tmp_path):
    moved = shutil.copytree(photographs, tmp_path / "moved")
    one, other = (prepare(compose([*NET, f"data.root={top}"])).config for top in (photographs, moved))
    assert one.identity() == other.identity()


# ---- real photographs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cifar(real_data) -> Path:
    folder = real_data / "cifar10_images"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


@pytest.fixture(scope="module")
def photos(cifar) -> ImageFolder:
    return loaded(cifar)


@pytest.mark.slow
def test_cifars_folders_have_their_ten_classes_and_five_thousand_pictures(photos):
    assert photos.classes == tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
    assert {part: len(images) for part, images in photos.images.items()} == {"train": 3600, "val": 400, "test": 1000}
    assert photos.shape == (3, 32, 32)


@pytest.mark.slow
def test_cifars_rows_are_what_torchvision_and_pil_read(photos, cifar):
    for part in ("train", "test"):
        reference = TorchvisionFolder(str(cifar / part))
        known = dict(reference.samples)
        for row in range(0, len(photos.indices[part]), 97):
            name = names(photos, part)[row]
            assert known[str(cifar / name)] == photos.images[part].labels[row]
            expected = np.asarray(Image.open(cifar / name).convert("RGB"))
            np.testing.assert_array_equal(photos.images[part].pixels[row].permute(1, 2, 0).numpy(), expected)


def test_cifars_mean_and_deviation_are_numpys(photos):
    pixels = photos.images["train"].pixels.numpy() / 255
    np.testing.assert_allclose(photos.mean, pixels.mean((0, 2, 3)), atol=1e-9)
    np.testing.assert_allclose(photos.std, pixels.std((0, 2, 3)), atol=1e-9)


def test_cifars_validation_is_stratified(photos):
    assert torch.bincount(photos.images["val"].labels).tolist() == [40] * 10
    assert torch.bincount(photos.images["train"].labels).tolist() == [360] * 10


@pytest.mark.slow
def test_cifars_train_folder_alone_is_cut_into_three(cifar):
    data = built(cifar / "train")
    data.prepare_data()
    assert (data.count("train"), data.count("test")) == (3200, 800)
    assert np.bincount(data.labels("test")).tolist() == [80] * 10


@pytest.mark.slow
def test_cifars_folders_can_be_trained_on(cifar, tmp_path):
    overrides = [f"data.root={cifar}", "data.train_size=256", "data.test_size=100", f"runs_dir={tmp_path / 'runs'}"]
    outcome = run(compose([*NET, *overrides]))
    assert outcome.result["n"] == {"train": 256, "val": 400, "test": 100}
