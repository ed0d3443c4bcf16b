"""One run: a config in, a directory with its result out."""

from __future__ import annotations

import json
import random
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, Trainer
from rich.console import Console

from cnnbench.complexity.channels_last import arranged
from cnnbench.config.schema import Config
from cnnbench.distributed.ranks import Ranks, cluster, joined
from cnnbench.distributed.signals import Signals
from cnnbench.errors import ConfigError
from cnnbench.files import write_atomic
from cnnbench.runs.run_dir import LIVE, RunDir, runs_of
from cnnbench.runs.status_and_log import Pulse, caution, log, recorded
from cnnbench.training.callbacks.checkpoints import Checkpoints
from cnnbench.training.callbacks.curves import Curves
from cnnbench.training.callbacks.divergence import Divergence
from cnnbench.training.callbacks.graceful_stop import Lifecycle
from cnnbench.training.callbacks.gradient_norms import Norms
from cnnbench.training.callbacks.history import History
from cnnbench.training.callbacks.progress import RunProgress
from cnnbench.training.callbacks.tensorboard import Board
from cnnbench.training.classifier import Classifier
from cnnbench.training.cuda_graph import suits_cuda_graph
from cnnbench.training.determinism import apply_numerics, compiled, keep_memory
from cnnbench.training.factories import build_net, build_optimizer, build_scheduler
from cnnbench.training.misclassified import save_mistakes
from cnnbench.training.result import origin, save_predictions, summarize
from cnnbench.training.resume import best_weights, misfit, resumable
from cnnbench.training.tensorboard_images import figures
from cnnbench.training.validate import Prepared, prepare

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
    with joined(config) as ranks, ExitStack() as held:
        prepared = ranks.first_then_others(lambda: prepare(config))
        torch.set_num_threads(int(prepared.config.threads))
        directory = ranks.by_first(lambda: find_directory(prepared.config, held))
        prepared = as_begun(prepared, directory)
        if directory.result.is_file():
            return Outcome(directory, directory.outcome(), fresh=False)
        with recorded(directory, ranks) as (signals, pulse):
            if ranks.first and not directory.config.is_file():
                write_atomic(directory.config, prepared.config.dump())
            log.info("data.pipeline=%s: %s", prepared.config.data.pipeline, prepared.pipeline_because)
            console.print(f"{directory.path}", style="bold", soft_wrap=True, highlight=False, markup=False)
            for line in prepared.cautions:
                caution(console, line)
            result = {**fit_and_test(prepared, directory, console, ranks, signals, pulse), "command": command}
            if ranks.first:
                directory.previous.unlink(missing_ok=True)
                write_atomic(directory.result, json.dumps(result, indent=2, allow_nan=False) + "\n")
    return Outcome(directory, result)


