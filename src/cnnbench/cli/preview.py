"""`cnnbench preview [key=value ...]`: draws training images as loaded and as augmented, and counts the classes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnbench.cli.figures import save_figure
from cnnbench.cli.parser import Parser
from cnnbench.config.compose import compose
from cnnbench.text import printable

if TYPE_CHECKING:
    from torch import Tensor

    from cnnbench.config.schema import Config
    from cnnbench.data.datamodule import ImageData

COLUMNS, VERSIONS = 10, 4  # classes that are drawn, and augmented versions of the image of each
TOLERANCE = 0.02  # between a stated and a measured mean or deviation


def main(arguments: list[str]) -> None:
    """Draws the images and prints facts about the set. Does not read the test split."""
    parser = Parser(
        "preview", "Draws training images as loaded and as augmented; counts classes, measures mean and deviation."
    )
    parser.add_path("--out", "FILE", "image file; default: preview_<data>_<augment>.png")
    parser.add_switch("--json", "print the facts as JSON")
    parser.add_overrides("as for a run: data=cifar10 augment=basic")
    options = parser.parse_args(arguments)
    parser.check_picture("--out", options.out)
    config = compose(options.overrides, options.config_dir)
    data = load_train_images(config, any(key.startswith("model") for key in options.overrides))
    path = options.out or Path(f"preview_{config.choices['data']}_{config.choices['augment']}.png")
    facts = data_facts(data)
    draw_sheet(data, path)
    if options.json:
        print(json.dumps({"schema": 1, **facts, "sheet": str(path)}, indent=2))
    else:
        _print_facts(facts, path)


def load_train_images(config: Config, for_net: bool) -> ImageData:
    """The data set of a config with its train images decoded, at the set's size or, if `for_net`, at the net's."""
    from cnnbench.training.checks import check_augment
    from cnnbench.training.factories import build_data, data_for_net

    data = data_for_net(config) if for_net else build_data(config)
    data.prepare_data()
    data.setup("fit")
    check_augment(data)
    return data


def data_facts(data: ImageData) -> dict[str, Any]:
    """`data images size channels licence origin classes n mean std measured_on fingerprint split_hash label_hash augment`.

    `classes` counts the train and validation images of each class by the labels that a run trains on. `mean` and `std` hold
    one number per channel: `stated` by the set or typed, and `measured` on the pixels that `measured_on` names.
    """
    measured_mean, measured_std = data.measure_mean_std()
    counts = {
        split: np.bincount(data.images[split].labels.numpy(), minlength=data.num_classes).tolist()
        for split in ("train", "val")
    }
    augment = data.augment()
    return {
        "data": data.name,
        "images": {split: data.count(split) for split in ("train", "test")},
        "size": data.image_size,
        "channels": data.channels,
        "licence": data.licence,
        "origin": data.origin,
        "classes": {name: {split: counts[split][label] for split in counts} for label, name in enumerate(data.classes)},
        "n": {split: len(data.indices[split]) for split in ("train", "val", "test")},
        "mean": {"stated": data.mean, "measured": measured_mean},
        "std": {"stated": data.std, "measured": measured_std},
        "measured_on": data.measured_on,
        "fingerprint": data.fingerprint,
        "split_hash": data.split_hash,
        "label_hash": data.label_hash,
        "augment": list(augment.steps) if augment else [],
    }


def samples(data: ImageData) -> tuple[list[int], list[Tensor]]:
    """Labels (n,) and pixels of the first train image of each class: as loaded, then augmented, each (n, C, H, W) uint8."""
    import torch

    train = data.images["train"]
    labels, first = np.unique(train.labels.numpy(), return_index=True)
    loaded, _ = train.batch(torch.from_numpy(first[:COLUMNS]))
    rows = [loaded]
    if augment := data.augment():
        n, seed = len(loaded), data.batches.plan.seed or 0
        augmented = [augment(loaded, seed, 0, batch, slice(0, n), n) for batch in range(VERSIONS)]
        rows += [images.float().round().clamp(0, 255).to(torch.uint8) for images in augmented]
    return labels[:COLUMNS].tolist(), rows


def draw_sheet(data: ImageData, path: Path) -> None:
    """Draws a column for each class: its first train image as loaded, then four augmented versions.

    Raises:
        ConfigError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    labels, rows = samples(data)
    figure = Figure(figsize=(0.8 + 1.1 * len(labels), 0.5 + 1.1 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(labels), squeeze=False)
    for number, (images, line) in enumerate(zip(rows, axes, strict=True)):
        for label, image, axis in zip(labels, images, line, strict=True):
            axis.imshow(image.permute(1, 2, 0)[..., : 3 if data.channels >= 3 else 1], cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            if number == 0:
                axis.set_title(printable(data.classes[label]), fontsize=8, parse_math=False)
        height, width = images.shape[-2:]
        line[0].set_ylabel(f"{'as loaded' if number == 0 else 'augmented'}\n{height}×{width}", fontsize=8)
    save_figure(figure, "--out", path)


def _print_facts(facts: dict[str, Any], path: Path) -> None:
    from cnnbench.console import Console, plain_table, plain_text, print_plain

    def four_digits(values: list[float], separator: str = " ") -> str:
        return separator.join(f"{value:.4f}" for value in values)

    console = Console()
    line = partial(print_plain, console)
    images, n, side = facts["images"], facts["n"], facts["size"]
    line(
        f"{facts['data']}: {images['train']:,} + {images['test']:,} images, here of {facts['channels']}×{side}×{side}",
        "bold",
    )
    line(f"{facts['origin']}; licence: {facts['licence']}")
    console.print()
    table = plain_table("class", "train", "validation")
    for name, counts in facts["classes"].items():
        table.add_row(plain_text(name), f"{counts['train']:,}", f"{counts['val']:,}")
    table.add_row("all", f"{n['train']:,}", f"{n['val']:,}", style="bold")
    console.print(table)
    console.print()
    table = plain_table("per channel", "stated", "measured")
    measured = {key: facts[key]["measured"] for key in ("mean", "std")}
    for key, label in {"mean": "mean", "std": "deviation"}.items():
        table.add_row(label, four_digits(facts[key]["stated"]), four_digits(measured[key]))
    console.print(table)
    line(f"stated: of {facts['measured_on']}")
    if not all(np.allclose(facts[key]["stated"], measured[key], rtol=0, atol=TOLERANCE) for key in measured):
        typed = " ".join(f"data.{key}=[{four_digits(values, ',')}]" for key, values in measured.items())
        line(f"these differ; to normalise with the measured values: {typed}", "yellow")
    console.print()
    line(f"augment     {', '.join(facts['augment']) or 'none'}")
    line(f"split hash  {facts['split_hash']}, labels {facts['label_hash']}")
    line(f"sheet       {path}")
