"""Picture files of any kind become square grey or RGB images, and the input of a net."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnbench.data.image_files import read_image, short_side
from cnnbench.errors import ConfigError
from cnnbench.runs.preprocess import to_input
from hostile import ODD_FILES, replace_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder for pictures that the examples of a test share."""
    return tmp_path_factory.mktemp("pictures")


# ---- reading pictures ---------------------------------------------------------------------------------------------


@st.composite
def framed(draw):
    """A picture of one mode with a frame of one colour around random pixels."""
    mode = draw(st.sampled_from(["1", "L", "P", "RGB", "RGBA", "I;16"]))
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    frame = draw(st.integers(0, 255))
    pixels = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (height, width), dtype=np.uint8)
    pixels[[0, -1]] = pixels[:, [0, -1]] = frame
    if mode == "1":
        return Image.fromarray(np.where(pixels > 127, 255, 0).astype(np.uint8)).convert("1")
    if mode == "I;16":
        return Image.fromarray(pixels.astype(np.uint16) * 257)
    return Image.fromarray(pixels).convert(mode)


@settings(deadline=None, max_examples=150)
@given(image=framed(), channels=st.sampled_from([1, 3]), invert=st.booleans())
def test_every_picture_becomes_a_square_padded_with_its_border_colour(folder, image, channels, invert):
    image.save(folder / "x.png")
    result = read_image(folder / "x.png", channels, invert)
    side = max(image.size)
    assert (result.mode, result.size) == ({1: "L", 3: "RGB"}[channels], (side, side))
    grey = np.asarray(image).astype(int) // 257 if image.mode == "I;16" else np.asarray(image.convert("L")).astype(int)
    grey = 255 - grey if invert else grey
    pixels = np.asarray(result).astype(int).reshape(side, side, channels)
    gaps = side - image.height, side - image.width
    wanted = []
    for top, left in {(gaps[0] // 2, gaps[1] // 2), (-(-gaps[0] // 2), -(-gaps[1] // 2))}:
        whole = np.full((side, side), grey[0, 0])
        whole[top : top + image.height, left : left + image.width] = grey
        wanted.append(whole)
    assert any((np.abs(pixels - whole[:, :, None]) <= 1).all() for whole in wanted)


SHOWN = {  # EXIF 2.3, table 6: position of the stored rows and columns in the displayed picture
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", SHOWN)
def test_a_picture_is_rotated_by_its_exif_orientation(orientation, tmp_path):
    stored = np.arange(144, dtype=np.uint8).reshape(12, 12)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "x.png", 1), SHOWN[orientation](stored))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(tmp_path, mode, channels):
    image = Image.new(mode, (6, 6), 0)
    image.save(tmp_path / "x.png", **({"transparency": 0} if mode == "P" else {}))
    assert np.unique(read_image(tmp_path / "x.png", channels)).tolist() == [255]


def test_half_transparent_pixels_become_half_white(tmp_path):
    Image.new("RGBA", (6, 6), (200, 100, 0, 51)).save(tmp_path / "x.png")  # a fifth of the colour
    assert read_image(tmp_path / "x.png", 3).getpixel((3, 3)) == (244, 224, 204)


def test_colour_keeps_its_channels_in_order_and_becomes_luma_in_grey(tmp_path):
    Image.new("RGB", (4, 4), (200, 100, 50)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", 3).getpixel((0, 0)) == (200, 100, 50)
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50  # ITU-R 601
    assert read_image(tmp_path / "x.png", 1).getpixel((0, 0)) == pytest.approx(luma, abs=1)


def test_a_palette_is_read_as_its_colours(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 220, 30])
    image.save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", 3).getpixel((0, 0)) == (10, 220, 30)


def test_sixteen_bits_are_scaled_to_eight_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert np.abs(np.asarray(read_image(tmp_path / "x.png", 1), dtype=float) - values / 257).max() <= 1


def test_one_bit_becomes_black_and_white(tmp_path):
    bits = np.eye(9, dtype=np.uint8) * 255
    Image.fromarray(bits).convert("1").save(tmp_path / "x.png")
    assert np.array_equal(read_image(tmp_path / "x.png", 1), bits)


def test_a_cmyk_photograph_is_read(tmp_path):
    Image.new("CMYK", (8, 4), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=95)
    red, green, blue = read_image(tmp_path / "x.jpg", 3).getpixel((4, 4))
    assert red > 200
    assert max(green, blue) < 60


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("L", (5, 5), grey) for grey in (40, 200)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "x.gif", 1).getpixel((2, 2)) == 40


def test_the_padding_has_the_mean_colour_of_the_border(tmp_path):
    pixels = np.full((6, 10), 255, np.uint8)  # the inside is not used
    pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1] = 20, 60, 200, 240
    pixels[[0, 0, -1, -1], [0, -1, 0, -1]] = (8 * 20 + 8 * 60 + 4 * 200 + 4 * 240) / 24  # the others' mean
    Image.fromarray(pixels).save(tmp_path / "x.png")
    padded = np.asarray(read_image(tmp_path / "x.png", 1))
    assert np.unique(padded[[0, 1, -2, -1]]).tolist() == [100]


