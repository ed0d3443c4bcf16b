"""`python -m cnnbench [key=value ...]`: composes, trains, shows what came out and what to type next."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.compose import compose
from cnnbench.errors import ConfigError
from cnnbench.rundir import RunDir

if TYPE_CHECKING:
    from cnnbench.config import Config


def main(arguments: list[str], command: str) -> None:
    """Trains what the arguments say."""
    overrides, config_dir = split_arguments(arguments)
    config = resumed_or_composed(overrides, config_dir)  # mistakes are told here, before torch is imported

    from rich.console import Console

    console = Console()
    earlier = RunDir(Path(config.resume))
    if config.resume not in ("never", "auto") and earlier.result.is_file():
        console.print(f"{earlier.path}: is done already", soft_wrap=True, highlight=False, markup=False)
        show(json.loads(earlier.result.read_text(encoding="utf-8")), earlier, console)
        return
    with console.status("importing torch and Lightning") if console.is_terminal else _nothing():
        from cnnbench.train import run
    outcome = run(config, command, console)
    if not outcome.fresh:
        console.print(f"{outcome.directory.path}: is done already", soft_wrap=True, highlight=False, markup=False)
    show(outcome.result, outcome.directory, console)


def split_arguments(arguments: list[str]) -> tuple[list[str], Path | None]:
    """`key=value` overrides, and the folder after `--config-dir`."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m cnnbench", add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config-dir", type=Path)
    parser.add_argument("-m", "--multirun", action="store_true")
    try:
        flags, overrides = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error}; type python -m cnnbench --help") from error
    unknown = [argument for argument in overrides if argument.startswith("-")]
    if unknown:
        raise ConfigError(
            f"{unknown[0]}: no such flag; keys are typed as key=value, flags are --config-dir DIR and --help"
        )
    if flags.multirun:
        raise ConfigError("-m: this version trains one run at a time; type one command for each value")
    return overrides, flags.config_dir


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
    from cnnbench.config import Config

    directory = RunDir.open(Path(from_run[0].strip("'\"")))
    frozen = Config.load(directory.config)
    return frozen.model_copy(update={"resume": str(directory.path)})


def show(result: dict[str, Any], directory: RunDir, console: Any) -> None:
    """The result as a small table, and how to go on."""
    from rich.table import Table

    from cnnbench.report.stats import wilson

    metrics, n = result["metrics"], result["n"]
    _, (low, high) = wilson(round(metrics["test/acc"] * n["test"]), n["test"])
    table = Table("", "accuracy", "loss", "images", "95 % interval of the accuracy", box=None, padding=(0, 2, 0, 0))
    table.add_row("validation", f"{metrics['best/val/acc']:.4f}", f"{metrics['best/val/loss']:.4f}", f"{n['val']:,}")
    table.add_row(
        "test",
        f"{metrics['test/acc']:.4f}",
        f"{metrics['test/loss']:.4f}",
        f"{n['test']:,}",
        f"{low:.4f} to {high:.4f}",
        style="bold",
    )
    console.print()
    console.print(table)
    console.print(
        f"best epoch {result['best_epoch']}, {result['time']['fit_s']:.1f} s, {result['samples_per_s']:,.0f} images/s, "
        f"{result['params']:,} parameters\n",
        soft_wrap=True,
        highlight=False,
    )
    path = shlex.quote(str(directory.path))
    for what, text in {
        "curves": f"{path}/curves.png",
        "score again": f"python -m cnnbench evaluate {path}",
        "ask it": f"python -m cnnbench predict {path} IMAGE",
        "watch": f"tensorboard --logdir {shlex.quote(str(directory.path.parent.parent))}",
    }.items():
        console.print(f"{what:<12}{text}", soft_wrap=True, highlight=False, markup=False)


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()
