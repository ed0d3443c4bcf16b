"""`cnnbench [key=value ...]`: composes a config, trains it, prints the result and the next commands."""

from __future__ import annotations

import shlex
import signal
from argparse import Namespace
from pathlib import Path

from cnnbench.cli.parser import Parser
from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.console import Console, plain_table, print_plain
from cnnbench.distributed.ranks import rank_and_world_size, require_world_size
from cnnbench.distributed.signals import interruptible
from cnnbench.errors import PROGRAM, ConfigError, Diverged, Interrupted, ReportedByOtherRank, RunFailed, exit_code_of
from cnnbench.runs.commands import trust_flag
from cnnbench.runs.environment import require_cores
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.schema import Result

IMPORTING = "importing torch and Lightning"  # takes seconds; shown on a terminal


def main(arguments: list[str], command: str) -> int:
    """Runs `key=value` arguments as one run, or with `-m` as a sweep; returns the exit code."""
    overrides, flags = split_arguments(arguments)
    if flags.multirun:
        from cnnbench.cli.sweep import main as sweep

        return sweep(overrides, flags.config_dir, command)
    with interruptible():
        return run_once(overrides, flags, command)


def run_once(overrides: list[str], flags: Namespace, command: str) -> int:
    """Runs the overrides as one run, in this process or on several ranks; returns the exit code."""
    config = resumed_or_composed(overrides, flags.config_dir)  # raises ConfigError before torch is imported
    if flags.trust and not is_resumed(config):
        raise ConfigError("--trust: goes with resume=RUN_DIR; what you type yourself needs none")
    if is_resumed(config) and not flags.trust and not RunDir(Path(config.resume)).result.is_file():
        require_trusted(config)
    _, started = rank_and_world_size()
    if started == 1 and config.trainer.devices > 1 and config.trainer.num_nodes == 1:
        require_cores(config.trainer.devices)
        return train_on_ranks(config, command)
    require_world_size(config, started)
    train(config, command)
    return 0


def train(config: Config, command: str) -> None:
    """Trains in this process, alone or as one of several ranks; rank zero prints the result."""
    rank, _ = rank_and_world_size()
    console = Console(quiet=rank > 0)
    earlier = RunDir(Path(config.resume))
    if is_resumed(config) and earlier.result.is_file():
        result = earlier.load_result()
        if rank == 0 and earlier.owner() is None:
            earlier.repair()
        print_plain(console, f"{earlier.path}: is done already")
        print_result(result, earlier, console)
        return
    with console.status(IMPORTING):
        from cnnbench.training.run import run
    try:
        outcome = run(config, command, console)
    except (Diverged, Interrupted) as error:  # raised by all ranks after the same step
        raise error if rank == 0 else ReportedByOtherRank(error.exit_code) from error
    if not outcome.fresh:
        print_plain(console, f"{outcome.directory.path}: is done already")
    print_result(outcome.result, outcome.directory, console)


def train_on_ranks(config: Config, command: str) -> int:
    """Trains in one process per device; returns the exit code."""
    from cnnbench.distributed import signals
    from cnnbench.distributed.fork_server import RankProcesses

    console = Console()
    ranks = RankProcesses(run_rank, (config, command), config.trainer.devices)
    with signals.handled_by(ranks.forward):
        with console.status(IMPORTING):
            ranks.start()
        code = ranks.wait()
    if code >= 0:
        return code
    name = signal.Signals(-code).name
    if -code in signals.STOP_SIGNALS:
        raise Interrupted(f"stopped by {name}", -code)
    raise (
        ReportedByOtherRank(RunFailed.exit_code)
        if ranks.reported
        else RunFailed(f"a rank was {signals.killed_by(-code)}")
    )


def run_rank(config: Config, command: str) -> int:
    """Runs one of several ranks; returns its exit code."""
    return exit_code_of(lambda: train(config, command))


def require_trusted(config: Config) -> None:
    """Checks, before ranks are started, that a resumed run names no code from outside cnnbench, torch and torchvision.

    Raises:
        Untrusted: the config names such code, loads weights of others, or lacks files in its data folder.
    """
    with Console().status(IMPORTING):
        from cnnbench.runs.trust import require_data_folder, require_no_loaded_weights, require_trusted_parts

        require_trusted_parts(Path(config.resume), config)
        require_no_loaded_weights(Path(config.resume), config)
        require_data_folder(Path(config.resume), config)


