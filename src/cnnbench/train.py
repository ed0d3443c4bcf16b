"""One run: a config in, a directory with its result out."""

from __future__ import annotations

import io
import json
import logging
import math
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer
from rich.console import Console

from cnnbench.build import construct
from cnnbench.callbacks.board import Board
from cnnbench.callbacks.checkpoints import Checkpoints
from cnnbench.callbacks.curves import Curves
from cnnbench.callbacks.history import History
from cnnbench.callbacks.lifecycle import Lifecycle
from cnnbench.callbacks.progress import RunProgress
from cnnbench.classifier import Classifier
from cnnbench.config import Config
from cnnbench.data.base import ImageData
from cnnbench.environment import git_state, hardware, versions
from cnnbench.errors import CnnbenchError, ConfigError, Diverged, Interrupted, RunFailed
from cnnbench.prepare import Prepared, build_net, prepare
from cnnbench.restore import load_checkpoint
from cnnbench.rundir import RunDir, runs_of, write_atomic

log = logging.getLogger("cnnbench.run")
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


@dataclass(frozen=True)
class Outcome:
    """A run's directory and its result; `fresh` is False where it was done before and nothing ran."""

    directory: RunDir
    result: dict[str, Any]
    fresh: bool = True


def run(config: Config, command: str = "", console: Console | None = None) -> Outcome:
    """Trains, tests once with the weights that were best on validation, and writes the run directory.

    Args:
        config: composed or frozen.
        command: what the user typed, for the result.
        console: where progress is shown; None shows nothing.

    Raises:
        ConfigError: nothing ran and nothing was written.
        RunFailed, Diverged, Interrupted: the directory says so.
    """
    console = console or Console(quiet=True)
    prepared = prepare(config)
    torch.set_num_threads(int(prepared.config.threads))
    directory, resumed = find_directory(prepared.config)
    if directory.result.is_file():
        return Outcome(directory, json.loads(directory.result.read_text(encoding="utf-8")), fresh=False)
    with recorded(directory, console):
        if not directory.config.is_file():
            write_atomic(directory.config, prepared.config.dump())
        console.print(f"{directory.path}", style="bold", soft_wrap=True, highlight=False)
        result = fit_and_test(prepared, directory, console, resumed)
        write_atomic(directory.result, json.dumps({**result, "command": command}, indent=2, allow_nan=False) + "\n")
    return Outcome(directory, {**result, "command": command})


def fit_and_test(prepared: Prepared, directory: RunDir, console: Console, resumed: bool) -> dict[str, Any]:
    """The run itself; its files but for result.json and status.json."""
    config, data = prepared.config, prepared.data
    seed_everything(config.seed)
    net = build_net(config, data)
    if config.compile:
        net.compile()
    classifier = Classifier(
        net,
        data.num_classes,
        optimizer=partial(construct, config.optimizer, "optimizer"),
        scheduler=lambda optimizer, steps: construct(config.scheduler, "scheduler", optimizer, total_steps=steps),
    )
    history = History(directory)
    board = Board(directory, history, config)
    curves = Curves(directory, history, f"{directory.path.parent.name} · {directory.path.name}")
    checkpoints = Checkpoints(directory, history, config.trainer.checkpoint_every_s, origin(config, data))
    trainer = make_trainer(
        config,
        directory,
        callbacks=[
            history,
            board,
            curves,
            RunProgress(console, history),
            checkpoints,
            Lifecycle(directory, checkpoints),
        ],
    )
    trainer.fit(classifier, datamodule=data, ckpt_path=directory.last if resumed else None, weights_only=True)
    curves.draw()
    net.load_state_dict(load_checkpoint(directory.best)["state_dict"])
    trainer.test(classifier, datamodule=data, verbose=False)
    result = summarize(prepared, history, classifier)
    save_predictions(classifier, directory.predictions)
    board.finish(result["metrics"])
    return result


