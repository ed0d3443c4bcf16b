"""One run: a config in, a directory with its result out."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer
from rich.console import Console

from cnnbench.callbacks.board import Board
from cnnbench.callbacks.checkpoints import Checkpoints
from cnnbench.callbacks.curves import Curves
from cnnbench.callbacks.divergence import Divergence
from cnnbench.callbacks.history import History
from cnnbench.callbacks.lifecycle import Lifecycle
from cnnbench.callbacks.progress import RunProgress
from cnnbench.classifier import Classifier
from cnnbench.config import Config
from cnnbench.errors import ConfigError
from cnnbench.prepare import Prepared, build_net, build_optimizer, build_scheduler, prepare
from cnnbench.recording import log, recorded
from cnnbench.restore import load_checkpoint
from cnnbench.result import origin, save_predictions, summarize
from cnnbench.rundir import RunDir, runs_of, write_atomic

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
    if resumed:
        load_checkpoint(directory.last)  # one that is damaged, or hostile, is told before anything is written
    with recorded(directory):
        if not directory.config.is_file():
            write_atomic(directory.config, prepared.config.dump())
        log.info("data.pipeline=%s: %s", prepared.config.data.pipeline, prepared.pipeline_because)
        console.print(f"{directory.path}", style="bold", soft_wrap=True, highlight=False, markup=False)
        result = fit_and_test(prepared, directory, console, resumed)
        write_atomic(directory.result, json.dumps({**result, "command": command}, indent=2, allow_nan=False) + "\n")
    return Outcome(directory, {**result, "command": command})


def fit_and_test(prepared: Prepared, directory: RunDir, console: Console, resumed: bool) -> dict[str, Any]:
    """The run itself; its files but for result.json and status.json."""
    config, data = prepared.config, prepared.data
    seed_everything(config.seed)
    net = build_net(config, data)
    classifier = Classifier(
        net,
        data.num_classes,
        optimizer=partial(build_optimizer, config),
        scheduler=partial(build_scheduler, config, data),
        label_smoothing=config.label_smoothing,
        ema=config.ema,
    )
    if config.compile:
        net.compile()
    history = History(directory, config)
    board = Board(directory, history, config)
    curves = Curves(directory, history, f"{directory.path.parent.name} · {directory.path.name}")
    divergence = Divergence()
    checkpoints = Checkpoints(directory, history, divergence, config.trainer.checkpoint_every_s, origin(config, data))
    trainer = make_trainer(
        config,
        directory,
        callbacks=[
            divergence,
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
    if classifier.averaged is not None:
        classifier.averaged.module.load_state_dict(load_checkpoint(directory.best_ema)["state_dict"])
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
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip_grad,
        val_check_interval=every * config.accumulate if every else 1.0,
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


def seed_everything(seed: int) -> None:
    """Python's, NumPy's and PyTorch's global generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
