"""Class folders: layouts, classes and their order, which files are pictures, and the test split."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder as TorchvisionFolder

from cnnbench.data.image_files import read_image
from cnnbench.data.splits import stratified
from cnnbench.errors import DataError
from datafiles import equal, ready
from picturefolders import (  # noqa: F401
    NET,
    an_hour_old,
    built,
    command,
    flat,
    folders,
    loaded,
    names,
    nothing_decoded_yet,
    picture,
    refusal,
    row_of,
    split,
)


def test_a_flat_folder_is_split_into_train_val_and_test(flat):
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


def test_the_folder_val_is_the_validation_split(split):
    data = loaded(split)
    assert {name.split("/")[0] for name in names(data, "val")} == {"val"}
    assert {name.split("/")[0] for name in names(data, "train")} == {"train"}
    assert {name.split("/")[0] for name in names(data, "test")} == {"test"}
    assert {split: len(images) for split, images in data.images.items()} == {"train": 12, "val": 6, "test": 8}


def test_without_a_folder_test_the_test_split_is_drawn_from_train(tmp_path):
    top = folders(tmp_path / "x", {"train/a": 10, "train/b": 10, "val/a": 2, "val/b": 2})
    data = loaded(top)
    assert {split: len(images) for split, images in data.images.items()} == {"train": 16, "val": 4, "test": 4}
    assert all(name.startswith("val/") for name in names(data, "val"))
    assert all(name.startswith("train/") for name in names(data, "test"))


@pytest.mark.parametrize(("size", "taken"), [(2, 2), ([1, 3], 2)])
def test_a_val_size_counts_within_the_folder_val(split, size, taken):
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
def test_splits_under_unknown_names_are_not_mistaken_for_classes(tmp_path, first):
    top = folders(tmp_path / "x", {f"{first}/a": 2, f"{first}/b": 2, "test_set/a": 2, "test_set/b": 2})
    text = refusal(top)
    assert first in text
    assert "hold the same class folders" in text


def test_files_that_are_not_pictures_are_counted_in_the_log(flat, caplog):
    for name in ("a.HEIC", "b.HEIC", "c"):
        (flat / "cat" / name).write_bytes(b"?")
    loaded(flat)
    assert "2 .heic, 1 without an ending" in caplog.text


def test_a_picture_that_changes_before_it_is_decoded_is_refused(flat):
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


def test_classes_without_a_training_image_are_named_in_the_log(tmp_path, caplog):
    top = folders(tmp_path / "x", {"train/a": 9, "train/b": 9, "train/c": 9, "test/a": 1, "test/b": 1, "test/c": 1})
    loaded(top, fraction=0.05)
    assert "2 classes have no image to train on" in caplog.text


@pytest.mark.parametrize(
    ("train", "val"), [("train", "valid"), ("Training", "validation"), ("train", "VAL"), ("TRAIN", "Validation")]
)
def test_split_folders_have_several_names(tmp_path, train, val):
    counts = {f"{train}/a": 4, f"{train}/b": 4, f"{val}/a": 1, f"{val}/b": 1, "Testing/a": 1, "Testing/b": 1}
    data = built(folders(tmp_path / "x", counts))
    data.prepare_data()
    data.setup("fit")
    assert (data.count("train"), data.count("test")) == (10, 2)
    assert data.indices["val"].tolist() == [8, 9]


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_a_class_may_have_the_name_of_a_split(tmp_path, name):
    data = loaded(folders(tmp_path / "x", {name: 6, "bus": 6}))
    assert set(data.classes) == {name, "bus"}
    assert sum(map(len, data.images.values())) == 12


def test_a_class_of_a_split_set_may_be_called_train(tmp_path):
    data = loaded(folders(tmp_path / "x", {"train/train": 6, "train/bus": 6, "test/train": 2, "test/bus": 2}))
    assert data.classes == ("bus", "train")
    assert len(data.images["test"]) == 4


def test_an_unknown_folder_beside_train_is_named(tmp_path):
    top = folders(tmp_path / "x", {"train/a": 4, "train/b": 4, "extra/a": 4})
    assert refusal(top).startswith(f"{top}: holds extra next to train; expected FOLDER/<class>/<pictures>")


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


def test_two_split_folders_that_differ_only_in_case_are_refused(tmp_path):
    top = folders(tmp_path / "x", {"train/a": 4, "train/b": 4, "Train/a": 4, "Train/b": 4})
    if len(list(top.iterdir())) == 1:
        pytest.skip("this file system does not distinguish them")
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
def test_the_error_names_a_root_that_is_not_a_folder(tmp_path, place):
    (tmp_path / "file.txt").write_text("")
    assert f"data.root={tmp_path / place}: no such folder" in refusal(tmp_path / place)


def test_data_imagefolder_without_a_root_is_one_clear_line(capsys):
    code, out, err = command(capsys, *NET)
    assert (code, out) == (2, "")
    assert err == "cnnbench: data=imagefolder: which folder? Name the one of your pictures with data.root=FOLDER\n"


def test_a_root_may_be_relative_or_begin_with_a_tilde(flat, monkeypatch):
    expected = built(flat).fingerprint
    monkeypatch.chdir(flat.parent)
    assert built(Path("flat")).fingerprint == expected
    monkeypatch.setenv("HOME", str(flat.parent))
    assert built("~/flat").fingerprint == expected


def test_classes_are_in_torchvisions_alphabetical_order(tmp_path):
    top = folders(tmp_path / "x", dict.fromkeys(("zebra", "Ant", "10", "9", "émeu", "bee"), 3))
    assert list(built(top).classes) == TorchvisionFolder(str(top)).classes


def test_every_label_is_that_of_the_pictures_folder(split):
    data = loaded(split)
    for part in ("train", "val", "test"):
        held = [data.classes[label] for label in data.images[part].labels.tolist()]
        assert held == [name.split("/")[1] for name in names(data, part)]


def test_the_order_alternates_between_classes_and_sorts_pictures_by_name(tmp_path):
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


@pytest.mark.parametrize(("share", "each"), [(0.2, [8, 4, 2]), (0.5, [20, 10, 5]), (0.05, [2, 1, 0])])
def test_the_test_split_has_test_share_of_every_class(tmp_path, share, each):
    data = built(folders(tmp_path / "x", {"a": 40, "b": 20, "c": 10}), test_share=share)
    counts = np.bincount(data.labels("test"), minlength=3)
    assert counts.sum() == round(70 * share)
    assert all(abs(count - wanted) <= 1 for count, wanted in zip(counts, each, strict=True))


@pytest.mark.parametrize("keys", [{"split_seed": 7}, {"fraction": 0.5}, {"train_size": 3}])
def test_no_seed_or_size_changes_which_pictures_are_the_test_split(flat, keys):
    one, other = built(flat), built(flat, **keys)
    assert one.pictures["test"] == other.pictures["test"]


def test_the_test_split_of_a_flat_folder_is_a_constant(flat):
    data = built(flat)
    found = [str(picture.path.relative_to(data.top)) for picture in data.pictures["test"]]
    alternating = [f"{name}/{number:03}.png" for number in range(10) for name in ("cat", "dog")]
    assert found == [alternating[at] for at in stratified(np.arange(20) % 2, 4, 5000)]
    assert found == ["cat/004.png", "dog/005.png", "cat/006.png", "dog/007.png"]


def test_no_picture_is_in_two_splits(flat):
    data = loaded(flat)
    content = [bytes(image.numpy()) for images in data.images.values() for image in images.pixels]
    assert len(set(content)) == len(content) == 20


def test_the_error_for_a_class_of_one_picture_does_not_call_it_empty(tmp_path):
    top = folders(tmp_path / "x", {"a": 1, "b": 1})
    assert "holds no picture" not in refusal(top)


def test_the_error_names_a_test_share_that_leaves_nothing_to_train_on(flat):
    assert "test_share" in refusal(flat, test_share=0.99)


def test_facts_kept_for_one_test_share_are_not_used_for_another(flat):
    folders(flat, {"emu": 1})
    an_hour_old(flat)
    assert loaded(flat, test_share=0.05).num_classes == 3
    assert str(flat / "emu") in refusal(flat, test_share=0.6)


def test_a_picture_that_another_test_share_adds_to_the_test_is_checked(flat):
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


def test_an_auto_image_size_does_not_depend_on_an_earlier_test_share(tmp_path, monkeypatch):
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


def test_an_empty_class_is_named(flat):
    (flat / "emu").mkdir()
    assert refusal(flat) == f"{flat / 'emu'}: holds no picture to train on; put some there, or remove the folder"


def test_a_class_without_picture_files_is_named(flat):
    (flat / "emu").mkdir()
    for name in ("notes.txt", ".hidden.png", ".DS_Store", "Thumbs.db"):
        (flat / "emu" / name).write_bytes(b"x")
    assert str(flat / "emu") in refusal(flat)


def test_a_class_with_pictures_only_in_val_is_named(split):
    folders(split, {"train/emu": 0, "val/emu": 3})
    assert str(split / "train" / "emu") in refusal(split)


def test_folders_without_any_picture_are_named(tmp_path):
    top = folders(tmp_path / "x", {"a": 0, "b": 0})
    assert str(top) in refusal(top)


def test_an_empty_folder_test_is_refused(tmp_path):
    top = folders(tmp_path / "x", {"train/a": 10, "train/b": 10, "test/a": 0, "test/b": 0})
    assert str(top / "test") in refusal(top)


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
def test_hidden_files_and_other_files_are_ignored(flat, name):
    (flat / "cat" / name).write_bytes(b"not a picture")
    assert sum(map(len, loaded(flat).images.values())) == 20


@pytest.mark.parametrize("name", [".hidden", "__MACOSX"])
def test_hidden_folders_are_ignored_at_any_depth(flat, name):
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
def test_names_may_contain_bytes_that_are_not_utf8(tmp_path, name, other):
    top = folders(tmp_path / "x", {f"{split}/{label}": 3 for split in ("train", "test") for label in (name, other)})
    picture("x").save(top / "train" / other / f"{name}.png")
    data = loaded(top)
    assert data.classes == tuple(sorted([name, other]))
    assert sum(map(len, data.images.values())) == 13


def test_a_root_may_contain_bytes_that_are_not_utf8(tmp_path):
    top = folders(tmp_path / os.fsdecode(b"caf\xe9"), {"a": 6, "b": 6})
    assert sum(map(len, loaded(top).images.values())) == 12


@pytest.mark.slow
def test_a_broken_picture_whose_name_is_not_utf8_is_printed(flat, tmp_path):
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


def test_a_link_to_a_parent_folder_does_not_repeat_the_pictures(flat):
    (flat / "cat" / "again").symlink_to(flat / "cat")
    assert sum(map(len, loaded(flat).images.values())) == 20


def test_a_broken_link_is_named(flat):
    (flat / "cat" / "gone.png").symlink_to(flat / "nowhere.png")
    assert str(flat / "cat" / "gone.png") in refusal(flat)


def test_a_link_to_itself_is_named(flat):
    (flat / "cat" / "self.png").symlink_to(flat / "cat" / "self.png")
    assert str(flat / "cat" / "self.png") in refusal(flat)


NOBODY = 65534


@pytest.fixture
def without_rights(flat, monkeypatch):
    """A function: the error for a copy of the folder in which a file or folder may not be read by the user (not root)."""
    loaded(flat)  # imports all modules, which the other user may not be able to read
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    monkeypatch.setenv("CNNBENCH_DATA", str(place / "decoded"))
    (place / "decoded").mkdir()
    (place / "decoded").chmod(0o777)

    def error_for(name: str) -> str:
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

    yield error_for
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
