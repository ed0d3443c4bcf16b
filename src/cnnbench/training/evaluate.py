"""Scores the net of a run on a split of its data set, or of another data set of the same shape."""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch
from torch import nn

from cnnbench.augment.test_time import TestTimeEnsemble, TestTimeViews
from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.data.datamodule import ImageData
from cnnbench.errors import ConfigError
from cnnbench.files import open_append
from cnnbench.runs.links import require_no_outside_links
from cnnbench.runs.load_net import load_net_and_config
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.trust import require_trusted_parts
from cnnbench.stats import wilson
from cnnbench.text import Values, flatten, one_line, to_override
from cnnbench.training.classifier import Classifier
from cnnbench.training.factories import build_data
from cnnbench.training.run import make_trainer

log = logging.getLogger("cnnbench.run")
SPLIT_KEYS = {  # the keys that decide which images a split has
    "train": (),
    "val": ("train_size", "val_size", "split_seed", "test_share"),
    "test": ("test_share",),
}


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`; `--json` prints it unchanged.

    Attributes:
        schema: version of this record.
        run: the run directory.
        data: the data set's name.
        split: train, val or test.
        tta: the views of each image over which the predictions are averaged, as typed; None: the image itself.
        ema: the averaged weights were scored.
        n: number of images.
        acc: accuracy.
        interval: 95 % interval of the accuracy.
        loss: mean cross-entropy.
        ece: expected calibration error.
        classes: their names.
        per_class: accuracy on the images of each class; None for a class without images.
        confusion: confusion[true][predicted] counts images.
    """

    schema: int
    run: str
    data: str
    split: str
    tta: str | None
    ema: bool
    n: int
    acc: float
    interval: list[float]
    loss: float
    ece: float
    classes: list[str]
    per_class: list[float | None]
    confusion: list[list[int]]


def evaluate(
    directory: RunDir, config: Config, split: str, tta: str | None = None, trust: bool = False, ema: bool = False
) -> Evaluation:
    """Scores the net of a run on a split of the data set that `config` names.

    Args:
        directory: the run.
        config: the run's config, perhaps with another data set.
        split: train, val or test.
        tta: views of each image over which predictions are averaged, in the form that `TestTimeViews.parse` reads; None: the image itself.
        trust: allow code that the run's config names outside cnnbench, torch and torchvision.
        ema: score the averaged weights.

    Raises:
        Untrusted: the config names such code, and `trust` is False.
        ConfigError: the data set does not fit the net, or holds images that the net may have been trained on; or a link leads
            out of the run directory.
    """
    require_no_outside_links(directory.path)  # it adds a line to a file there
    trained = Config.load(directory.config)
    if not trust:
        require_trusted_parts(directory.path, trained)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # libraries warn about each other
    net, facts, saved = load_net_and_config(directory, trust, ema)
    require_same_config(directory, saved, trained)
    data = build_data(config.model_copy(update={"augment": {}}))
    config = on_one_device(config)
    torch.set_num_threads(int(config.threads))
    if tta:
        views = TestTimeViews.parse(tta)
        net = TestTimeEnsemble(net, views, data.image_size)
        data.scoring_side = views.source_side(data.native, data.image_size)
    require_fitting_images(net, data, facts)
    data.prepare_data()
    require_unseen(data, config, facts["classes"], trained, split)
    data.setup("test" if split == "test" else "fit")
    classifier = Classifier(net, data.num_classes)
    make_trainer(config, directory, []).test(classifier, dataloaders=data.loader(split), verbose=False)  # type: ignore[arg-type]
    if split == "test" and config.data.target == trained.data.target:
        try:
            with open_append(directory.test_reads) as file:  # one more test read
                file.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} evaluate\n")
        except OSError as error:
            log.warning("%s: %s; the report does not count this test", directory.test_reads, error.strerror)
    scores = classifier.scores
    if not math.isfinite(scores["loss"]):
        raise ConfigError(f"{directory.path}: its net gives numbers that are infinite or NaN, so it has no loss")
    n, confusion = scores["n"], scores["confusion"]
    acc, interval = wilson(round(scores["acc"] * n), n)
    per_class = [row[label] / sum(row) if sum(row) else None for label, row in enumerate(confusion)]
    return Evaluation(
        1, str(directory.path), data.name, split, tta, ema, n, acc, list(interval), scores["loss"], scores["ece"],
        list(data.classes), per_class, confusion,
    )  # fmt: skip


def require_same_config(directory: RunDir, saved: Config, trained: Config) -> None:
    """Checks that the checkpoint of a run belongs to its config.yaml.

    Args:
        directory: of the run, for the message.
        saved: the config in the checkpoint.
        trained: that of config.yaml.

    Raises:
        ConfigError: they differ in a key that decides the run's numbers; the message names the nets, or the key.
    """
    in_checkpoint, in_file = (config.model_copy(update={"swept": []}) for config in (saved, trained))
    if in_checkpoint.identity() == in_file.identity():
        return
    hint = "restore the file that was changed"
    was, now = in_checkpoint.model.as_dict(), in_file.model.as_dict()
    if was["_target_"] != now["_target_"]:
        raise ConfigError(
            f"{directory.path}: its checkpoint has the net {was['_target_']}, its config.yaml names {now['_target_']}; {hint}"
        )
    was, now = flatten(in_checkpoint.identity_values()), flatten(in_file.identity_values())
    differ = [key for key in {**was, **now} if was.get(key) != now.get(key)]
    raise ConfigError(
        f"{directory.path}: its checkpoint was saved with {differ[0]}={to_override(was.get(differ[0]))}, its config.yaml has "
        f"{differ[0]}={to_override(now.get(differ[0]))}; {hint}"
    )


def on_one_device(config: Config) -> Config:
    """The config for one process: on a GPU if the run was trained on one and there is one here, else on the CPU."""
    accelerator, precision = config.trainer.accelerator, config.precision
    if accelerator == "gpu" and not torch.cuda.is_available():
        accelerator, precision = "cpu", "32"
    one = {"accelerator": accelerator, "devices": 1, "num_nodes": 1, "sync_batchnorm": False}
    return config.model_copy(update={"trainer": config.trainer.model_copy(update=one), "precision": precision})


def require_fitting_images(net: nn.Module, data: ImageData, facts: Values) -> None:
    """Checks that a net takes the images that it will be given, and that it knows the classes.

    Args:
        net: in evaluation mode, perhaps with its test-time views.
        data: the images, of `scoring_side` pixels a side.
        facts: of the data that the net was trained on: `channels` and `classes`.

    Raises:
        ConfigError: the data set has other channels or another number of classes, or the net does not take the size.
    """
    if (data.channels, data.num_classes) != (facts["channels"], len(facts["classes"])):
        raise ConfigError(
            f"data={data.name}: has {data.channels} channels and {data.num_classes} classes, this net takes "
            f"{facts['channels']} and {len(facts['classes'])}"
        )
    try:
        net(torch.zeros(1, data.channels, data.scoring_side, data.scoring_side))
    except RuntimeError as error:
        raise ConfigError(
            f"data.image_size={data.image_size}: this net does not take such images ({one_line(error)})"
        ) from error


def require_unseen(data: ImageData, config: Config, classes: list[str], trained: Config, split: str) -> None:
    """Raises `ConfigError` where images that the net was trained on may be in the split, or the classes differ."""
    same_files = data.fingerprint == trained.data.fingerprint
    theirs, ours = trained.data.model_dump(), config.data.model_dump()
    moved = [key for key in SPLIT_KEYS[split] if same_files and ours.get(key) != theirs.get(key)]
    if moved:
        raise ConfigError(
            f"data.{moved[0]}={to_override(ours.get(moved[0]))}: moves images that this run was trained on into its {split} split; "
            f"the run's is data.{moved[0]}={to_override(theirs.get(moved[0]))}"
        )
    if config.data.fingerprint and not same_files:
        raise ConfigError(
            f"data={data.name}: the files in {data.root} differ from those that this run was trained on, so its training images "
            f"may be among those to be scored. Restore the files, or name others with "
            f"data={trained.choices.get('data', data.name)} data.root=..."
        )
    if config.data.target == trained.data.target and list(data.classes) != list(classes):
        raise ConfigError(
            f"data={data.name}: its classes are {', '.join(data.classes)}, those of this net {', '.join(classes)}; "
            "name a data set with the same classes"
        )


def with_data_overrides(frozen: Config, overrides: list[str], config_dir: Path | None = None) -> Config:
    """A run's config with another data set: `data=NAME` and `data.key=value`. Size and normalisation stay the run's.

    Raises:
        ConfigError: an override is about something other than the data.
    """
    if other := next((o for o in overrides if not o.startswith(("data=", "data."))), None):
        raise ConfigError(f"{other}: evaluate takes data=NAME and data.key=value; every other key is the run's")
    if not overrides:
        return frozen
    kept = frozen.data.model_dump(include={"image_size", "mean", "std"})
    if not any(o.startswith("data=") for o in overrides):  # the run's own data set, with some keys changed
        # with its class: its label may name another one now
        kept = frozen.data.model_dump(exclude={"fingerprint", "typed_root"})
        overrides = [f"data={frozen.choices['data']}", *overrides]
    given = {o.partition("=")[0].removeprefix("data.").replace("_target_", "target") for o in overrides}
    composed = compose(overrides, config_dir)
    if composed.data.target == frozen.data.target:  # other pictures are made square and grey as the run's were
        kept |= frozen.data.model_dump(include={"fit", "channels"})
    data = composed.data.model_copy(update={key: value for key, value in kept.items() if key not in given})
    return frozen.model_copy(update={"data": data})
