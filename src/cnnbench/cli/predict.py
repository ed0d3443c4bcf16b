"""`cnnbench predict RUN_DIR IMAGE ...`: a trained net's predictions for image files."""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.cli.figures import save_figure
from cnnbench.cli.parser import Parser
from cnnbench.data.image_files import border_mean, read_image
from cnnbench.errors import ConfigError
from cnnbench.runs.preprocess import to_input
from cnnbench.runs.run_dir import RunDir
from cnnbench.text import Values, printable

if TYPE_CHECKING:
    from PIL import Image


def main(arguments: list[str]) -> None:
    """Prints the most probable classes of each image; draws them with `--show`."""
    parser = Parser("predict", "Prints the most probable classes of images of any size, grey or colour.")
    parser.add_path("run_dir", "RUN_DIR", "a run directory: config.yaml and checkpoints/best.ckpt")
    parser.add_path("images", "IMAGE", "image files", nargs="+")
    parser.add_argument("--top", type=int, default=3, help="how many classes to print; default: 3")
    parser.add_switch("--invert", "invert grey values: for dark digits and a net trained on MNIST")
    parser.add_switch("--json", "print the predictions as JSON")
    parser.add_path("--show", "OUT.png", "draw the images and the predictions")
    parser.add_ema()
    parser.add_trust()
    options = parser.parse_args(arguments)
    parser.check_picture("--show", options.show)
    if options.top < 1:
        parser.error(f"--top {options.top}: expected at least 1")
    warnings.simplefilter("ignore")  # of missing fonts
    RunDir.open(options.run_dir)
    for path in options.images:
        if not path.is_file():
            raise ConfigError(f"{path}: no such picture")
    pictures, predictions = predict(
        options.run_dir, options.images, options.top, options.invert, options.trust, options.ema
    )
    if options.show:
        draw_predictions(pictures, predictions, options.show)
    if options.json:
        print(json.dumps({"schema": 1, "run": str(options.run_dir), "predictions": predictions}, indent=2))
    else:
        _print(predictions, pictures, options)


def predict(
    run_dir: Path, paths: list[Path], top: int, invert: bool, trust: bool, ema: bool
) -> tuple[list[Image.Image], list[Values]]:
    """Predicts the classes of image files with the net of a run.

    Returns:
        the images as the net received them, and for each `{image, top: [{class, index, probability}, ...]}`, with the `top`
        most probable classes, in descending order.
    """
    import torch

    from cnnbench.runs.load_net import load_net

    net, facts = load_net(run_dir, trust, ema)
    pictures = [read_image(path, facts["channels"], invert, facts["fit"]) for path in paths]
    batch = torch.stack([to_input(picture, facts) for picture in pictures])
    with torch.no_grad():
        probabilities = net(batch).softmax(1)
    for path, row in zip(paths, probabilities, strict=True):
        if not row.isfinite().all():
            raise ConfigError(f"{run_dir}: its net gives numbers that are infinite or NaN for {path}")
    best = probabilities.topk(min(top, len(facts["classes"])))
    predictions = [
        {
            "image": str(path),
            "top": [
                {"class": facts["classes"][index], "index": index, "probability": probability}
                for probability, index in zip(values, indices, strict=True)
            ],
        }
        for path, values, indices in zip(paths, best.values.tolist(), best.indices.tolist(), strict=True)
    ]
    return pictures, predictions


def draw_predictions(pictures: list[Image.Image], predictions: list[Values], path: Path) -> None:
    """Draws each image next to bars of its most probable classes, to a PNG, PDF, SVG or JPEG file."""
    from matplotlib.figure import Figure

    rows = len(pictures)
    figure = Figure(figsize=(6, 0.4 + 2.0 * rows), layout="constrained")
    for picture, prediction, (left, right) in zip(
        pictures, predictions, figure.subplots(rows, 2, squeeze=False), strict=True
    ):
        left.imshow(picture, cmap="gray", vmin=0, vmax=255)
        left.set_title(printable(Path(prediction["image"]).name), fontsize=9, parse_math=False)
        left.axis("off")
        names = [printable(entry["class"]) for entry in prediction["top"]]
        values = [entry["probability"] for entry in prediction["top"]]
        bars = right.barh(range(len(names)), values, color=["#0072B2"] + ["#9ecae1"] * (len(names) - 1))
        right.bar_label(bars, fmt="%.3f", padding=3, fontsize=9)
        right.set_yticks(range(len(names)), names, parse_math=False)
        right.invert_yaxis()
        right.set(xlim=(0, 1.2), xticks=[0, 0.5, 1], xlabel="probability")
        right.spines[["top", "right"]].set_visible(False)
    save_figure(figure, "--show", path)


def _print(predictions: list[Values], pictures: list[Image.Image], options: argparse.Namespace) -> None:
    for prediction in predictions:
        classes = "   ".join(f"{entry['class']} {entry['probability']:.3f}" for entry in prediction["top"])
        print(printable(f"{prediction['image']}:  {classes}"))
    light = [p for p in pictures if p.mode == "L" and border_mean(p) > 127]  # type: ignore[operator]
    if light and not options.invert:
        print("The background is light. If the net was trained on light digits on black, as in MNIST, type --invert")
    if options.show:
        print(printable(f"drawn: {options.show}"))
