"""`python -m cnnbench ops`: the books' worked examples, LeNet-5 by hand beside PyTorch's, and edges found in a picture."""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.cli.parser import Parser
from cnnbench.data.image_files import read_picture
from cnnbench.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

LAPLACIAN = [[-1.0, -1.0, -1.0], [-1.0, 8.0, -1.0], [-1.0, -1.0, -1.0]]
SIDE = 256  # pixels that the longer side of a picture is shrunk to


def main(arguments: list[str]) -> int:
    """Prints examples and speeds, writes the picture; 1 where an example does not come out as in the book."""
    options = _parse(arguments)
    warnings.simplefilter("ignore")  # what a picture's decoder stumbles on and gets over
    picture = read_grey(options.image or own_picture())
    wrong = print_examples()
    print()
    print_speeds()
    draw_edges(picture, options.out)
    print(f"\nedges by the Laplacian: {options.out}")
    return 1 if wrong else 0


def print_examples() -> int:
    """What the books say beside what comes out here; how many differ."""
    from cnnbench.complexity.textbook_examples import EXAMPLES

    computed = [example.compute() for example in EXAMPLES]
    width = max(len(example.question) for example in EXAMPLES)
    topic, wrong = "", 0
    for example, value in zip(EXAMPLES, computed, strict=True):
        if example.topic != topic:
            topic = example.topic
            print(topic)
        same = value == example.book
        wrong += not same
        verdict = (
            f"{_text(value)}, as in the book" if same else f"{_text(value)}, but the book has {_text(example.book)}"
        )
        print(f"  {example.question:<{width}}  {verdict}")
    return wrong


def print_speeds() -> None:
    """LeNet-5 by hand and by PyTorch's layers: the same weights, the same answers, not the same time."""
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
    torch.set_num_threads(1)  # so small a net gains nothing from more, and loses when others work on the machine
    print("LeNet-5 on one CPU thread, median times")
    print(f"  {'layers':<18}{'1 image':>12}{'64 images':>12}{'64, with gradients':>22}")
    tasks = ((images[:1], False, 50), (images, False, 15), (images, True, 15))
    times = [median_times(list(nets.values()), *task) for task in tasks]
    torch.set_num_threads(threads)
    for index, name in enumerate(nets):
        one, many, trained = (f"{1000 * seconds[index]:.2f} ms" for seconds in times)
        print(f"  {name:<18}{one:>12}{many:>12}{trained:>22}")
    ratios = [f"{by_hand / ours:.1f} ×" for by_hand, ours in times]
    print(f"  {'ratio':<18}{ratios[0]:>12}{ratios[1]:>12}{ratios[2]:>22}")
    print(f"  largest difference of their answers, with the same weights: {(first - second).abs().max().item():.1e}")


def median_times(nets: list[nn.Module], batch: Tensor, gradients: bool, rounds: int, warm_up: int = 5) -> list[float]:
    """Seconds that each net takes for a batch, in turns: the median of `rounds`, after some that do not count."""
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


def edges(picture: Image.Image) -> Tensor:
    """(H, W) of a grey picture: the 3×3 Laplacian, 8 in the middle and -1 around, by the hand-written convolution."""
    import numpy as np
    import torch

    from cnnbench.ops.convolution import convolve

    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32).copy())
    return convolve(pixels[None], torch.tensor(LAPLACIAN))[0]


def draw_edges(picture: Image.Image, path: Path) -> None:
    """The picture and its edges side by side, to a PNG, PDF or SVG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(picture, cmap="gray", vmin=0, vmax=255)
    left.set_title("input image")
    right.imshow(edges(picture), cmap="gray")
    right.set_title("output feature map")
    for axes in (left, right):
        axes.axis("off")
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--out {path}: cannot be written ({error}); type a name that ends in .png") from error


def own_picture() -> Path:
    """The photograph of Grace Hopper (public domain, US Navy) that comes with matplotlib."""
    from matplotlib import get_data_path

    path = Path(get_data_path()) / "sample_data" / "grace_hopper.jpg"
    if not path.is_file():
        raise ConfigError("this matplotlib comes without its sample pictures; name one of yours with --image")
    return path


def read_grey(path: Path) -> Image.Image:
    """A picture in grey, its longer side at most `SIDE` pixels: edges of more would be too fine to be seen."""
    picture = read_picture(path, "L")
    width, height = picture.size
    picture.thumbnail((SIDE, SIDE))
    if min(picture.size) < 3:
        raise ConfigError(
            f"{path}: {width}×{height} pixels, expected at least 3×3, and at most {SIDE // 3} times as long as wide"
        )
    return picture


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(
        "ops", "The books' worked examples on the hand-written operators, their speed, and edges in a picture."
    )
    parser.add_argument(
        "--image", type=Path, metavar="IMAGE", help="a picture of yours; default: a photograph that comes along"
    )
    parser.add_argument("--out", type=Path, default=Path("edges.png"), metavar="OUT.png", help="default: edges.png")
    options = parser.parse_args(arguments)
    parser.check_picture("--out", options.out)
    return options
