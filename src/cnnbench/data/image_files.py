"""Reads picture files of any kind as square grey or RGB images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cnnbench.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

# Pillow's decoders of the usual kinds of pictures; others, as that of EPS, start programs
FORMATS = ("JPEG", "JPEG2000", "PNG", "WEBP", "AVIF", "BMP", "DIB", "GIF", "TIFF", "TGA", "PPM", "ICO")
LARGEST_SIDE = 4096  # pixels; a larger picture is shrunk before it is made square

Fit = Literal["pad", "crop", "stretch"]


def read_image(path: Path, channels: int, invert: bool = False, fit: Fit = "pad") -> Image.Image:
    """A picture file of any size and mode as a square image: grey ("L") for 1 channel, "RGB" for 3.

    Args:
        path: of the file.
        channels: 1 or 3.
        invert: makes dark pixels light and light pixels dark.
        fit: how a picture becomes square, see `make_square`.

    Raises:
        ConfigError: the file is absent or cannot be read, or no picture file has so many channels.
    """
    from PIL import ImageOps

    if channels not in (1, 3):
        raise ConfigError(f"{path}: this net takes images of {channels} channels, which no picture file has")
    image = read_picture(path, "L" if channels == 1 else "RGB")
    if invert:
        image = ImageOps.invert(image)
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return make_square(image, fit)


def make_square(image: Image.Image, fit: Fit) -> Image.Image:
    """Adds borders of the border's mean colour (`pad`), keeps the middle (`crop`), or distorts the picture (`stretch`)."""
    from PIL import ImageOps

    short, long = sorted(image.size)
    if short == long:
        return image
    if fit == "pad":
        return ImageOps.pad(image, (long, long), color=border_mean(image))
    if fit == "stretch":
        return image.resize((long, long))
    left, top = (image.width - short) // 2, (image.height - short) // 2
    return image.crop((left, top, left + short, top + short))


def short_side(path: Path) -> int | None:
    """Pixels of a picture's shorter side, from the file's header; None if the header cannot be read."""
    try:
        with _open(path) as file:
            return min(file.size)
    except Exception:  # decoding reports the file
        return None


def read_picture(path: Path, mode: str) -> Image.Image:
    """A picture file in grey ("L") or colour ("RGB"), rotated by its EXIF orientation, transparency blended with white.

    Raises:
        ConfigError: the file is absent or cannot be read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not path.is_file():
        raise ConfigError(f"{path}: no such picture")
    try:
        with _open(path) as file:
            image = ImageOps.exif_transpose(file)
            image.load()
    except UnidentifiedImageError as error:
        raise ConfigError(
            f"{path}: not a picture that can be read; expected PNG, JPEG, WebP, TIFF, BMP, GIF or another usual format"
        ) from error
    except Exception as error:  # decoders raise many kinds of errors for damaged files
        raise ConfigError(f"{path}: damaged, or not a picture ({' '.join(str(error).split())})") from error
    image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")  # Pillow converts RGB to grey, but not every other mode
    return image.convert(mode)


def _open(path: Path) -> Image.Image:
    """Opens a picture file of one of `FORMATS`, as far as this build of Pillow has it."""
    from PIL import Image

    Image.init()
    return Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scales 16-bit and 32-bit grey to 8 bits; `convert` would clip it."""
    if not image.mode.startswith(("I", "F")):
        return image
    import numpy as np
    from PIL import Image

    values = np.asarray(image, dtype=np.float64)
    deep = image.mode.startswith("I;16") or values.max() > 255  # a 32-bit file does not state its range
    largest = 65535.0 if deep else 1.0 if values.max() <= 1 else 255.0
    return Image.fromarray((values * (255 / largest)).clip(0, 255).astype(np.uint8))


def border_mean(image: Image.Image) -> tuple[int, ...] | int:
    """The mean of the outermost pixels: one value per channel, or one for grey; 0..255."""
    import numpy as np

    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    mean = border.mean(axis=0).round().astype(int).tolist()
    return tuple(mean) if isinstance(mean, list) else mean
