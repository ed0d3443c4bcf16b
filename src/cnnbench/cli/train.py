"""`python -m cnnbench [key=value ...]`: composes, trains, shows what came out and what to type next."""

from __future__ import annotations

import argparse
import shlex
import signal
from argparse import Namespace
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.config.compose import compose
from cnnbench.distributed.ranks import placed, require_size
from cnnbench.errors import ConfigError, Diverged, Interrupted, RunFailed, SaidElsewhere, ended
from cnnbench.runs.commands import trust_flag
from cnnbench.runs.run_dir import RunDir

if TYPE_CHECKING:
    from rich.console import Console

    from cnnbench.config.schema import Config


def main(arguments: list[str], command: str) -> int:
    """Trains what the arguments say; the exit code."""
    overrides, config_dir, flags = split_arguments(arguments)
    if flags.multirun:
        from cnnbench.cli.sweep import main as sweep

        return sweep(overrides, config_dir, command)
    trust = flags.trust
    config = resumed_or_composed(overrides, config_dir)  # mistakes are told here, before torch is imported
    if trust and not resumes(config):
        raise ConfigError("--trust: goes with resume=RUN_DIR; what you type yourself needs none")
    if resumes(config) and not trust and not RunDir(Path(config.resume)).result.is_file():
        require_trusted(config)
    devices, (_, started) = config.trainer.devices, placed()
    if started == 1 and devices > 1 and config.trainer.num_nodes == 1:
        return train_on_ranks(config, command)
    require_size(config, started)
    train(config, command)
    return 0


def train(config: Config, command: str) -> None:
    """A run, or one process's part of it, and what came out."""
    from rich.console import Console

    rank, _ = placed()
    console = Console(quiet=rank > 0)
    earlier = RunDir(Path(config.resume))
    if resumes(config) and earlier.result.is_file():
        result = earlier.outcome()
        if rank == 0 and earlier.owner() is None:
            earlier.tidy()
        console.print(f"{earlier.path}: is done already", soft_wrap=True, highlight=False, markup=False)
        show(result, earlier, console)
        return
    with importing(console):
        from cnnbench.training.run import run
    try:
        outcome = run(config, command, console)
    except (Diverged, Interrupted) as error:  # all ranks end so, at the same step
        raise error if rank == 0 else SaidElsewhere(error.exit_code) from error
    if not outcome.fresh:
        console.print(f"{outcome.directory.path}: is done already", soft_wrap=True, highlight=False, markup=False)
    show(outcome.result, outcome.directory, console)


def train_on_ranks(config: Config, command: str) -> int:
    """A run in a process for each device; the exit code."""
    from rich.console import Console

    from cnnbench.distributed.fork_server import Job, forwarding

    console = Console()
    job = Job(be_rank, (config, command), config.trainer.devices)
    with forwarding(job):
        with importing(console):
            job.start()
        code = job.wait()
    if code >= 0:
        return code
    name = signal.Signals(-code).name
    if name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        raise Interrupted(f"stopped by {name}", -code)
    raise RunFailed(f"a rank was ended by {name}" + ("; was there memory enough?" if name == "SIGKILL" else ""))


def be_rank(config: Config, command: str) -> int:
    """What one process of several does; its exit code."""
    return ended(lambda: train(config, command))


def require_trusted(config: Config) -> None:
    """A run that goes on, and that nobody vouches for, may name nothing that is not ours; told once, before ranks are started."""
    from rich.console import Console

    with importing(Console()):
        from cnnbench.runs.trust import require_known, require_present

        require_known(Path(config.resume), config)
        require_present(Path(config.resume), config)


def importing(console: Console) -> AbstractContextManager[Any]:
    """Says on a terminal why nothing is seen yet."""
    return console.status("importing torch and Lightning") if console.is_terminal else nullcontext()


def resumes(config: Config) -> bool:
    """Whether it names a run directory to go on with."""
    return config.resume not in ("never", "auto")


def split_arguments(arguments: list[str]) -> tuple[list[str], Path | None, Namespace]:
    """`key=value` overrides, the folder after `--config-dir`, and whether there are `--trust` and `--multirun`."""
    parser = argparse.ArgumentParser(prog="python -m cnnbench", add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config-dir", type=Path)
    parser.add_argument("--trust", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    try:
        flags, overrides = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error}; type python -m cnnbench --help") from error
    unknown = [argument for argument in overrides if argument.startswith("-")]
    if unknown:
        raise ConfigError(
            f"{unknown[0]}: no such flag; keys are typed as key=value, flags are --config-dir DIR, --trust and --help"
        )
    if flags.multirun and flags.trust:
        raise ConfigError("--trust: goes with resume=RUN_DIR; a sweep loads no run's config")
    return overrides, flags.config_dir, flags


def resumed_or_composed(overrides: list[str], config_dir: Path | None) -> Config:
    """The config of the overrides; with `resume=RUN_DIR` that of the run, which no other key may change."""
    from_run = [
        o.partition("=")[2] for o in overrides if o.startswith("resume=") and o not in ("resume=auto", "resume=never")
    ]
    if not from_run:
        return compose(overrides, config_dir)
    if len(overrides) > 1:
        other = next(o for o in overrides if not o.startswith("resume="))
        raise ConfigError(
            f"{other}: a resumed run keeps its own config; type resume={from_run[0]} alone, or start anew without it"
        )
    from cnnbench.config.schema import Config

    directory = RunDir.open(Path(from_run[0].strip("'\"")))
    frozen = Config.load(directory.config)
    return frozen.model_copy(update={"resume": str(directory.path)})


def show(result: dict[str, Any], directory: RunDir, console: Any) -> None:
    """The result as a small table, and how to go on."""
    from rich.table import Table

    from cnnbench.stats import wilson

    metrics, n = result["metrics"], result["n"]
    table = Table("", "accuracy", "loss", "images", "95 % interval of the accuracy", box=None, padding=(0, 2, 0, 0))
    for name, kind in {"": "", ", ema": "ema_"}.items():
        if f"test/{kind}acc" not in metrics:
            continue
        accuracy = metrics[f"test/{kind}acc"]
        _, (low, high) = wilson(round(accuracy * n["test"]), n["test"])
        best = (f"{metrics[f'best/val/{kind}acc']:.4f}", f"{metrics[f'best/val/{kind}loss']:.4f}")
        table.add_row(f"validation{name}", *best, f"{n['val']:,}")
        test = (f"{accuracy:.4f}", f"{metrics[f'test/{kind}loss']:.4f}", f"{n['test']:,}")
        table.add_row(f"test{name}", *test, f"{low:.4f} to {high:.4f}", style="bold")
    console.print()
    console.print(table)
    console.print(
        f"best epoch {result['best_epoch']}, {result['time']['fit_s']:.1f} s, {result['samples_per_s']:,.0f} images/s, "
        f"{result['params']:,} parameters\n",
        soft_wrap=True,
        highlight=False,
    )
    path, trust = shlex.quote(str(directory.path)), trust_flag(directory.path)
    for what, text in {
        "curves": f"{path}/curves.png",
        "score again": f"python -m cnnbench evaluate {path}{trust}",
        "ask it": f"python -m cnnbench predict {path} IMAGE{trust}",
        "watch": f"tensorboard --logdir {shlex.quote(str(directory.path.parent.parent))}",
    }.items():
        console.print(f"{what:<12}{text}", soft_wrap=True, highlight=False, markup=False)
