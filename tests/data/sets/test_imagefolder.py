"""Image folders: sizes, shapes, mean and deviation, fingerprints, keys."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnbench.config.compose import compose
from cnnbench.data.image_files import read_image, short_side
from cnnbench.data.sets.imagefolder import ImageFolder
from cnnbench.errors import ConfigError
from cnnbench.training.factories import build_data
from cnnbench.training.validate import prepare
from picturefolders import (  # noqa: F401
    FITS,
    NET,
    built,
    command,
    flat,
    folders,
    loaded,
    names,
    nothing_decoded_yet,
    picture,
    row_of,
    smooth,
    solid,
    split,
)


def test_an_auto_image_size_is_the_most_common_shorter_side(tmp_path):
    top = folders(tmp_path / "x", {"train/a": 5, "test/a": 5}, 30, 20)
    folders(top, {"train/b": 3}, 16, 40)
    folders(top, {"test/b": 9}, 50, 50)
    data = built(top)
    assert (data.native, data.image_size, data.shape) == (20, 20, (3, 20, 20))


def test_of_two_equally_common_sizes_the_larger_is_taken(tmp_path):
    top = folders(tmp_path / "x", {"train/a": 4, "test/a": 1}, 10, 10)
    folders(top, {"train/b": 4, "test/b": 1}, 14, 14)
    assert built(top).image_size == 14


@pytest.mark.parametrize(("side", "wanted"), [(223, 223), (224, 224), (225, 224), (300, 224)])
def test_an_auto_image_size_is_at_most_224(tmp_path, side, wanted):
    data = built(folders(tmp_path / "x", {"a": 2, "b": 2}, side + 10, side))
    assert (data.native, data.image_size) == (side, wanted)


def test_an_auto_size_is_adjusted_to_the_net(flat):
    assert prepare(compose([*NET, "model=lenet5", f"data.root={flat}"])).config.data.image_size == 32


def test_broken_pictures_do_not_influence_the_size(flat):
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


def test_crop_keeps_the_middle(tmp_path):
    picture("x", 21, 10).save(tmp_path / "x.png")
    found = np.asarray(read_image(tmp_path / "x.png", 3, fit="crop"))
    np.testing.assert_array_equal(found, np.asarray(picture("x", 21, 10))[:, 5:15])


def test_pad_surrounds_the_picture_with_its_borders_mean_colour(tmp_path):
    image = picture("x", 20, 10)
    image.save(tmp_path / "x.png")
    found, pixels = np.asarray(read_image(tmp_path / "x.png", 3, fit="pad")), np.asarray(image)
    np.testing.assert_array_equal(found[5:15], pixels)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(float)
    assert np.abs(found[[0, 4, 15, 19]] - border.mean(0)).max() <= 0.5


def test_stretch_keeps_the_whole_picture_and_distorts_it(tmp_path):
    smooth(40, 20).save(tmp_path / "x.png")
    found = np.asarray(read_image(tmp_path / "x.png", 3, fit="stretch")).astype(int)
    assert np.abs(found - np.asarray(smooth(40, 40)).astype(int)).max() <= 6


def by_pil(path: Path, fit: str, side: int) -> np.ndarray:
    """(side, side, 3): a 24 × 16 picture, made square and scaled by PIL directly."""
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


@pytest.mark.parametrize(("fit", "side"), [("crop", 16), ("crop", 9), ("crop", 40), ("pad", 24), ("pad", 9)])
def test_pictures_are_decoded_and_scaled_as_by_pil(tmp_path, fit, side):
    data = loaded(folders(tmp_path / "x", {"a": 4, "b": 4}, 24, 16), fit=fit, image_size=side)
    for name in ("a/000.png", "a/001.png", "b/003.png"):
        np.testing.assert_array_equal(row_of(data, name), by_pil(data.top / name, fit, side))


@pytest.mark.parametrize("side", [16, 24, 9])
def test_stretched_pictures_are_those_of_pil_to_within_some_grey_levels(tmp_path, side):
    top = folders(tmp_path / "x", {"a": 4, "b": 4}, 24, 16)
    smooth(24, 16).save(top / "a" / "000.png")
    found = row_of(loaded(top, fit="stretch", image_size=side), "a/000.png").astype(int)
    assert np.abs(found - by_pil(top / "a" / "000.png", "stretch", side)).max() <= 6


def test_the_three_fits_of_one_folder_are_decoded_separately(tmp_path):
    top = folders(tmp_path / "x", {"a": 4, "b": 4}, 24, 16)
    rows = {fit: loaded(top, fit=fit).images["train"].pixels for fit in FITS}
    assert not torch.equal(rows["crop"], rows["pad"])
    assert not torch.equal(rows["stretch"], rows["pad"])
    for fit in FITS:
        assert torch.equal(loaded(top, fit=fit).images["train"].pixels, rows[fit])


def numpy_statistics(data: ImageFolder) -> tuple[np.ndarray, np.ndarray]:
    side = data.image_size
    train = [
        Image.open(data.top / name).resize((side, side), Image.Resampling.BILINEAR) for name in names(data, "train")
    ]
    pixels = np.stack([np.asarray(image) for image in train]) / 255
    return pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))


@pytest.mark.parametrize("keys", [{}, {"train_size": 5, "val_size": 3}, {"image_size": 7}, {"split_seed": 3}])
def test_mean_and_deviation_are_numpys_of_the_train_images(flat, keys):
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


def test_a_typed_mean_is_kept_and_the_deviation_measured(flat):
    data = loaded(flat, mean=[0.1, 0.2, 0.3])
    assert data.mean == [0.1, 0.2, 0.3]
    np.testing.assert_allclose(data.std, numpy_statistics(data)[1], atol=1e-12)


def test_pictures_of_one_colour_do_not_cause_a_division_by_zero(tmp_path):
    top = folders(tmp_path / "x", {"a": 0, "b": 0})
    for name in ("a", "b"):
        for number in range(4):
            solid("RGB", (50, 60, 70)).save(top / name / f"{number}.png")
    images, _ = next(iter(loaded(top).train_dataloader()))
    assert torch.isfinite(images).all()


def test_label_noise_does_not_change_mean_and_deviation(flat):
    assert loaded(flat, label_noise=0.5).mean == loaded(flat).mean


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
def test_the_fingerprint_changes_when_a_picture_is_added_or_removed(flat, change):
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


def test_the_fingerprint_does_not_depend_on_other_files(flat):
    before = built(flat).fingerprint
    (flat / "cat" / "notes.txt").write_text("nice cat")
    (flat / ".DS_Store").write_bytes(b"x")
    assert built(flat).fingerprint == before


@pytest.mark.parametrize(
    "keys", [{"channels": 1}, {"fit": "pad"}, {"image_size": 9}, {"split_seed": 4}, {"train_size": 5}]
)
def test_the_fingerprint_does_not_change_with_the_keys(flat, keys):
    assert built(flat, **keys).fingerprint == built(flat).fingerprint


def test_the_fingerprint_does_not_depend_on_test_share(flat):
    assert built(flat, test_share=0.4).fingerprint == built(flat).fingerprint


def test_exchanging_the_names_of_two_pictures_changes_the_fingerprint(flat):
    before = loaded(flat)
    for old, new in (("000", "x"), ("001", "000"), ("x", "001")):
        (flat / "cat" / f"{old}.png").rename(flat / "cat" / f"{new}.png")
    after = loaded(flat)
    assert before.fingerprint != after.fingerprint
    np.testing.assert_array_equal(row_of(after, "cat/000.png"), np.asarray(picture("cat/1")))


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
def test_the_error_shows_a_wrong_value_as_it_is_typed(flat, keys, message):
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
