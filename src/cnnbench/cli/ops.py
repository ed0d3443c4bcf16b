"""`cnnbench ops`: worked examples of the textbooks, LeNet-5 by hand against PyTorch's, and the edges of an image."""

from __future__ import annotations

import statistics
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.cli.figures import save_figure
from cnnbench.cli.parser import Parser
from cnnbench.data.image_files import read_picture
from cnnbench.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

LAPLACIAN = [[-1.0, -1.0, -1.0], [-1.0, 8.0, -1.0], [-1.0, -1.0, -1.0]]
SIDE = 256  # pixels; a longer side of an image is reduced to this


def main(arguments: list[str]) -> int:
    """Prints examples and speeds and draws the edges; returns 1 if an example differs from the book, else 0."""
    parser = Parser(
        "ops", "Worked examples of the textbooks on hand-written operators, their speed, and edges of an image."
    )
    parser.add_path("--image", "IMAGE", "an image file; default: a sample photograph")
    parser.add_path("--out", "OUT.png", "default: edges.png", default=Path("edges.png"))
    options = parser.parse_args(arguments)
    parser.check_picture("--out", options.out)
    warnings.simplefilter("ignore")  # of image decoders about small defects in a file
    image = read_grey_image(options.image or sample_picture())
    wrong = print_examples()
    print()
    print_speeds()
    draw_edges(image, options.out)
    print(f"\nedges by the Laplacian: {options.out}")
    return 1 if wrong else 0


def print_examples() -> int:
    """Prints each example with its computed value; returns how many values differ from the book."""
    from cnnbench.complexity.textbook_examples import worked_examples

    topics, wrong = worked_examples(), 0
    width = max(len(question) for examples in topics.values() for question, *_ in examples)
    for topic, examples in topics.items():
        print(topic)
        for question, book, value in examples:
            wrong += value != book
            verdict = "as in the book" if value == book else f"but the book has {_format(book)}"
            print(f"  {question:<{width}}  {_format(value)}, {verdict}")
    return wrong


def print_speeds() -> None:
    """Prints the times of LeNet-5 by hand and with PyTorch's layers, which have the same weights, and how their outputs differ."""
    import torch

    from cnnbench.models.lenet5 import LeNet5
    from cnnbench.models.weights import copy_weights
    from cnnbench.ops.lenet5 import LeNet5ByHand

    torch.manual_seed(0)
    nets: dict[str, nn.Module] = {
        "by hand": LeNet5ByHand(in_channels=1, num_classes=10),
        "PyTorch's layers": LeNet5(in_channels=1, num_classes=10),
    }
    copy_weights(*nets.values())
    images = torch.randn(64, 1, 32, 32)
    with torch.no_grad():
        first, second = (net(images) for net in nets.values())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a small net gains nothing from more threads, and other programs disturb it more
    print("LeNet-5 on one CPU thread, median times")
    tasks = ((images[:1], False, 50), (images, False, 15), (images, True, 15))
    times = [median_times(list(nets.values()), *task) for task in tasks]
    torch.set_num_threads(threads)
    print(f"  {'layers':<18}{'1 image':>12}{'64 images':>12}{'64, with gradients':>22}")
    rows = {name: [f"{1000 * seconds[index]:.2f} ms" for seconds in times] for index, name in enumerate(nets)}
    rows["ratio"] = [f"{by_hand / pytorch:.1f} ×" for by_hand, pytorch in times]
    for name, (one, many, trained) in rows.items():
        print(f"  {name:<18}{one:>12}{many:>12}{trained:>22}")
    print(f"  largest difference of the logits, with the same weights: {(first - second).abs().max().item():.1e}")


def median_times(nets: list[nn.Module], batch: Tensor, gradients: bool, rounds: int, warm_up: int = 5) -> list[float]:
    """Seconds that each net takes for a batch: the median of `rounds`, after `warm_up` uncounted ones; the nets alternate."""
    import torch

    times: list[list[float]] = [[] for _ in nets]
    for _ in range(warm_up + rounds):
        for net, seconds in zip(nets, times, strict=True):
            begin = time.perf_counter()
            with torch.set_grad_enabled(gradients):
                output = net(batch)
            if gradients:
                output.sum().backward()
            seconds.append(time.perf_counter() - begin)
    return [statistics.median(seconds[warm_up:]) for seconds in times]


def laplacian_edges(image: Image.Image) -> Tensor:
    """Convolves a grey image with the 3×3 Laplacian, 8 in the middle and -1 around it, by hand: (H - 2, W - 2)."""
    import numpy as np
    import torch

    from cnnbench.ops.convolution import convolve

    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32).copy())
    return convolve(pixels[None], torch.tensor(LAPLACIAN))[0]


def draw_edges(image: Image.Image, path: Path) -> None:
    """Draws the image and its edges side by side, to a PNG, PDF, SVG or JPEG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(image, cmap="gray", vmin=0, vmax=255)
    left.set_title("input image")
    right.imshow(laplacian_edges(image), cmap="gray")
    right.set_title("output feature map")
    for axes in (left, right):
        axes.axis("off")
    save_figure(figure, "--out", path)


def sample_picture() -> Path:
    """Path of the photograph of Grace Hopper (public domain, US Navy) that matplotlib installs."""
    from matplotlib import get_data_path

    path = Path(get_data_path()) / "sample_data" / "grace_hopper.jpg"
    if not path.is_file():
        raise ConfigError("this matplotlib has no sample images; name an image file with --image")
    return path


def read_grey_image(path: Path) -> Image.Image:
    """Reads an image in grey, reduced to at most `SIDE` pixels on its longer side: finer edges would not be visible.

    Raises:
        ConfigError: it cannot be read, or has less than 3 pixels on a side after that.
    """
    image = read_picture(path, "L")
    width, height = image.size
    image.thumbnail((SIDE, SIDE))
    if min(image.size) < 3:
        raise ConfigError(
            f"{path}: {width}×{height} pixels, expected at least 3×3, and at most {SIDE // 3} times as long as wide"
        )
    return image


def _format(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_format, value))}]"
    return f"{value:,}" if isinstance(value, int) else str(value)