def fit_and_test(
    prepared: Prepared, directory: RunDir, console: Console, ranks: Ranks, signals: Signals, pulse: Pulse
) -> dict[str, Any]:
    """The run itself; its files but for result.json and status.json."""
    config, data = prepared.config, prepared.data
    keep_memory()
    seed_everything(config.seed)
    net = arranged(build_net(config, data), config)
    if not ranks.first:
        seed_everything(config.seed, ranks.rank)  # dropout is to drop other things on each rank
    classifier = Classifier(
        net,
        data.num_classes,
        optimizer=partial(build_optimizer, config),
        scheduler=partial(build_scheduler, config, data),
        label_smoothing=config.label_smoothing,
        ema=config.ema,
        replays=suits_cuda_graph(config),
    )
    device = "cuda" if config.trainer.accelerator == "gpu" else "cpu"
    is_compiled = config.compile and compiled(net, device, partial(caution, console))
    divergence, history = Divergence(), History(directory, config, ranks)
    every_s, identities = config.trainer.checkpoint_every_s, config.identities()
    checkpoints = Checkpoints(directory, history, divergence, ranks, every_s, origin(config, data), identities[0])
    callbacks: list[Callback] = [divergence, history, checkpoints, Lifecycle(checkpoints, ranks, signals, pulse)]
    if ranks.first:
        norms = Norms(activations=not is_compiled) if config.log == "full" else None
        board = Board(directory, history, config, norms)
        curves = Curves(directory, history, f"{directory.path.parent.name} · {directory.path.name}")
        callbacks[2:2] = [*([norms] if norms else []), board, curves, RunProgress(console, history)]
    trainer = make_trainer(config, directory, callbacks)
    unfit = partial(misfit, directory=directory, classifier=classifier, identities=identities)
    checkpoint = ranks.by_first(lambda: resumable(directory, console, unfit))
    trainer.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    net.load_state_dict(best_weights(directory.best, history.best))
    if classifier.averaged is not None:
        classifier.averaged.module.load_state_dict(best_weights(directory.best_ema, history.best_ema))
    trainer.test(classifier, datamodule=data, verbose=False)
    result = summarize(prepared, history, classifier, is_compiled)
    if ranks.first:
        curves.draw()
        save_predictions(classifier, directory.predictions)
        save_mistakes(classifier, data.images["test"], directory.mistakes)
        board.finish(result["metrics"], figures(classifier, data))
    return result


def make_trainer(config: Config, directory: RunDir, callbacks: list[Callback]) -> Trainer:
    """Lightning's Trainer for a frozen config; logs, checkpoints, bars and samplers are our own."""
    apply_numerics(config)
    every = config.trainer.val_every_steps
    return Trainer(
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        num_nodes=config.trainer.num_nodes,
        strategy="ddp" if config.trainer.devices * config.trainer.num_nodes > 1 else "auto",
        plugins=[cluster()],
        sync_batchnorm=config.trainer.sync_batchnorm,
        precision=PRECISIONS[config.precision],  # type: ignore[arg-type]
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


def find_directory(config: Config, held: ExitStack) -> RunDir:
    """The directory of a frozen config's run; this process has it, until `held` ends, unless the run is done.

    With `resume=auto` that of the newest unfinished run of the same identity, or of the newest run if that is done; with a
    run directory that one; otherwise a new one.
    """
    folder, identity = Path(config.runs_dir) / config.name, config.identity()
    if config.resume == "never":
        earlier = None
    elif config.resume == "auto":
        earlier = next(runs_of(folder, config.identities()), None)
    else:
        earlier = RunDir.open(Path(config.resume))
        if not earlier.result.is_file() and Config.load(earlier.config).identity() != identity:
            raise ConfigError(
                f"resume={config.resume}: data or machine are not those that this run began with; resume it where it ran, or start anew"
            )
    if earlier is None:
        claimed = RunDir.claim(folder, f"seed{config.seed}_{identity[:8]}")
        held.enter_context(claimed.taken())
        return claimed
    if not earlier.result.is_file():
        held.enter_context(earlier.taken())
    owner = earlier.owner()
    if owner:
        raise ConfigError(f"{earlier.path}: {LIVE.format(owner)}")
    earlier.tidy()
    if not earlier.result.is_file():
        earlier.last.parent.mkdir(exist_ok=True)
    return earlier


def as_begun(prepared: Prepared, directory: RunDir) -> Prepared:
    """A run that goes on keeps the order of memory that it began with, which decides the last bits."""
    if not directory.config.is_file():
        return prepared
    kept = prepared.config.channels_last and Config.load(directory.config).channels_last
    return replace(prepared, config=prepared.config.model_copy(update={"channels_last": kept}))


def seed_everything(*seed: int) -> None:
    """Python's, NumPy's and PyTorch's global generators, by one number or several."""
    one = seed[0] if len(seed) == 1 else int(np.random.SeedSequence(seed).generate_state(1)[0])
    random.seed(one)
    np.random.seed(one)
    torch.manual_seed(one)
