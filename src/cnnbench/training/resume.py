"""Which checkpoint a run goes on from, and whether its best weights are those that its record tells of."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError, RunFailed
from cnnbench.runs.environment import decides_last_bits
from cnnbench.runs.load_net import load_checkpoint
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.status_and_log import caution
from cnnbench.training.classifier import Classifier

# what a fit goes on from
PARTS = {"pytorch-lightning_version", "global_step", "loops", "optimizer_states", "lr_schedulers"}


def resumable(
    directory: RunDir, console: Console, misfit: Callable[[dict[str, Any]], str] = lambda content: ""
) -> Path | None:
    """The newest checkpoint that a run can go on from; of one that is left aside it is said why.

    One that cannot be read for another reason than damage may be good: nothing is begun anew over it.

    Args:
        directory: of the run.
        console: where it is said.
        misfit: what is wrong with the content of a checkpoint that is whole; nothing, where it is good.
    """
    there = [path for path in (directory.last, directory.previous) if path.is_file()]
    for path in there:
        content = intact(path)
        wrong = "damaged" if content is None else misfit(content)
        if not wrong:
            if content and (changed := environment_changes(content)):
                caution(console, f"{path}: {changed}; the last bits of the results may differ")
            return path
        caution(console, f"{path}: {wrong}, and left aside")
    if there:
        caution(console, f"{directory.path}: has no checkpoint to go on from; begins anew")
    return None


def environment_changes(content: dict[str, Any]) -> str:
    """What decides the last bits of results and is not as it was when a `last.ckpt` was saved; nothing where all is."""
    callbacks = content.get("callbacks")
    state = callbacks.get("Checkpoints", {}) if isinstance(callbacks, dict) else {}
    if "environment" not in state:
        return "saved by an earlier version of cnnbench, which did not record packages and processor"
    now = decides_last_bits()
    changes = [
        f"{name} {was}, now {now.get(name)}" for name, was in state["environment"].items() if was != now.get(name)
    ]
    return f"saved with {', '.join(changes)}" if changes else ""


def intact(path: Path) -> dict[str, Any] | None:
    """The content of a checkpoint; None where it is absent or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.testzip() is None  # PyTorch does not look at the sums
            whole &= not any(info.external_attr for info in archive.infolist())  # and takes some files for folders
        content = load_checkpoint(path) if whole else None
    except (PermissionError, MemoryError):
        raise
    except Exception:  # a flipped bit in a name or a flag can have any of many
        return None
    return content if isinstance(content, dict) else None


def misfit(content: dict[str, Any], directory: RunDir, classifier: Classifier, identities: Sequence[str]) -> str:
    """Why the run of a config cannot go on from a checkpoint that is whole; nothing where it can.

    The best weights must be those of its best validation, or of a later one than it knows of, which is to come again.
    """
    try:
        history, own = (content["callbacks"][name] for name in ("History", "Checkpoints"))
        bests = [None if at is None else history["validations"][at] for at in history["best"]]
        ours = content.keys() >= PARTS and own.get("identity", identities[0]) in identities
        ours &= shapes(content["state_dict"]) == shapes(classifier.state_dict())
    except (LookupError, TypeError, AttributeError):
        ours = False
    if not ours:
        return "is not of this run"
    for path, best in zip((directory.best, directory.best_ema), bests, strict=True):
        found = None if best is None else intact(path)
        if best is None or (found and of_run(found, classifier, identities) and _goes_with(found, best, content)):
            continue
        return f"goes with another {path.name} than there is"
    return ""


def _goes_with(found: dict[str, Any], best: dict[str, Any], content: dict[str, Any]) -> bool:
    return holds(found, best) or found.get("step", 0) > content["global_step"]


def of_run(found: dict[str, Any], classifier: Classifier, identities: Sequence[str]) -> bool:
    """Best weights are of the run of that config."""
    try:
        fits = shapes(found["state_dict"]) == shapes(classifier.net.state_dict())
        return fits and Config.restore(found["config"]).identity() in identities
    except (LookupError, TypeError, AttributeError, ConfigError):
        return False


def holds(content: dict[str, Any], record: dict[str, Any]) -> bool:
    """Weights are those of a validation."""
    return bool(record) and all(content.get(name) == value for name, value in record.items())


def shapes(state: dict[str, Any]) -> dict[str, Any]:
    """Of weights by name."""
    return {name: getattr(value, "shape", None) for name, value in state.items()}


def best_weights(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The weights that were best on validation.

    Raises:
        RunFailed: those in the file are others than the run's record tells of.
    """
    content = intact(path)
    if content is None or not holds(content, record):
        raise RunFailed(
            f"{path.name} does not hold the weights of the best validation, that after step {record['step']}"
        )
    return content["state_dict"]