def is_resumed(config: Config) -> bool:
    """Whether `resume` names a run directory."""
    return config.resume not in ("never", "auto")


def split_arguments(arguments: list[str]) -> tuple[list[str], Namespace]:
    """The `key=value` overrides, and the flags: `config_dir`, a folder or None, `trust` and `multirun`.

    Raises:
        ConfigError: a flag is unknown, or `--trust` came with `-m`.
    """
    parser = Parser("", "", add_help=False)
    parser.add_config_dir()
    parser.add_trust()
    parser.add_argument("-m", "--multirun", action="store_true")
    flags, overrides = parser.parse_known_args(arguments)
    for argument in overrides:
        if argument.startswith("-"):
            raise ConfigError(
                f"{argument}: no such flag; keys are typed as key=value, flags are --config-dir DIR, --trust and --help"
            )
    if flags.multirun and flags.trust:
        raise ConfigError("--trust: goes with resume=RUN_DIR; a sweep loads no run's config")
    return overrides, flags


def resumed_or_composed(overrides: list[str], config_dir: Path | None) -> Config:
    """The config of the overrides; with `resume=RUN_DIR` the config of that run.

    Raises:
        ConfigError: the overrides are wrong, or a resumed run is given another key.
    """
    from_run = [o for o in overrides if o.startswith("resume=") and o not in ("resume=auto", "resume=never")]
    if not from_run:
        return compose(overrides, config_dir)
    typed = from_run[0].removeprefix("resume=")
    if len(overrides) > 1:
        other = next(o for o in overrides if not o.startswith("resume="))
        raise ConfigError(
            f"{other}: a resumed run keeps its own config; type resume={typed} alone, or start a new run without it"
        )
    directory = RunDir.open(Path(typed.strip("'\"")))
    return Config.load(directory.config).model_copy(update={"resume": str(directory.path)})


def print_result(result: Result, directory: RunDir, console: Console) -> None:
    """Prints accuracy, loss and the accuracy's 95 % interval as a table, and the commands to type next."""
    from cnnbench.stats import wilson

    def text(value: float | None, form: str = ".4f") -> str:
        return "" if value is None else f"{value:{form}}"  # a run from somebody else may lack it

    table = plain_table("", "accuracy", "loss", "images", "95 % interval of the accuracy")
    for name, kind in {"": "", ", ema": "ema_"}.items():
        accuracy, tested = result.metric(f"test/{kind}acc"), result.n.get("test")
        if accuracy is None:
            continue
        interval = wilson(round(accuracy * tested), tested)[1] if tested else ()
        best = [text(result.metric(f"best/val/{kind}{metric}")) for metric in ("acc", "loss")]
        table.add_row(f"validation{name}", *best, text(result.n.get("val"), ","))
        loss = text(result.metric(f"test/{kind}loss"))
        table.add_row(
            f"test{name}", text(accuracy), loss, text(tested, ","), " to ".join(map(text, interval)), style="bold"
        )
    console.print()
    console.print(table)
    facts = {
        f"best epoch {result.best_epoch}": result.best_epoch,
        f"{text(result.fit_s, '.1f')} s": result.fit_s,
        f"{text(result.samples_per_s, ',.0f')} images/s": result.samples_per_s,
        f"{text(result.params, ',')} parameters": result.params,
    }
    print_plain(console, ", ".join(fact for fact, value in facts.items() if value is not None))
    console.print()
    path, trust = shlex.quote(str(directory.path)), trust_flag(directory.path)
    for what, line in {
        "curves": f"{path}/curves.png",
        "evaluate": f"{PROGRAM} evaluate {path}{trust}",
        "predict": f"{PROGRAM} predict {path} IMAGE{trust}",
        "tensorboard": f"tensorboard --logdir {shlex.quote(str(directory.path.parent.parent))}",
    }.items():
        print_plain(console, f"{what:<12}{line}")