def make_trainer(config: Config, directory: RunDir, callbacks: list[Any]) -> Trainer:
    """Lightning's Trainer for a frozen config; logs, checkpoints, bars and samplers are our own."""
    every = config.trainer.val_every_steps
    return Trainer(
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        num_nodes=config.trainer.num_nodes,
        precision=PRECISIONS[config.precision],  # type: ignore[arg-type]
        deterministic=bool(config.deterministic),
        max_epochs=config.epochs,
        max_steps=config.trainer.max_steps or -1,
        val_check_interval=every or 1.0,
        check_val_every_n_epoch=None if every else 1,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        default_root_dir=directory.path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def find_directory(config: Config) -> tuple[RunDir, bool]:
    """The directory of a frozen config's run, and whether it goes on from a checkpoint there.

    With `resume=auto` the newest unfinished run of the same identity, or the newest run if that is done; with a run
    directory that one; otherwise a new one.
    """
    folder, identity = Path(config.runs_dir) / config.name, config.identity()
    if config.resume == "never":
        earlier = None
    elif config.resume == "auto":
        earlier = next(runs_of(folder, identity), None)
    else:
        earlier = RunDir.open(Path(config.resume))
        if not earlier.result.is_file() and Config.load(earlier.config).identity() != identity:
            raise ConfigError(
                f"resume={config.resume}: data or machine are not those that this run began with; resume it where it ran, or start anew"
            )
    if earlier is None:
        return RunDir.claim(folder, f"seed{config.seed}_{identity[:8]}"), False
    owner = earlier.owner()
    if owner:
        raise ConfigError(
            f"{earlier.path}: this run is live ({owner}); wait for it, or type resume=never for a second one"
        )
    return earlier, earlier.last.is_file()


@contextmanager
def recorded(directory: RunDir, console: Console) -> Iterator[None]:
    """Keeps log.txt and status.json while the run is on, and says in the status how it ended."""
    handler = logging.FileHandler(directory.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    loud, level = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")], log.level
    before = [(logger, logger.handlers[:], logger.propagate, logger.level) for logger in loud]
    for logger in loud:  # to the file, not to the screen
        logger.handlers, logger.propagate, logger.level = [], True, logging.WARNING
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    directory.write_status("running")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of libraries among themselves
            warnings.simplefilter("ignore", FutureWarning)
            yield
        directory.write_status("done")
    except Interrupted as error:
        directory.write_status("interrupted", str(error))
        raise Interrupted(f"{error}; saved. To go on: {directory.resume_command()}", error.signum) from error
    except Diverged as error:
        directory.write_status("diverged", str(error))
        raise Diverged(f"{directory.path}: diverged, {error}; try a smaller learning rate: optimizer.lr=...") from error
    except KeyboardInterrupt:
        directory.write_status("interrupted", "SIGINT")
        raise
    except Exception as error:
        log.exception("failed")
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        directory.write_status("failed", reason)
        if isinstance(error, CnnbenchError):
            raise
        raise RunFailed(f"{directory.path}: failed, {reason}; the traceback is in {directory.log}") from error
    finally:
        logging.captureWarnings(False)
        for logger, *state in before:
            logger.handlers, logger.propagate, logger.level = state  # type: ignore[assignment]
        log.setLevel(level)
        root.removeHandler(handler)
        handler.close()


def summarize(prepared: Prepared, history: History, classifier: Classifier) -> dict[str, Any]:
    """`result.json`, but for the command."""
    config, data = prepared.config, prepared.data
    last = history.validations[-1]
    return {
        "schema": 1,
        "status": "done",
        "seed": config.seed,
        "choices": config.choices,
        "metrics": {
            "best/val/acc": history.best["val/acc"],
            "best/val/loss": history.best["val/loss"],
            "last/val/acc": last["val/acc"],
            "test/acc": classifier.scores["acc"],
            "test/loss": classifier.scores["loss"],
        },
        "best_epoch": math.ceil(history.best["epoch"]),
        "n": {split: len(data.indices[split]) for split in ("train", "val", "test")},
        "split_hash": data.split_hash,
        "params": prepared.params,
        "macs": prepared.macs,
        "time": {"fit_s": history.fit_s, "data_wait_share": history.waited_s / history.train_s},
        "samples_per_s": history.images / history.train_s,
        "precision": config.precision,
        "devices": config.trainer.devices * config.trainer.num_nodes,
        "threads": config.threads,
        "versions": versions(),
        "git": git_state(),
        "hardware": hardware(),
        "config_hash": config.identity(),
    }


def origin(config: Config, data: ImageData) -> dict[str, Any]:
    """What a net is rebuilt from and fed with, in plain types."""
    return {
        "config": config.as_dict(),
        "data": {
            "channels": data.channels,
            "classes": list(data.classes),
            "image_size": data.image_size,
            "mean": data.mean,
            "std": data.std,
        },
    }


def save_predictions(classifier: Classifier, path: Path) -> None:
    """Test logits (N, num_classes) and targets (N,), in the order of the test split."""
    assert classifier.outputs is not None
    logits, targets = classifier.outputs
    content = io.BytesIO()
    np.savez_compressed(content, logits=logits.numpy(), targets=targets.numpy())
    write_atomic(path, content.getvalue())


def seed_everything(seed: int) -> None:
    """Python's, NumPy's and PyTorch's global generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
