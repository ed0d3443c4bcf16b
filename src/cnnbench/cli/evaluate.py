"""`python -m cnnbench evaluate RUN_DIR`: scores a saved run again, also on another split or data set."""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.cli.parser import Parser
from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.data.image_files import drawable
from cnnbench.errors import ConfigError
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.trust import require_known
from cnnbench.stats import wilson
from cnnbench.text import as_typed

if TYPE_CHECKING:
    from cnnbench.data.datamodule import ImageData


SPLIT_KEYS = {  # what decides which images a split has
    "train": (),
    "val": ("train_size", "val_size", "split_seed", "test_share"),
    "test": ("test_share",),
}


def main(arguments: list[str]) -> None:
    """Prints the scores."""
    options = _parse(arguments)
    if options.tta is not None:
        from cnnbench.augment.test_time import Views

        Views.parse(options.tta)  # before anything is read
    directory = RunDir.open(options.run_dir)
    config = with_overrides(Config.load(directory.config), options.overrides, options.config_dir)
    scores = evaluate(directory, config, options.split, options.tta, options.trust, options.ema)
    if options.json:
        print(json.dumps(scores, indent=2))
    else:
        _show(scores)


def evaluate(
    directory: RunDir, config: Config, split: str, tta: str | None = None, trust: bool = False, ema: bool = False
) -> dict[str, Any]:
    """Scores the net of a run on a split of the data that `config` names.

    Args:
        directory: of the run.
        config: the run's, perhaps with other data.
        split: train, val or test.
        tta: which views of each image the answer is averaged over, as `Views.parse` reads it; None: the image as it is.
        trust: code that the run names beyond cnnbench, torch and torchvision may be run.
        ema: scores the averaged weights.

    Returns:
        `schema run data split tta n acc interval loss ece classes per_class confusion`; the interval covers 95 %, `per_class`
        is null where a class has no image, `confusion[truth][answer]` counts images.
    """
    trained = Config.load(directory.config)
    if not trust:
        require_known(directory.path, trained)
    import torch

    from cnnbench.augment.test_time import Averaged, Views
    from cnnbench.runs.load_net import load_net
    from cnnbench.training.classifier import Classifier
    from cnnbench.training.factories import build_data
    from cnnbench.training.hardware import resolve_hardware
    from cnnbench.training.run import make_trainer

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # of libraries among themselves
    net, facts = load_net(directory.path, trust, ema)
    data = build_data(config.model_copy(update={"augment": {}}))
    if (data.channels, data.num_classes) != (facts["channels"], len(facts["classes"])):
        raise ConfigError(
            f"data={data.name}: has {data.channels} channels and {data.num_classes} classes, this net takes "
            f"{facts['channels']} and {len(facts['classes'])}"
        )
    trained_on = trained.trainer.accelerator
    accelerator = trained_on if trained_on == "gpu" and torch.cuda.is_available() else "cpu"
    config = config.model_copy(
        update={
            "trainer": config.trainer.model_copy(
                update={"accelerator": accelerator, "devices": 1, "num_nodes": 1, "sync_batchnorm": False}
            ),
            "precision": config.precision if accelerator == trained_on else "32",
        }
    )
    torch.set_num_threads(int(resolve_hardware(config)["threads"]))
    if tta:
        views = Views.parse(tta)
        net = Averaged(net, views, data.image_size)
        data.scoring_side = views.source_side(data.native, data.image_size)
    try:
        net(torch.zeros(1, data.channels, data.scoring_side, data.scoring_side))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"data.image_size={data.image_size}: this net does not take such images ({reason})"
        ) from error
    data.prepare_data()
    check_is_the_runs(data, config, facts["classes"], trained, split)
    data.setup("test" if split == "test" else "fit")
    classifier = Classifier(net, data.num_classes)
    make_trainer(config, directory, []).test(classifier, dataloaders=data.loader(split, shuffle=False), verbose=False)  # type: ignore[arg-type]
    if split == "test" and config.data.target == trained.data.target:
        note_read(directory)
    confusion = classifier.scores["confusion"]
    n = sum(map(sum, confusion))
    acc, interval = wilson(sum(row[label] for label, row in enumerate(confusion)), n)
    return {
        "schema": 1,
        "run": str(directory.path),
        "data": data.name,
        "split": split,
        "tta": tta,
        "ema": ema,
        "n": n,
        "acc": acc,
        "interval": list(interval),
        "loss": classifier.scores["loss"],
        "ece": classifier.scores["ece"],
        "classes": list(data.classes),
        "per_class": [row[label] / sum(row) if sum(row) else None for label, row in enumerate(confusion)],
        "confusion": confusion,
    }


