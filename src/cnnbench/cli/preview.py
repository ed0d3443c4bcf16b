"""`python -m cnnbench preview [key=value ...]`: training images as they are and as the net will see them, drawn and counted."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnbench.cli.parser import Parser
from cnnbench.config.compose import compose
from cnnbench.data.image_files import drawable
from cnnbench.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from cnnbench.config.schema import Config
    from cnnbench.data.datamodule import ImageData

COLUMNS, VERSIONS = 10, 4  # classes on a sheet, and how often each of their images is augmented
OFF = 0.02  # a stated mean or deviation that is off by more is worth a line


def main(arguments: list[str]) -> None:
    """Draws the sheet and prints the facts. The test split is not read."""
    options = _parse(arguments)
    config = compose(options.overrides, options.config_dir)
    data = load(config, any(key.startswith("model") for key in options.overrides))
    path = options.out or Path(f"preview_{config.choices['data']}_{config.choices['augment']}.png")
    facts = describe(data)
    draw(data, path)
    if options.json:
        print(json.dumps({"schema": 1, **facts, "sheet": str(path)}, indent=2))
    else:
        _show(facts, path)


def load(config: Config, for_net: bool) -> ImageData:
    """The train images of a config, at the set's own size, or at that which the net takes."""
    from cnnbench.training.factories import build_data, data_for_net
    from cnnbench.training.validate import check_augment

    data = data_for_net(config) if for_net else build_data(config)
    data.prepare_data()
    data.setup("fit")
    check_augment(data)
    return data


def describe(data: ImageData) -> dict[str, Any]:
    """`data images size channels licence origin classes n mean std measured_on fingerprint split_hash label_hash augment`.

    `classes` counts the train and validation images of each class, by the labels that a run would see; `mean` and `std` hold
    what is `stated`, or was typed, and what was `measured` over what `measured_on` names.
    """
    measured_mean, measured_std = data.measured()
    counts = {
        split: np.bincount(data.images[split].labels.numpy(), minlength=data.num_classes).tolist()
        for split in ("train", "val")
    }
    steps = data.augment(data.mean)
    return {
        "data": data.name,
        "images": {"train": data.count("train"), "test": data.count("test")},
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
        "augment": list(steps.steps) if steps else [],
    }


def samples(data: ImageData) -> tuple[list[int], list[Tensor]]:
    """The labels of the first train image of each class, and their pixels: as loaded, then augmented, each (n, C, H, W) uint8."""
    import torch

    train = data.images["train"]
    labels, first = np.unique(train.labels.numpy(), return_index=True)
    loaded, _ = train.take(torch.from_numpy(first[:COLUMNS]))
    augment = data.augment(data.mean)
    rows = [loaded]
    if augment:
        n = len(loaded)
        changed = [augment(loaded, data.shuffle_seed, 0, batch, slice(0, n), n) for batch in range(VERSIONS)]
        rows += [images.float().round().clamp(0, 255).to(torch.uint8) for images in changed]
    return labels[:COLUMNS].tolist(), rows


def draw(data: ImageData, path: Path) -> None:
    """A column for each class: its first train image as loaded, below it as augmented, four times."""
    from matplotlib.figure import Figure

    labels, rows = samples(data)
    figure = Figure(figsize=(0.8 + 1.1 * len(labels), 0.5 + 1.1 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(labels), squeeze=False)
    for number, (images, line) in enumerate(zip(rows, axes, strict=True)):
        for label, image, axis in zip(labels, images, line, strict=True):
            axis.imshow(image.permute(1, 2, 0)[..., : 3 if data.channels >= 3 else 1], cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            if number == 0:
                axis.set_title(drawable(data.classes[label]), fontsize=8, parse_math=False)
        side = "×".join(map(str, images.shape[-2:]))
        line[0].set_ylabel(f"{'as loaded' if number == 0 else 'augmented'}\n{side}", fontsize=8)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); name another file with --out") from error


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(
        "preview", "Draws training images as loaded and as augmented; counts classes, measures mean and deviation."
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for a run: data=cifar10 augment=basic")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the picture; default: preview_<data>_<augment>.png")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a conf folder of yours besides")
    options = parser.parse_args(arguments)
    parser.check_picture("--out", options.out)
    return options


def _show(facts: dict[str, Any], path: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    train, test = facts["images"]["train"], facts["images"]["test"]
    shape = "×".join(map(str, (facts["channels"], facts["size"], facts["size"])))
    console.print(f"{facts['data']}: {train:,} + {test:,} images, here of {shape}", style="bold", highlight=False)
    console.print(f"{facts['origin']}; licence: {facts['licence']}\n", highlight=False, soft_wrap=True)
    table = Table("class", "train", "validation", box=None, padding=(0, 2, 0, 0))
    for name, counts in facts["classes"].items():
        table.add_row(Text(drawable(name)), f"{counts['train']:,}", f"{counts['val']:,}")
    table.add_row("all", f"{facts['n']['train']:,}", f"{facts['n']['val']:,}", style="bold")
    console.print(table)
    console.print()
    table = Table("per channel", "stated", "measured", box=None, padding=(0, 2, 0, 0))
    for key, label in (("mean", "mean"), ("std", "deviation")):
        table.add_row(
            label, *(" ".join(f"{value:.4f}" for value in facts[key][which]) for which in ("stated", "measured"))
        )
    console.print(table)
    console.print(f"stated: of {facts['measured_on']}", highlight=False, soft_wrap=True)
    if any(
        abs(a - b) > OFF
        for key in ("mean", "std")
        for a, b in zip(facts[key]["stated"], facts[key]["measured"], strict=True)
    ):
        typed = " ".join(
            f"data.{key}=[{','.join(f'{value:.4f}' for value in facts[key]['measured'])}]" for key in ("mean", "std")
        )
        console.print(
            f"these differ; to normalise with what was measured: {typed}",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"\naugment     {', '.join(facts['augment']) or 'none'}", highlight=False)
    console.print(f"split hash  {facts['split_hash']}, labels {facts['label_hash']}", highlight=False)
    console.print(f"sheet       {path}", highlight=False, soft_wrap=True, markup=False)
