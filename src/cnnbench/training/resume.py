"""Chooses the directory and the checkpoint that a run resumes from, and checks that the best weights belong to them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError, RunFailed
from cnnbench.runs.environment import bit_determining_environment
from cnnbench.runs.load_net import load_checkpoint
from cnnbench.runs.run_dir import LIVE, RunDir, runs_of_identity
from cnnbench.runs.status_and_log import print_and_log_warning
from cnnbench.training.callbacks.history import History
from cnnbench.training.classifier import Classifier
from cnnbench.training.validate import Prepared

# the parts of a checkpoint that Lightning resumes a fit from
PARTS = {"pytorch-lightning_version", "global_step", "loops", "optimizer_states", "lr_schedulers"}


def find_directory(config: Config, locks: ExitStack) -> RunDir:
    """Returns the directory of a frozen config's run, locked unless the run is finished.

    `resume=auto` takes the newest run of the same identity, `resume=<run directory>` that run, `resume=never` a new one.

    Args:
        config: frozen.
        locks: the lock of the directory is released when this closes.

    Raises:
        ConfigError: the run is live, or it was started with other data or on another machine.
    """
    folder, identity = Path(config.runs_dir) / config.name, config.identity()
    earlier = None
    if config.resume == "auto":
        earlier = next(runs_of_identity(folder, config.identities()), None)
    elif config.resume != "never":
        earlier = RunDir.open(Path(config.resume))
        if not earlier.result.is_file() and Config.load(earlier.config).identity() != identity:
            raise ConfigError(
                f"resume={config.resume}: this run was started with other data or on another machine; "
                "resume it there, or start a new one"
            )
    if earlier is None:
        directory = RunDir.create(folder, f"seed{config.seed}_{identity[:8]}")
        locks.enter_context(directory.lock())
        return directory
    if not earlier.result.is_file():
        locks.enter_context(earlier.lock())
    owner = earlier.owner()
    if owner:
        raise ConfigError(f"{earlier.path}: {LIVE.format(owner)}")
    earlier.repair()
    if not earlier.result.is_file():
        earlier.last.parent.mkdir(exist_ok=True)
    return earlier


def with_original_memory_format(prepared: Prepared, directory: RunDir) -> Prepared:
    """Returns a resumed run with the memory format that it was started with, which decides the last bits."""
    if not directory.config.is_file():
        return prepared
    original = prepared.config.channels_last and Config.load(directory.config).channels_last
    return replace(prepared, config=prepared.config.model_copy(update={"channels_last": original}))


def find_resumable_checkpoint(
    directory: RunDir, console: Console, why_not: Callable[[dict[str, Any]], str] = lambda content: ""
) -> Path | None:
    """Returns the newest checkpoint that a run can resume from, or None; prints why another was not used.

    Args:
        directory: of the run.
        console: for the warnings, which log.txt gets too.
        why_not: content of an undamaged checkpoint -> why the run cannot resume from it, or an empty string.

    Raises:
        PermissionError, MemoryError: a checkpoint that may be good cannot be read; starting anew would overwrite it.
    """
    existing = [path for path in (directory.last, directory.previous) if path.is_file()]
    for path in existing:
        content = load_if_intact(path)
        reason = "damaged" if content is None else why_not(content)
        if not reason:
            if content and (changed := environment_changes(content)):
                print_and_log_warning(console, f"{path}: {changed}; the last bits of the results may differ")
            return path
        print_and_log_warning(console, f"{path}: {reason}, not used")
    if existing:
        print_and_log_warning(console, f"{directory.path}: no checkpoint to resume from; starts anew")
    return None


def environment_changes(content: dict[str, Any]) -> str:
    """Returns what has changed, of all that decides the last bits of results, since a last.ckpt was saved; or an empty string."""
    callbacks = content.get("callbacks")
    state = callbacks.get("Checkpoints", {}) if isinstance(callbacks, dict) else {}
    if "environment" not in state:
        return "saved by an earlier version of cnnbench, which did not record packages and processor"
    now = bit_determining_environment()
    changes = [
        f"{name} {was}, now {now.get(name)}" for name, was in state["environment"].items() if was != now.get(name)
    ]
    return f"saved with {', '.join(changes)}" if changes else ""


def load_if_intact(path: Path) -> dict[str, Any] | None:
    """Returns the content of a checkpoint, or None if the file is absent or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            intact = archive.testzip() is None  # PyTorch does not check the checksums
            intact &= not any(info.external_attr for info in archive.infolist())  # and may take files for folders
        content = load_checkpoint(path) if intact else None
    except (PermissionError, MemoryError):
        raise
    except Exception:  # a flipped bit in a name or a flag may raise anything
        return None
    return content if isinstance(content, dict) else None


def why_not_resumable(
    content: dict[str, Any], directory: RunDir, classifier: Classifier, identities: Sequence[str]
) -> str:
    """Returns why a run cannot resume from the content of an undamaged checkpoint, or an empty string.

    The saved best weights must be those of the checkpoint's best validation, or of a validation after the checkpoint, which
    the resumed run repeats.

    Args:
        content: of last.ckpt or previous.ckpt.
        directory: of the run.
        classifier: of the run, as the resumed fit would begin.
        identities: of the run's config, the current one first.
    """
    try:
        history, own = (content["callbacks"][name] for name in ("History", "Checkpoints"))
        bests = [None if at is None else history["validations"][at] for at in history["best"]]
        ours = content.keys() >= PARTS and own.get("identity", identities[0]) in identities
        ours &= has_shapes_of(content["state_dict"], classifier)
    except (LookupError, TypeError, AttributeError):
        ours = False
    if not ours:
        return "belongs to another run"
    for path, best in zip((directory.best, directory.best_ema), bests, strict=True):
        if best is None:
            continue
        saved = load_if_intact(path) or {}
        newer = saved.get("step", 0) > content["global_step"]
        if not belongs_to_run(saved, classifier, identities) or not (newer or matches_record(saved, best)):
            return f"does not match {path.name}"
    return ""


def belongs_to_run(saved: dict[str, Any], classifier: Classifier, identities: Sequence[str]) -> bool:
    """Returns whether saved best weights are those of a net and a config."""
    try:
        fits = has_shapes_of(saved["state_dict"], classifier.net)
        return fits and Config.from_saved(saved["config"]).identity() in identities
    except (LookupError, TypeError, AttributeError, ConfigError):
        return False


def matches_record(saved: dict[str, Any], record: dict[str, Any]) -> bool:
    """Returns whether saved weights are those of a validation: all columns of its row are equal."""
    return bool(record) and all(saved.get(name) == value for name, value in record.items())


def has_shapes_of(weights: dict[str, Any], net: nn.Module) -> bool:
    """Returns whether weights have the names and shapes of a net's."""
    shapes = [{name: getattr(each, "shape", None) for name, each in w.items()} for w in (weights, net.state_dict())]
    return shapes[0] == shapes[1]


def load_best_weights(classifier: Classifier, directory: RunDir, history: History) -> None:
    """Loads the weights that were best on validation into the net, and those of the average into the average.

    Raises:
        RunFailed: a file holds other weights than the best validation's.
    """
    averaged = None if classifier.averaged is None else classifier.averaged.module
    files = ((classifier.net, directory.best, history.best), (averaged, directory.best_ema, history.best_ema))
    for net, path, best in files:
        if net is None or best is None:
            continue
        saved = load_if_intact(path)
        if saved is None or not matches_record(saved, best.as_row()):
            raise RunFailed(f"{path.name} does not hold the weights of the best validation, after step {best.step}")
        net.load_state_dict(saved["state_dict"])
