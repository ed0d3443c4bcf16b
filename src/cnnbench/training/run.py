"""Runs one config: prepares it, trains the net, tests it and writes the run directory."""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment

from cnnbench.complexity.channels_last import to_memory_format
from cnnbench.config.schema import Config
from cnnbench.console import Console, print_plain
from cnnbench.distributed.ranks import process_group
from cnnbench.files import write_atomic
from cnnbench.runs.environment import code_version, git_state
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.schema import Result
from cnnbench.runs.status_and_log import log, print_and_log_warning, record_run
from cnnbench.training.callbacks.checkpoints import Checkpoints
from cnnbench.training.callbacks.curves import Curves
from cnnbench.training.callbacks.divergence import Divergence
from cnnbench.training.callbacks.early_stopping import EarlyStopping
from cnnbench.training.callbacks.graceful_stop import GracefulStop
from cnnbench.training.callbacks.gradient_norms import NormRecorder
from cnnbench.training.callbacks.history import History
from cnnbench.training.callbacks.progress import RunProgress
from cnnbench.training.callbacks.tensorboard import TensorBoardWriter
from cnnbench.training.classifier import Classifier
from cnnbench.training.cuda_graph import can_use_cuda_graph
from cnnbench.training.determinism import apply_numeric_settings, compile_net, tune_malloc
from cnnbench.training.factories import build_net, build_optimizer, build_scheduler
from cnnbench.training.lightning_internals import disable_signal_handlers
from cnnbench.training.misclassified import save_misclassified
from cnnbench.training.result import make_result, save_predictions
from cnnbench.training.resume import (
    find_directory,
    find_resumable_checkpoint,
    load_best_weights,
    why_not_resumable,
    with_original_memory_format,
)
from cnnbench.training.run_context import RunContext
from cnnbench.training.tensorboard_images import result_images
from cnnbench.training.validate import DataAndModelCache, Prepared, prepare


@dataclass(frozen=True)
class Outcome:
    """A run's directory and result; `fresh` is False if the run was finished before and nothing ran."""

    directory: RunDir
    result: Result
    fresh: bool = True


def run(config: Config, command: str = "", console: Console | None = None, download: bool = True) -> Outcome:
    """Trains a net, tests it once with the weights that were best on validation, and writes the run directory.

    Args:
        config: composed or frozen.
        command: what the user typed, for the result.
        console: where progress is shown; None shows nothing.
        download: whether absent files of the data set are downloaded; False: they are an error.

    Raises:
        ConfigError: something is wrong with the config, the data or the machine; nothing ran and nothing was written.
        RunFailed, Diverged, Interrupted: the run ended early; its status.json has the reason.
    """
    console = console or Console(quiet=True)
    with process_group(config) as ranks, ExitStack() as locks:
        prepared = ranks.run_on_rank_zero_first(lambda: prepare(config, DataAndModelCache(download)))
        code_version(), git_state()  # for the result: of the code that is imported now, not of that at the end
        torch.set_num_threads(int(prepared.config.threads))
        directory = ranks.run_on_rank_zero(lambda: find_directory(prepared.config, locks))
        prepared = with_original_memory_format(prepared, directory)
        if directory.result.is_file():
            return Outcome(directory, directory.load_result(), fresh=False)
        with record_run(directory, ranks) as (signals, heartbeat):
            if ranks.first and not directory.config.is_file():
                write_atomic(directory.config, prepared.config.dump())
            log.info("data.pipeline=%s: %s", prepared.config.data.pipeline, prepared.pipeline_reason)
            print_plain(console, str(directory.path), "bold")
            for line in prepared.warnings:
                print_and_log_warning(console, line)
            context = RunContext(prepared.config, directory, console, ranks, signals, heartbeat)
            result = fit_and_test(prepared, context).model_copy(update={"command": command})
            if ranks.first:
                directory.previous.unlink(missing_ok=True)
                write_atomic(directory.result, result.to_json(allow_nan=False))
    return Outcome(directory, result)


def fit_and_test(prepared: Prepared, context: RunContext) -> Result:
    """Trains and tests; the callbacks write metrics, curves, checkpoints and events."""
    config, data, directory, ranks = context.config, prepared.data, context.directory, context.ranks
    tune_malloc()
    seed_everything(config.seed)
    net = to_memory_format(build_net(config, data), config)
    if not ranks.first:
        own_seed = np.random.SeedSequence([config.seed, ranks.rank]).generate_state(1)[
            0
        ]  # dropout differs between ranks
        seed_everything(int(own_seed))
    classifier = Classifier(
        net,
        data.num_classes,
        optimizer=partial(build_optimizer, config),
        scheduler=partial(build_scheduler, config, data),
        label_smoothing=config.label_smoothing,
        ema=config.ema,
        cuda_graph=can_use_cuda_graph(config),
    )
    compiled = config.compile and compile_net(net, config, partial(print_and_log_warning, context.console))

    history = History(context)
    early_stopping = EarlyStopping(history, config.early_stopping)
    checkpoints = Checkpoints(context, history, data)
    callbacks: list[Callback] = [Divergence(), history, early_stopping]  # the order of their hooks
    if ranks.first:
        norms = NormRecorder(activations=not compiled) if config.log == "full" else None
        tensorboard, curves = TensorBoardWriter(context, history, norms), Curves(context, history)
        callbacks += [norms] if norms else []
        callbacks += [tensorboard, curves, RunProgress(context, history, early_stopping)]
    callbacks += [checkpoints, GracefulStop(context, checkpoints)]

    trainer = make_trainer(config, directory, callbacks)
    disable_signal_handlers(trainer)
    why_not = partial(why_not_resumable, directory, classifier, config.identities())
    checkpoint = ranks.run_on_rank_zero(lambda: find_resumable_checkpoint(directory, context.console, why_not))
    trainer.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    load_best_weights(classifier, directory, history)
    trainer.test(classifier, datamodule=data, verbose=False)

    result = make_result(prepared, history, classifier, compiled)
    if ranks.first:
        curves.draw()
        save_predictions(classifier, directory.predictions)
        save_misclassified(classifier, data.images["test"], directory.mistakes)
        tensorboard.finish(result.metrics, result_images(classifier, data))
    return result


def make_trainer(config: Config, directory: RunDir, callbacks: list[Callback]) -> Trainer:
    """Returns Lightning's Trainer for a frozen config; loggers, checkpoints, bars and samplers are ours."""
    apply_numeric_settings(config)
    every, several = config.trainer.val_every_steps, config.world_size > 1
    return Trainer(
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        num_nodes=config.trainer.num_nodes,
        strategy="ddp" if several else "auto",
        # by default Lightning takes every Slurm allocation for a run of several processes
        plugins=[TorchElasticEnvironment() if several else LightningEnvironment()],
        sync_batchnorm=config.trainer.sync_batchnorm,
        precision="32-true" if config.precision == "32" else f"{config.precision}-mixed",  # type: ignore[arg-type]
        max_epochs=config.epochs,
        max_steps=config.trainer.max_steps or -1,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip_grad,
        val_check_interval=every * config.accumulate if every else 1.0,
        check_val_every_n_epoch=None if every else 1,
        callbacks=callbacks,
        default_root_dir=directory.path,
        barebones=True,  # no logger, checkpoints, bar, summary and sanity check of Lightning's
        use_distributed_sampler=False,
    )


def seed_everything(seed: int) -> None:
    """Seeds the global generators of Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
