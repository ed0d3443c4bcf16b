"""Images of a tested net for TensorBoard: confusion matrix, misclassified images, filters of the first layer.

They are drawn with Pillow: matplotlib would take as long as all the rest of a small run. Where possible they are no wider than
the 340 pixels or so that TensorBoard shows unscaled: it shrinks larger images without smoothing, which destroys text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from cnnbench.data.datamodule import ImageData
from cnnbench.text import one_line, printable
from cnnbench.training.classifier import Classifier
from cnnbench.training.misclassified import misclassified_indices, stored_pixels

PAPER, INK, WRONG, FRAME = (255, 255, 255), (30, 30, 30), (190, 75, 0), (190, 190, 190)
DARKEST = (0, 68, 120)  # cell of the confusion matrix
MAX_COUNTED = 20  # with more classes the confusion matrix shows no counts
TITLE = "rows: true class, columns: predicted class"
TITLE_WIDTH, TITLE_HEIGHT = 270, 26  # pixels
SHOWN, PER_ROW = 24, 4  # misclassified images
MAX_FILTERS = 64  # filters, and channels of a filter


def result_images(classifier: Classifier, data: ImageData) -> dict[str, Image.Image]:
    """Returns the images after a test by tag; without misclassified images or a first convolution theirs are absent."""
    logits, targets = classifier.outputs
    images = {"test/confusion_matrix": confusion_matrix_image(classifier.scores["confusion"], data.classes)}
    confidence, predictions = logits.softmax(1).max(1)
    wrong = misclassified_indices(logits, targets)
    wrong = wrong[confidence[wrong].argsort(descending=True, stable=True)[:SHOWN]]
    if len(wrong):
        true, predicted = (
            [data.classes[label] for label in labels[wrong].tolist()] for labels in (targets, predictions)
        )
        images["test/mistakes"] = misclassified_grid(
            stored_pixels(data.images["test"], wrong), true, predicted, confidence[wrong].tolist()
        )
    if first := first_layer_kernels(classifier.net):
        images[f"filters/{first[0]}"] = filter_grid(first[1])
    return images


def confusion_matrix_image(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Image.Image:
    """Draws a confusion matrix; a darker cell has a larger share of its row.

    Args:
        counts: counts[true][predicted].
        names: of the classes; up to 20 classes also have their counts in the cells.
    """
    table = np.asarray(counts)
    counted = len(table) <= MAX_COUNTED
    cell = max(32, 8 * len(str(table.max())) + 4) if counted else max(1, 1000 // len(table))
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    colours = np.array(PAPER) + np.sqrt(share)[..., None] * (np.array(DARKEST) - PAPER)
    body = _enlarged(colours.astype(np.uint8), cell)
    rows, columns = _labels(names, cell), _labels(names, cell, anchor="lm").transpose(Image.Transpose.ROTATE_90)
    left, top = rows.width, TITLE_HEIGHT + columns.height
    image = Image.new("RGB", (max(TITLE_WIDTH, left + body.width + 8), top + body.height + 8), PAPER)
    for part, place in ((body, (left, top)), (rows, (0, top)), (columns, (left, TITLE_HEIGHT))):
        image.paste(part, place)
    draw, font = ImageDraw.Draw(image), _font(11)
    draw.text((6, 6), TITLE, INK, font)
    draw.rectangle((left - 1, top - 1, left + body.width, top + body.height), outline=FRAME)
    if counted:
        for row, column in zip(*table.nonzero(), strict=True):
            middle = (left + (column + 0.5) * cell, top + (row + 0.5) * cell)
            ink = PAPER if share[row, column] > 0.25 else INK
            draw.text(middle, str(table[row, column]), ink, font, anchor="mm")
    return image


def misclassified_grid(
    pixels: np.ndarray, true: Sequence[str], predicted: Sequence[str], confidence: Sequence[float]
) -> Image.Image:
    """Draws a grid of images (K, H, W, C) uint8; below each its true class and, in red, its predicted class and probability."""
    width, side, tiles = 86, 64, []
    for image, right, wrong, probability in zip(pixels, true, predicted, confidence, strict=True):
        tile = Image.new("RGB", (width, side + 48), PAPER)
        shown = _enlarged(image, max(1, side // len(image)))
        tile.paste(shown, ((width - shown.width) // 2, 4 + (side - shown.height) // 2))
        lines = ((f"true {right}", INK), (f"pred. {wrong}", WRONG), (f"{100 * probability:.0f} %", WRONG))
        for line, (text, colour) in enumerate(lines):
            ImageDraw.Draw(tile).text(
                (width / 2, side + 11 + 12 * line), _short(text, 14), colour, _font(10), anchor="mm"
            )
        tiles.append(tile)
    return _grid(tiles, PER_ROW)


def first_layer_kernels(net: nn.Module) -> tuple[str, Tensor] | None:
    """Returns name and kernels (K, C, F, F) of the first weight of more than one dimension, if it is a convolution's."""
    for name, weight in net.named_parameters():
        if weight.ndim > 1:
            return (name, weight.detach()) if weight.ndim == 4 else None
    return None


def filter_grid(kernels: Tensor) -> Image.Image:
    """Draws kernels (K, C, F, F): with 1 or 3 channels as one image each, else as a row of C grey images; grey is 0."""
    values = kernels[:MAX_FILTERS, :MAX_FILTERS].float().cpu()
    per_row = math.ceil(math.sqrt(len(values)))
    if values.shape[1] not in (1, 3):
        values, per_row = values.flatten(0, 1)[:, None], values.shape[1]
    largest = values.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    images = ((values / largest + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    scale = max(1, 48 // max(images.shape[1:3]))
    return _grid([_enlarged(image, scale) for image in images], per_row, gap=4)


def _grid(tiles: Sequence[Image.Image], per_row: int, gap: int = 0) -> Image.Image:
    """Places tiles of equal size in rows, `gap` pixels apart."""
    width, height = (side + gap for side in tiles[0].size)
    grid = Image.new("RGB", (width * per_row + gap, height * math.ceil(len(tiles) / per_row) + gap), PAPER)
    for at, tile in enumerate(tiles):
        grid.paste(tile, (gap + width * (at % per_row), gap + height * (at // per_row)))
    return grid


def _labels(names: Sequence[str], cell: int, anchor: Any = "rm") -> Image.Image:
    """Draws a strip with a name for each row of cells; no names if the cells are lower than 8 pixels."""
    size = min(12, cell)
    if size < 8:
        return Image.new("RGB", (8, cell * len(names)), PAPER)
    font, texts = _font(size), [_short(name, 18) for name in names]
    width = 12 + math.ceil(max(font.getlength(text) for text in texts))
    strip = Image.new("RGB", (width, cell * len(names)), PAPER)
    draw = ImageDraw.Draw(strip)
    for row, text in enumerate(texts):
        draw.text((width - 6 if anchor == "rm" else 6, (row + 0.5) * cell), text, INK, font, anchor=anchor)
    return strip


def _enlarged(pixels: np.ndarray, scale: int) -> Image.Image:
    """Converts (H, W, C) uint8, each pixel to a square of `scale` pixels a side; with other than 3 channels the first one."""
    pixels = pixels.repeat(scale, 0).repeat(scale, 1)
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])


def _short(name: str, longest: int) -> str:
    """Returns a name in one line of at most `longest` characters."""
    text = printable(one_line(name))
    return text if len(text) <= longest else text[: longest - 1] + "…"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont("DejaVu Sans"), size)