def note_read(directory: RunDir) -> None:
    """Keeps count of how often the test images of a run were scored; where it cannot be written, nobody counts."""
    with suppress(OSError), directory.test_reads.open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} evaluate\n")


def check_is_the_runs(data: ImageData, config: Config, classes: list[str], trained: Config, split: str) -> None:
    """The data of a run, and how it is split, must be what they were: else images that it has seen may be among those scored."""
    same = data.fingerprint == trained.data.fingerprint
    theirs, ours = trained.data.model_dump(), config.data.model_dump()
    moved = [key for key in SPLIT_KEYS[split] if same and ours.get(key) != theirs.get(key)]
    if moved:
        raise ConfigError(
            f"data.{moved[0]}={as_typed(ours.get(moved[0]))}: moves images that this run was trained on into its {split} split; "
            f"the run's is data.{moved[0]}={as_typed(theirs.get(moved[0]))}"
        )
    if config.data.fingerprint and not same:
        raise ConfigError(
            f"data={data.name}: the files in {data.root} are not those that this run was trained on; images that it has seen may "
            f"be among those to be scored. Restore them, or name others with data={trained.choices.get('data', data.name)} data.root=..."
        )
    if config.data.target == trained.data.target and list(data.classes) != list(classes):
        raise ConfigError(
            f"data={data.name}: its classes are {', '.join(data.classes)}, those of this net {', '.join(classes)}; "
            "name a set with the same classes"
        )


def with_overrides(frozen: Config, overrides: list[str], config_dir: Path | None = None) -> Config:
    """A run's config with other data: `data=NAME` and `data.key=value`; size and normalisation stay the run's."""
    other = next((o for o in overrides if not o.startswith(("data=", "data."))), None)
    if other:
        raise ConfigError(f"{other}: evaluate takes data=NAME and data.key=value; the rest is the run's")
    if not overrides:
        return frozen
    kept = frozen.data.model_dump(by_alias=True, include={"image_size", "mean", "std"})
    if not any(o.startswith("data=") for o in overrides):  # the run's own set, some keys changed
        kept = frozen.data.model_dump(exclude={"fingerprint"})  # its class as well, whatever its label leads to
        overrides = [f"data={frozen.choices['data']}", *overrides]
    given = {o.partition("=")[0].removeprefix("data.").replace("_target_", "target") for o in overrides}
    composed = compose(overrides, config_dir)
    if composed.data.target == frozen.data.target:  # pictures from elsewhere are made square and grey as the run's were
        own = frozen.data.arguments
        kept |= {key: own[key] for key in ("fit", "channels") if key in own}
    data = composed.data.model_copy(update={key: value for key, value in kept.items() if key not in given})
    return frozen.model_copy(update={"data": data})


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser("evaluate", "Scores a saved run on a split of its data, or of other data of the same shape.")
    parser.add_argument(
        "run_dir", type=Path, metavar="RUN_DIR", help="a folder that holds config.yaml and checkpoints/best.ckpt"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="data=NAME data.key=value", help="other data; default: the run's own"
    )
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: test")
    parser.add_argument(
        "--tta",
        metavar="VIEWS",
        help="average the answers over views of each image: scales=S,S,... (pixels a side), flips, or both with a comma between",
    )
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")
    parser.add_ema()
    parser.add_trust()
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a conf folder of yours besides")
    return parser.parse_args(arguments)


def _show(scores: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    low, high = scores["interval"]
    console = Console()
    console.print(
        f"{scores['run']} on {scores['data']}, {scores['split']}, {scores['n']:,} images"
        f"{', averaged over ' + scores['tta'] if scores['tta'] else ''}{', averaged weights' if scores['ema'] else ''}",
        style="bold",
        soft_wrap=True,
        markup=False,
    )
    console.print(
        f"accuracy {scores['acc']:.4f} (95 % interval {low:.4f} to {high:.4f})  loss {scores['loss']:.4f}",
        highlight=False,
    )
    console.print(f"calibration error {scores['ece']:.4f}", highlight=False)
    table = Table("class", "images", "accuracy", "most often taken for", box=None, padding=(0, 2, 0, 0))
    for label, (name, acc) in enumerate(zip(scores["classes"], scores["per_class"], strict=True)):
        row = scores["confusion"][label]
        wrong = {other: count for other, count in enumerate(row) if other != label and count}
        worst = max(wrong, key=wrong.__getitem__) if wrong else None
        taken = f"{drawable(scores['classes'][worst])} ({wrong[worst]})" if worst is not None else ""
        table.add_row(Text(drawable(name)), f"{sum(row):,}", "" if acc is None else f"{acc:.4f}", Text(taken))
    console.print(table)
