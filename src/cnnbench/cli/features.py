"""`cnnbench features RUN_DIR IMAGE`: draws a layer's feature maps of an image, and the first layer's filters."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.cli.figures import save_figure
from cnnbench.cli.parser import Parser
from cnnbench.data.image_files import read_image
from cnnbench.errors import PROGRAM, ConfigError
from cnnbench.runs.preprocess import to_input
from cnnbench.runs.run_dir import RunDir
from cnnbench.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image
    from torch import Tensor, nn

MOST = 64  # maps and filters that are drawn


def main(arguments: list[str]) -> None:
    """Draws a layer's feature maps of an image next to the image and the filters of the first convolution."""
    parser = Parser(
        "features", "Draws the feature maps of a layer of a trained net for an image, and the first layer's filters."
    )
    parser.add_path("run_dir", "RUN_DIR", "a run directory: config.yaml and checkpoints/best.ckpt")
    parser.add_path("image", "IMAGE", "an image file")
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="a layer from `info`, or a block such as stage2.0; default: the first convolution",
    )
    parser.add_path("--out", "OUT.png", "default: features_NAME.png")
    parser.add_switch("--invert", "invert grey values: for dark digits and a net trained on MNIST")
    parser.add_trust()
    options = parser.parse_args(arguments)
    parser.check_picture("--out", options.out)
    warnings.simplefilter("ignore")  # of image decoders about small defects in a file
    RunDir.open(options.run_dir)
    if not options.image.is_file():
        raise ConfigError(f"{options.image}: no such picture")
    from cnnbench.runs.load_net import load_net

    net, facts = load_net(options.run_dir, options.trust)
    first = first_convolution(net)
    layer = first if options.layer is None else options.layer
    if layer is None:
        raise ConfigError(f"{type(net).__name__} has no convolution; name a layer with --layer")
    picture = read_image(options.image, facts["channels"], options.invert, facts["fit"])
    maps = feature_maps(net, layer, to_input(picture, facts))
    kernels = net.get_parameter(f"{first}.weight").detach() if first else None
    figure = draw_features(picture, maps, layer, kernels, first or "")
    out = options.out or Path(f"features_{layer}.png")
    save_figure(figure, "--out", out, dpi=150)
    shape = "×".join(map(str, maps.shape))
    print(printable(f"{out}: {layer} gives {shape}, from {maps.min().item():.3g} to {maps.max().item():.3g}"))


def first_convolution(net: nn.Module) -> str | None:
    """The name of the first layer with kernels (K, C, F, F); None if the net has none."""
    weights = (name for name, value in net.named_parameters() if name.endswith(".weight") and value.ndim == 4)
    return next((name.removesuffix(".weight") for name in weights), None)


def feature_maps(net: nn.Module, layer: str, image: Tensor) -> Tensor:
    """The output of `layer` for an image (C, H, W): (K, H', W'), or (K) for a layer without maps; float32.

    Raises:
        ConfigError: there is no such layer, it does not run in evaluation, or its output is no tensor.
    """
    import torch

    from cnnbench.models.feature_extraction import extract

    try:
        with torch.no_grad():
            output = extract(net, layer)(image[None])[layer]
    except ValueError as error:
        raise ConfigError(f"--layer: {error}; `{PROGRAM} info` lists the layers that run") from error
    if not isinstance(output, torch.Tensor):
        raise ConfigError(
            f"--layer {layer}: its output is a {type(output).__name__}, not a tensor; name a layer inside of it"
        )
    return output[0].float()


def draw_features(picture: Image.Image, maps: Tensor, layer: str, kernels: Tensor | None, filters_of: str) -> Figure:
    """Draws the image and the filters on the left, the maps on the right; each map from its smallest to its largest value."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.5), layout="constrained")
    sides: Any = figure.subfigures(1, 2, width_ratios=[1, 2.2])
    left, right = sides
    top, bottom = left.subfigures(2, 1)
    axes = top.subplots()
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
    axes.set_title("input image", fontsize=10)
    axes.axis("off")
    if kernels is not None:
        bottom.suptitle(f"filters of {filters_of}, {'×'.join(map(str, kernels.shape))}", fontsize=10, parse_math=False)
        colour = kernels.shape[1] == 3
        _grid(bottom, [_as_picture(kernel) if colour else kernel.mean(0) for kernel in kernels[:MOST]])
    title = f"{printable(layer)}, {'×'.join(map(str, maps.shape))}"
    title += f": the first {MOST}" * (maps.ndim == 3 and len(maps) > MOST)
    right.suptitle(title, fontsize=10, parse_math=False)
    if maps.ndim == 3 and maps.shape[1:].numel() > 1:
        _grid(right, list(maps[:MOST]))
    else:
        axes = right.subplots()
        axes.bar(
            range(maps.numel()), maps.flatten().numpy(), color="#0072B2", width=0.8 if maps.numel() <= MOST else 1.0
        )
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="number", ylabel="value")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _grid(figure: Any, pictures: list[Tensor]) -> None:
    columns = math.ceil(math.sqrt(len(pictures)))
    axes = figure.subplots(math.ceil(len(pictures) / columns), columns, squeeze=False)
    for cell in axes.flat:
        cell.axis("off")
    for cell, picture in zip(axes.flat, pictures, strict=False):
        cell.imshow(picture.numpy(), cmap="gray")


def _as_picture(kernel: Tensor) -> Tensor:
    """A kernel (3, F, F) as colours (F, F, 3) in 0..1; 0 becomes the middle grey."""
    largest = kernel.abs().max().clamp(min=1e-12)
    return (kernel / (2 * largest) + 0.5).permute(1, 2, 0)
