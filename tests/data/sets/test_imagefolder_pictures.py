"""Pictures of all kinds of files, and pictures that cannot be read."""

from __future__ import annotations

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from cnnbench.data.image_files import make_square, read_image
from cnnbench.data.sets.imagefolder import ImageFolder
from datafiles import equal, ready
from picturefolders import (  # noqa: F401
    FITS,
    NET,
    an_hour_old,
    command,
    flat,
    folders,
    loaded,
    nothing_decoded_yet,
    picture,
    refusal,
    row_of,
    smooth,
    solid,
    split,
)


def deep(value: int) -> Image.Image:
    """A 16-bit grey picture of one value."""
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


# name: (function that writes it, its colour)
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
    """A class `odd` with one picture of each kind, and a class `usual` with as many ordinary ones."""
    top = tmp_path_factory.mktemp("kinds")
    (top / "odd").mkdir()
    for write, _ in KINDS.values():
        write(top / "odd")
    return folders(top, {"usual": len(KINDS)})


@pytest.fixture(scope="module")
def decoded_kinds(kinds) -> dict[str, ImageFolder]:
    """The set of all kinds, decoded, for each `fit`."""
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


def test_all_pictures_are_read(decoded_kinds):
    assert sum(map(len, decoded_kinds["crop"].images.values())) == 2 * len(KINDS)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_rotated_by_its_exif_orientation(flat, orientation):
    upright = smooth(12, 12)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition whose inverse EXIF asks for
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    image, exif = with_exif(orientation, stored)
    image.save(flat / "cat" / "turned.png", exif=exif)
    np.testing.assert_array_equal(row_of(loaded(flat), "cat/turned.png"), np.asarray(upright))


@pytest.mark.parametrize("fit", FITS)
def test_a_rotated_picture_is_made_square_after_rotation(tmp_path, fit):
    seen = smooth(20, 10)
    image, exif = with_exif(6, seen.transpose(Image.Transpose.ROTATE_90))
    image.save(tmp_path / "turned.png", exif=exif)
    assert image.size == (10, 20)
    np.testing.assert_array_equal(
        np.asarray(read_image(tmp_path / "turned.png", 3, fit=fit)), np.asarray(make_square(seen, fit))
    )


def test_one_channel_is_the_grey_of_pil(flat):
    data = loaded(flat, channels=1)
    assert data.shape == (1, 12, 12)
    for name in ("cat/000.png", "dog/007.png"):
        expected = np.asarray(Image.open(flat / name).convert("L"))
        np.testing.assert_array_equal(row_of(data, name)[..., 0], expected)


def test_grey_and_colour_of_one_folder_are_decoded_separately(flat):
    colour, grey, again = loaded(flat), loaded(flat, channels=1), loaded(flat)
    assert grey.images["train"].pixels.shape[1] == 1
    assert equal(colour.images["train"], again.images["train"])


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
def test_a_file_that_is_not_a_picture_is_named(flat, name, place):
    (flat / place).mkdir(exist_ok=True)
    (flat / place / name).write_bytes(BROKEN[name])
    message = refusal(flat)
    assert message.startswith(f"{flat / place / name}: ")
    assert message.endswith("; replace or remove it")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("kind", "left"),
    [("jpg", 0.3), ("jpg", 0.9), ("png", 0.9), ("tif", 0.6), ("webp", 0.9), ("gif", 0.6), ("jp2", 0.3)],
)
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


def test_ten_broken_pictures_are_named_and_the_rest_counted(tmp_path):
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
    """Records which pictures are decoded."""

    decoded: list[str]

    def _decode(self, path, side):
        self.decoded.append(path.name)
        return super()._decode(path, side)


@pytest.fixture
def counting(monkeypatch) -> type[Counting]:
    monkeypatch.setattr(Counting, "decoded", [], raising=False)
    return Counting


def test_every_picture_is_decoded_once_and_test_pictures_are_checked_before(flat, counting):
    an_hour_old(flat)
    ready(counting(root=flat))
    assert len(counting.decoded) == 20 + 4
    ready(counting(root=flat))
    assert len(counting.decoded) == 20 + 4


def test_pictures_outside_all_splits_are_not_decoded(flat, counting):
    ready(counting(root=flat, train_size=4, val_size=2, test_size=2))
    assert len(counting.decoded) == 8 + 4  # the four test pictures are checked before


def test_reading_in_threads_does_not_change_the_warning_filters(flat):
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