def test_a_net_of_two_channels_is_refused_for_pictures(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    with pytest.raises(ConfigError, match="this net takes images of 2 channels, which no picture file has"):
        read_image(tmp_path / "x.png", 2)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@settings(deadline=None, max_examples=100)
@given(data=st.data(), suffix=st.sampled_from(["png", "jpg", "gif", "bmp", "webp", "tiff"]))
def test_a_truncated_picture_is_read_completely_or_refused(folder, data, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    whole, cut = folder / f"whole.{suffix}", folder / f"cut.{suffix}"
    Image.fromarray(pixels).save(whole)
    content = whole.read_bytes()
    cut.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    try:
        read, refusal = read_image(cut, 1), None
    except ConfigError as error:
        refusal = str(error)
    if refusal is None:
        assert np.array_equal(read, read_image(whole, 1))
    else:
        assert refusal.startswith(f"{cut}: ")
        assert "\n" not in refusal


def test_a_very_long_picture_is_shrunk_before_it_is_made_square(tmp_path):
    Image.new("L", (30_000, 3), 40).save(tmp_path / "long.png")
    assert read_image(tmp_path / "long.png", 1).size == (4096, 4096)


def test_dark_sixteen_bit_grey_stays_dark(tmp_path):
    Image.fromarray(np.full((8, 8), 200, dtype=np.uint16)).save(tmp_path / "dark.png")
    assert read_image(tmp_path / "dark.png", 1).getextrema() == (0, 0)


# ---- input of the net ---------------------------------------------------------------------------------------------


def facts_of(channels: int, side: int, mean: list[float], std: list[float]) -> dict:
    return {"channels": channels, "image_size": side, "mean": mean, "std": std}


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_a_picture_is_scaled_as_pil_scales_it(size, side, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    image = Image.fromarray(pixels)
    fed = to_input(image, facts_of(1, side, [0.0], [1 / 255]))
    theirs = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), dtype=float)
    assert fed.shape == (1, side, side)
    assert np.abs(fed[0].numpy() - theirs).max() <= 2.001  # each rounds to whole levels twice


def test_each_channel_is_normalised_by_its_own_mean_and_deviation():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
    fed = to_input(image, facts_of(3, 8, mean, std))
    by_hand = (np.asarray(image) / 255 - mean) / std
    assert np.allclose(fed.permute(1, 2, 0).numpy(), by_hand, atol=1e-5)


# ---- pictures of a stranger ---------------------------------------------------------------------------------------


def png(*chunks: tuple[bytes, bytes], width: int = 8, height: int = 8, rows: bytes = b"\0" * 80) -> bytes:
    """A PNG of grey pixels with further chunks before its rows."""
    head = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    every = (head, *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in every
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch ran) (w) file\n%%EOF\n"
HOSTILE = {
    "PostScript": EPS,
    "PDF": b"%PDF-1.4\n%%EOF",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>',
    "a web page": b"<html>",
    "MPEG": b"\0\0\1\xb3" + b"\0" * 40,
    "FITS": b"SIMPLE  = T" + b" " * 5000,
    "PSD": b"8BPS\0\1" + b"\0" * 60,
    "nothing": b"",
    "half a PNG": png()[:40],
    "a PNG without pixels": png(width=0, height=0),
    "a PNG of too many pixels": png(width=60_000, height=60_000),
    "a PNG of 2**31 pixels a side": png(width=2**31 - 1, height=2**31 - 1),
    "a PNG with a bomb as text": png((b"zTXt", b"k\0\0" + zlib.compress(b"x" * 50_000_000))),
    "a PNG with a bomb as colour profile": png((b"iCCP", b"k\0\0" + zlib.compress(b"x" * 50_000_000))),
    "a GIF": b"GIF89a" + b"\xff" * 10 + b"\0" * 100,
    "a BMP": b"BM" + b"\xff" * 60,
    "an ICO": b"\0\0\1\0\xff\xff" + b"\0" * 60,
    "a TIFF": b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 200,
    "a TGA": b"\0" * 18,
    "a WebP": b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\0" * 30,
    "a JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\xff" * 60,
    "a PPM of too many pixels": b"P6 99999 99999 255\n",
    "a PPM of 5,000 digits": b"P6 " + b"9" * 5000 + b" 1 255\n",
    "a PPM with a long comment": b"P6 #" + b"x" * 300_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_picture_of_a_stranger_is_refused_in_one_line(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(HOSTILE[kind])
    with pytest.raises(ConfigError) as raised:
        read_image(Path("a.png"), 3)
    assert "\n" not in str(raised.value)
    assert short_side(Path("a.png")) is None or "PNG" in kind or "PPM" in kind
    assert os.listdir() == ["a.png"]


@pytest.mark.parametrize("kind", [kind for kind in ODD_FILES if kind != "half of the file"])
def test_an_odd_file_is_no_picture(tmp_path, kind):
    replace_file(tmp_path / "a.png", kind)
    with pytest.raises(ConfigError):
        read_image(tmp_path / "a.png", 3)


def test_a_picture_with_many_texts_is_read(tmp_path):
    (tmp_path / "a.png").write_bytes(png(*[(b"tEXt", b"k\0v")] * 20_000))
    assert read_image(tmp_path / "a.png", 1).size == (8, 8)
