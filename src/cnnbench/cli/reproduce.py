"""`cnnbench reproduce RUN_DIR`: repeats a finished run, and compares the results bit by bit."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.cli.parser import Parser
from cnnbench.cli.train import IMPORTING, require_trusted, train, train_on_ranks
from cnnbench.config.compose import refuse_unused_root
from cnnbench.config.schema import Config
from cnnbench.console import Console, print_plain
from cnnbench.distributed.ranks import rank_and_world_size
from cnnbench.distributed.signals import interruptible
from cnnbench.errors import PROGRAM, ConfigError, Interrupted, ReportedByOtherRank
from cnnbench.files import write_atomic
from cnnbench.runs.commands import resume_command
from cnnbench.runs.run_dir import HASHED, RunDir
from cnnbench.text import NAME

if TYPE_CHECKING:
    from cnnbench.report.analysis.reproducibility import Reproduction

MOVABLE_KEYS = ("data.root", "runs_dir")  # the only keys that may change
MAX_DIFFERENCES = 12  # printed differences


def main(arguments: list[str]) -> int:
    """Repeats a run and prints the comparison.

    Returns:
        The exit code: 0 if the results are bit-equal or within the spread of the seeds, else 1.
    """
    parser = Parser(
        "reproduce",
        "Repeats a finished run with its frozen config, in a new directory next to it. Exit code 0: the results are bit-equal, or "
        "both test accuracies are in the interval of 95 % of new runs, estimated from the other finished seeds of the setting. "
        "Exit code 1: neither.",
    )
    parser.add_path("run_dir", "RUN_DIR", "directory of a finished run")
    parser.add_argument(
        "places",
        nargs="*",
        metavar="KEY=FOLDER",
        help="data.root: folder of its data on this machine; runs_dir: folder to write to",
    )
    parser.add_trust()
    options = parser.parse_args(arguments)
    before = open_finished_run(options.run_dir)
    config = relocated_config(before, options.places)
    if not options.trust:
        require_trusted(config.model_copy(update={"resume": str(before.path)}))
    with interruptible():
        now = run_repetition(before, config, shlex.join([PROGRAM, "reproduce", *arguments]))
    from cnnbench.report.analysis.reproducibility import compare_with_repetition

    found = compare_with_repetition(before, now)
    print_reproduction(found, Console())
    return 0 if found.equal or found.within else 1


def open_finished_run(path: Path) -> RunDir:
    """Opens a run directory that has a result.

    Raises:
        ConfigError: the run is not finished, or its result is damaged.
    """
    run = RunDir.open(path)
    if not run.result.is_file():
        raise ConfigError(
            f"{path}: is not finished ({run.effective_status().state}), so there is nothing to compare with; "
            f"finish it first: {resume_command(run.path)}"
        )
    run.load_result()
    return run


def relocated_config(run: RunDir, places: list[str]) -> Config:
    """Loads the frozen config of a run, and sets the folders of the repetition.

    The repetition is written next to the run, unless `runs_dir=FOLDER` is typed; its data are those of the run, unless
    `data.root=FOLDER` is typed.

    Args:
        run: the run to repeat.
        places: the typed `KEY=FOLDER` arguments.

    Raises:
        ConfigError: another key is typed, the run takes several machines, or a folder is unfit.
    """
    config = Config.load(run.config)
    typed = {}
    for place in places:
        key, _, folder_name = place.partition("=")
        if key not in MOVABLE_KEYS or not folder_name:
            raise ConfigError(
                f"{place}: a repetition keeps the config of its run; only data.root=FOLDER and runs_dir=FOLDER may be typed"
            )
        typed[key] = folder_name.strip("'\"")
    if config.trainer.num_nodes > 1 or rank_and_world_size()[1] > 1:
        raise ConfigError(
            f"{run.path}: a repetition takes one machine and one command; this run has trainer.num_nodes={config.trainer.num_nodes}"
        )
    folder = run.path.resolve().parent
    runs_dir, name = folder.parent, folder.name
    if "runs_dir" in typed:
        runs_dir, name = Path(typed["runs_dir"]), config.name
    elif not NAME.fullmatch(name):
        raise ConfigError(f"{folder}: not a valid name for a folder of runs; type runs_dir=FOLDER as well")
    if runs_dir.is_relative_to(Path.cwd()):
        runs_dir = runs_dir.relative_to(Path.cwd())
    refuse_unused_root(config, typed.get("data.root", "auto"))
    root = Path(typed.get("data.root", config.data.root))
    if "data.root" in typed and not root.is_dir():
        raise ConfigError(f"data.root={root}: the folder does not exist")
    data = config.data.model_copy(
        update={"root": str(root.resolve()), "typed_root": typed.get("data.root", config.data.typed_root)}
    )
    return config.model_copy(update={"data": data, "runs_dir": str(runs_dir), "name": name, "resume": "never"})


def run_repetition(before: RunDir, config: Config, command: str) -> RunDir:
    """Trains and tests a run again in a new directory, or resumes an unfinished repetition.

    Args:
        before: the run to repeat.
        config: its config with the folders of the repetition.
        command: the typed command, which resumes the repetition after a signal.

    Returns:
        The directory of the repetition.

    Raises:
        ConfigError: the run cannot be repeated here.
        Interrupted: a signal stopped the repetition.
        ReportedByOtherRank: the repetition failed.
    """
    from cnnbench.distributed.fork_server import run_in_subprocess

    several = config.trainer.devices > 1
    earlier = unfinished_repetition(before, config)
    with Console().status(IMPORTING):
        run_in_subprocess(check_repeatable, config, before.path) if several else check_repeatable(config, before.path)
    now = earlier or RunDir.create(Path(config.runs_dir) / config.name, name_without_number(before))
    if earlier is None:
        write_atomic(now.config, config.dump())
    config = config.model_copy(update={"resume": str(now.path)})
    code = 0
    try:
        if several:
            code = train_on_ranks(config, command)
        else:
            train(config, command)
        if code > 128:
            raise Interrupted(f"{now.path}: stopped", code - 128)
    except Interrupted as error:
        raise Interrupted(
            f"{now.path}: stopped. To resume, type the same command again: {command}", error.signum
        ) from error
    if code:
        raise ReportedByOtherRank(code)
    return now


def check_repeatable(config: Config, run: Path, progress: Callable[..., None] | None = None) -> None:
    """Checks that a frozen config can be run on this machine as it was; imports torch.

    Raises:
        ConfigError: there is no GPU although the run used one, or the data files are different.
    """
    import torch

    from cnnbench.training.validate import prepare

    if config.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError(
            f"{run}: was trained on a GPU, but PyTorch finds none on this machine; repeat it on a machine with a GPU"
        )
    if prepare(config).config.identity() != config.identity():
        raise ConfigError(
            f"{run}: the files in {config.data.root} are not those that it was trained on; restore them, or type the folder of "
            "the original files: data.root=FOLDER"
        )


def unfinished_repetition(before: RunDir, config: Config) -> RunDir | None:
    """Finds the newest unfinished repetition with this config.

    Raises:
        ConfigError: the repetition is still running.
    """
    folder, name = Path(config.runs_dir) / config.name, re.compile(rf"{re.escape(name_without_number(before))}-(\d+)")
    numbered = {int(found[1]): path for path in folder.glob("*") if (found := name.fullmatch(path.name))}
    for _, path in sorted(numbered.items(), reverse=True):
        run = RunDir(path)
        if run.effective_status().state not in ("pending", "running", "interrupted") or not run.config.is_file():
            continue
        if Config.load(run.config).model_copy(update={"runs_dir": config.runs_dir}) != config:
            continue
        if owner := run.owner():
            raise ConfigError(f"{path}: this repetition is still running ({owner}); wait for it")
        return run
    return None


def name_without_number(run: RunDir) -> str:
    """The name of a run directory without the number of a repetition: `a_0123abcd` for `a_0123abcd-2`."""
    return HASHED.sub(r"_\1", run.path.resolve().name)


def print_reproduction(found: Reproduction, console: Console) -> None:
    """Prints the verdict, the differences and their possible causes."""
    line = partial(print_plain, console)
    console.print()
    if found.equal:
        line(f"equal: {found.compared}, bit for bit", "bold green")
        for reason in found.reasons:
            line(f"  although {reason}", "dim")
        return
    was, now = ("none" if value is None else f"{value:.4f}" for value in found.accuracy)
    style = "bold yellow" if found.within else "bold red"
    line(f"{found.verdict}: test accuracy {was}, now {now}; {found.spread.sentence()}", style)
    line(f"not bit-equal; compared: {found.compared}:")
    more = [f"and {len(found.differences) - MAX_DIFFERENCES} more"] * (len(found.differences) > MAX_DIFFERENCES)
    for text in found.differences[:MAX_DIFFERENCES] + more:
        line(f"  {text}")
    none = "" if found.reasons else " none is recorded; code, packages and machine are the same"
    line(f"possible causes:{none}")
    for reason in found.reasons:
        line(f"  {reason}")
