"""What a tested net is like, as pictures for TensorBoard.

Drawn by hand: matplotlib would take as long as all the rest of a small run. Where it can be they are no wider than what
TensorBoard shows at their own size, some 340 pixels: it scales larger ones down pixel by pixel, and no text survives that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from cnnbench.data.datamodule import ImageData
from cnnbench.data.image_files import drawable
from cnnbench.training.classifier import Classifier
from cnnbench.training.misclassified import mistaken, stored

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

PAPER, INK, WRONG = (255, 255, 255), (30, 30, 30), (190, 75, 0)
DARKEST = (0, 68, 120)  # of the confusion matrix
COUNTED = 20  # so many classes have their counts written into the cells
TITLED = 270  # pixels that its title takes
SHOWN, ACROSS = 24, 4  # mistakes, and how many of them in a row
MOST = 64  # filters, and channels of a filter


def figures(classifier: Classifier, data: ImageData) -> dict[str, Image.Image]:
    """What there is to be shown after the test, by tags; no mistakes, no picture of them."""
    assert classifier.outputs is not None
    logits, targets = classifier.outputs
    shown = {"test/confusion_matrix": confusion_matrix(classifier.scores["confusion"], data.classes)}
    confidence, said = logits.softmax(1).max(1)
    wrong = mistaken(logits, targets)
    wrong = wrong[confidence[wrong].argsort(descending=True, stable=True)[:SHOWN]]
    if len(wrong):
        right, wrongly = ([data.classes[label] for label in labels[wrong].tolist()] for labels in (targets, said))
        pictures = stored(data.images["test"], wrong)
        shown["test/mistakes"] = mistakes(pictures, right, wrongly, confidence[wrong].tolist())
    first = first_filters(classifier.net)
    if first is not None:
        shown[f"filters/{first[0]}"] = filters(first[1])
    return shown


def confusion_matrix(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Image.Image:
    """Rows: what an image is; columns: what the net said; the darker a cell, the more of its row. Counts for up to 20 classes."""
    table = np.asarray(counts)
    n, few = len(table), len(table) <= COUNTED
    cell = max(32, 8 * len(str(table.max())) + 4) if few else max(1, 1000 // n)
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    colours = np.array(PAPER) + np.sqrt(share)[..., None] * (np.array(DARKEST) - PAPER)
    body = Image.fromarray(colours.astype(np.uint8)).resize((n * cell, n * cell), Image.Resampling.NEAREST)
    if few:
        draw, font = ImageDraw.Draw(body), _font(11)
        for row, column in zip(*table.nonzero(), strict=True):
            middle = (column * cell + cell / 2, row * cell + cell / 2)
            ink = PAPER if share[row, column] > 0.25 else INK
            draw.text(middle, str(table[row, column]), ink, font, anchor="mm")
    beside = _labels(names, cell)
    title = 26
    whole = Image.new(
        "RGB", (max(TITLED, beside.width + body.width + 8), title + beside.width + body.height + 8), PAPER
    )
    whole.paste(body, (beside.width, title + beside.width))
    whole.paste(beside, (0, title + beside.width))
    whole.paste(_labels(names, cell, anchor="lm").transpose(Image.Transpose.ROTATE_90), (beside.width, title))
    ImageDraw.Draw(whole).text((6, 6), "row: what it is, column: what the net said", INK, _font(11))
    ImageDraw.Draw(whole).rectangle(
        (beside.width - 1, title + beside.width - 1, beside.width + body.width, title + beside.width + body.height),
        outline=(190, 190, 190),
    )
    return whole


def mistakes(
    pictures: np.ndarray, right: Sequence[str], said: Sequence[str], confidence: Sequence[float]
) -> Image.Image:
    """A grid of (K, H, W, C) pictures; below each what it is, and, in red, what the net said and how sure it was."""
    width, side = 86, 64
    height = side + 48
    grid = Image.new("RGB", (width * ACROSS, height * math.ceil(len(pictures) / ACROSS)), PAPER)
    draw, font = ImageDraw.Draw(grid), _font(10)
    for at, picture in enumerate(pictures):
        left, top = width * (at % ACROSS), height * (at // ACROSS)
        times = max(1, side // len(picture))
        shown = _picture(picture.repeat(times, 0).repeat(times, 1))
        grid.paste(shown, (left + (width - shown.width) // 2, top + 4 + (side - shown.height) // 2))
        lines = [(f"is {right[at]}", INK), (f"said {said[at]}", WRONG), (f"{100 * confidence[at]:.0f} %", WRONG)]
        for line, (text, colour) in enumerate(lines):
            draw.text((left + width / 2, top + side + 11 + 12 * line), _short(text, 14), colour, font, anchor="mm")
    return grid


def first_filters(net: nn.Module) -> tuple[str, Tensor] | None:
    """Name and kernels (K, C, F, F) of the first layer that learns, if it is a convolution."""
    name, kernels = next(((name, p.detach()) for name, p in net.named_parameters() if p.ndim > 1), ("", None))
    return (name, kernels) if kernels is not None and kernels.ndim == 4 else None


def filters(kernels: Tensor) -> Image.Image:
    """Kernels (K, C, F, F) as pictures where they have 1 or 3 channels, else a row of grey ones for each; grey is 0."""
    values = kernels[:MOST].float().cpu()
    across = math.ceil(math.sqrt(len(values)))
    if values.shape[1] not in (1, 3):
        values = values[:, :MOST]
        across = values.shape[1]
        values = values.flatten(0, 1)[:, None]
    reach = values.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    pictures = ((values / reach + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    times = max(1, 48 // max(pictures.shape[1:3]))
    pictures = pictures.repeat(times, 1).repeat(times, 2)
    height, width = (side + 4 for side in pictures.shape[1:3])
    grid = Image.new("RGB", (width * across + 4, height * math.ceil(len(pictures) / across) + 4), PAPER)
    for at, picture in enumerate(pictures):
        grid.paste(_picture(picture), (4 + width * (at % across), 4 + height * (at // across)))
    return grid


def _labels(names: Sequence[str], cell: int, anchor: Any = "rm") -> Image.Image:
    """A strip with a name for each row of cells; without them where the cells are too low."""
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


def _picture(pixels: np.ndarray) -> Image.Image:
    """(H, W, C); of other numbers of channels than 1 and 3 the first."""
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])


def _short(name: str, most: int) -> str:
    """A name in one line."""
    text = " ".join(drawable(name).split())
    return text if len(text) <= most else text[: most - 1] + "…"


@cache
def _font(size: int) -> FreeTypeFont:
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont("DejaVu Sans"), size)
