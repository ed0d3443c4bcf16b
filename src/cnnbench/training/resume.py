"""Chooses the directory and the checkpoint that a run resumes from, and checks that the best weights belong to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from cnnbench.config.schema import Config
from cnnbench.console import Console
from cnnbench.data.ownership import can_be_written, user_name
from cnnbench.errors import ConfigError, RunFailed
from cnnbench.models.weights import weights_misfit
from cnnbench.runs.checkpoint import read_checkpoint
from cnnbench.runs.environment import bit_determining_environment
from cnnbench.runs.links import require_no_outside_links
from cnnbench.runs.run_dir import RunDir, hashed_runs, runs_of_identity
from cnnbench.runs.status_and_log import print_and_log_warning
from cnnbench.text import Values
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
        ConfigError: the run is live, or it was started with other data or on another machine, or a link leads out of its
            directory.
    """
    folder, identity = Path(config.runs_dir) / config.name, config.identity()
    earlier = None
    if config.resume == "auto":
        earlier = next(iter(runs_of_identity(hashed_runs(folder), config.identities())), None)
    elif config.resume != "never":
        earlier = RunDir.open(Path(config.resume))
        if not earlier.result.is_file():
            require_same_run(earlier, config)
    directory = earlier or RunDir.create(folder, f"seed{config.seed}_{identity[:8]}")
    require_no_outside_links(directory.path)
    if not directory.result.is_file():
        _require_writable(directory)
        locks.enter_context(directory.lock())
        directory.last.parent.mkdir(exist_ok=True)
    directory.require_no_owner()
    directory.repair()
    return directory


def _require_writable(directory: RunDir) -> None:
    """Raises `ConfigError` if this user may not write to a run, as to another user's."""
    if not can_be_written(directory.path):
        owner = user_name(directory.path.stat().st_uid)
        raise ConfigError(
            f"{directory.path}: belongs to {owner}, you may not write to it; resume a copy of it, or start a new run with resume=never"
        )


def require_same_run(earlier: RunDir, config: Config) -> None:
    """Checks that a frozen config is that of the run which it resumes.

    Raises:
        ConfigError: the data have changed, or the run was started with other data or on another machine.
    """
    before = Config.load(earlier.config)
    if before.identity() == config.identity():
        return
    if before.data.fingerprint != config.data.fingerprint:
        raise ConfigError(
            f"{earlier.path}: the data in {config.data.root} have changed since this run was planned; put the earlier files "
            "back, or start a new run"
        )
    raise ConfigError(
        f"resume={config.resume}: this run was started with other data or on another machine; "
        "resume it there, or start a new one"
    )


def with_original_memory_format(prepared: Prepared, directory: RunDir) -> Prepared:
    """Returns a resumed run with the memory format that it was started with, which decides the last bits."""
    config = prepared.config
    if config.channels_last and directory.config.is_file():
        config = config.model_copy(update={"channels_last": Config.load(directory.config).channels_last})
    return replace(prepared, config=config)


def find_resumable_checkpoint(directory: RunDir, console: Console, why_not: Callable[[Values], str]) -> Path | None:
    """Returns the newest checkpoint that a run can resume from, or None; prints why another was not used.

    Args:
        directory: of the run.
        console: for the warnings, which log.txt gets too.
        why_not: content of an undamaged checkpoint -> why the run cannot resume from it, or an empty string.

    Raises:
        PermissionError, MemoryError: a checkpoint that may be good cannot be read; starting from the beginning would overwrite it.
    """
    existing = [path for path in (directory.last, directory.previous) if path.is_file()]
    for path in existing:
        content = load_if_intact(path)
        if content is None:
            reason = "damaged"
        elif not (reason := why_not(content)):
            if changed := environment_changes(content):
                print_and_log_warning(console, f"{path}: {changed}; the last bits of the results may differ")
            return path
        print_and_log_warning(console, f"{path}: {reason}, not used")
    if existing:
        print_and_log_warning(console, f"{directory.path}: no checkpoint to resume from; starts from the beginning")
    return None


def environment_changes(content: Values) -> str:
    """Returns what has changed, of all that decides the last bits of results, since a last.ckpt was saved; or an empty string."""
    saved = content["callbacks"]["Checkpoints"].get("environment")
    if not isinstance(saved, dict):
        return "saved by an earlier version of cnnbench, which did not record packages and processor"
    now = bit_determining_environment()
    changes = [f"{name} {was}, now {now.get(name)}" for name, was in saved.items() if was != now.get(name)]
    return f"saved with {', '.join(changes)}" if changes else ""


def load_if_intact(path: Path) -> Values | None:
    """Returns the content of a checkpoint, or None if the file is absent or damaged."""
    try:
        return read_checkpoint(path)
    except (PermissionError, MemoryError):
        raise
    except (OSError, ValueError):
        return None


def why_not_resumable(directory: RunDir, classifier: Classifier, identities: Sequence[str], content: Values) -> str:
    """Returns why a run cannot resume from the content of an undamaged checkpoint, or an empty string.

    The saved best weights must be those of the checkpoint's best validation, or of a validation after the checkpoint, which
    the resumed run repeats.

    Args:
        directory: of the run.
        classifier: of the run, as the resumed fit would begin.
        identities: of the run's config, the current one first.
        content: of last.ckpt or previous.ckpt.
    """
    reason = "belongs to another run"
    try:
        history, own = (content["callbacks"][name] for name in ("History", "Checkpoints"))
        bests = [None if at is None else history["validations"][at] for at in history["best"]]
        ours = content.keys() >= PARTS and own.get("identity", identities[0]) in identities
        if not ours or weights_misfit(classifier, content["state_dict"]):
            return reason
        for path, best in zip((directory.best, directory.best_ema), bests, strict=True):
            if best is None:
                continue
            reason = f"does not match {path.name}"
            saved = load_if_intact(path) or {}
            same_net = not weights_misfit(classifier.net, saved["state_dict"])
            same_run = Config.from_saved(saved["config"]).identity() in identities
            newer = saved["step"] > content["global_step"]
            if not (same_net and same_run and (newer or best.items() <= saved.items())):
                return reason
    except (PermissionError, MemoryError):
        raise
    except Exception:  # the values of somebody else's checkpoint may be anything
        return reason
    return ""


def load_best_weights(classifier: Classifier, directory: RunDir, history: History) -> None:
    """Loads the weights that were best on validation into the net, and those of the average into the average.

    Raises:
        RunFailed: a file holds other weights than the best validation's.
    """
    files = [(classifier.net, directory.best, history.best)]
    if classifier.averaged is not None:
        files.append((classifier.averaged.module, directory.best_ema, history.best_ema))
    for net, path, best in files:
        assert best is not None  # a fit ends with a validation
        saved = load_if_intact(path) or {}
        if not best.as_row().items() <= saved.items():  # all columns of the validation's row are equal
            raise RunFailed(f"{path.name} does not hold the weights of the best validation, after step {best.step}")
        net.load_state_dict(saved["state_dict"])
