"""`python -m cnnbench reproduce RUN_DIR`: runs a finished run again, and says whether it came out the same."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from cnnbench.cli.parser import Parser
from cnnbench.cli.train import importing, require_trusted, train, train_on_ranks
from cnnbench.config.schema import Config
from cnnbench.distributed.ranks import placed
from cnnbench.errors import ConfigError, Interrupted, SaidElsewhere
from cnnbench.files import write_atomic
from cnnbench.runs.commands import resume_command
from cnnbench.runs.run_dir import RunDir
from cnnbench.text import NAME

if TYPE_CHECKING:
    from cnnbench.report.analysis.reproducibility import Repeated

PLACES = ("data.root", "runs_dir")  # all that may be another
SHOWN = 12  # differences


def main(arguments: list[str]) -> int:
    """Runs it again; 0 where it came out equal, or within the spread of the seeds; else 1."""
    parser = Parser(
        "reproduce",
        "Runs a finished run again, with its frozen config, in a new directory beside it. Exit code 0: equal to the bit, or the test "
        "accuracies, before and now, lie where 95 % of new runs would by the other finished seeds of the cell; 1: neither.",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="of a finished run")
    parser.add_argument(
        "places", nargs="*", metavar="KEY=FOLDER", help="data.root: where its data lie here; runs_dir: where to write"
    )
    parser.add_trust()
    options = parser.parse_args(arguments)
    before = finished(options.run_dir)
    config = placed_here(before, options.places)
    if not options.trust:
        require_trusted(config.model_copy(update={"resume": str(before.path)}))
    now = repeat(before, config, shlex.join(["python", "-m", "cnnbench", "reproduce", *arguments]))
    from cnnbench.report.analysis.reproducibility import repeated

    found = repeated(before, now)
    show(found, Console())
    return 0 if found.equal or found.within else 1


def finished(path: Path) -> RunDir:
    """A run that has a result.

    Raises:
        ConfigError: it has none.
    """
    run = RunDir.open(path)
    if not run.result.is_file():
        raise ConfigError(
            f"{path}: is not finished ({run.found()['state']}), there is nothing to compare with; "
            f"finish it first: {resume_command(run.path)}"
        )
    run.outcome()
    return run


def placed_here(run: RunDir, places: list[str]) -> Config:
    """The frozen config of a run, to be run beside it, or where `data.root=FOLDER` and `runs_dir=FOLDER` say."""
    config = Config.load(run.config)
    typed = {place.partition("=")[0]: place.partition("=")[2].strip("'\"") for place in places}
    other = next(
        (place for place in places if place.partition("=")[0] not in PLACES or not place.partition("=")[2]), None
    )
    if other:
        raise ConfigError(
            f"{other}: a repeated run keeps its own config; data.root=FOLDER and runs_dir=FOLDER may be typed"
        )
    if config.trainer.num_nodes > 1 or placed()[1] > 1:
        raise ConfigError(
            f"{run.path}: repeating takes one machine and one command; this run has trainer.num_nodes={config.trainer.num_nodes}"
        )
    folder = run.path.resolve().parent
    runs_dir, name = folder.parent, folder.name
    if "runs_dir" in typed:
        runs_dir, name = Path(typed["runs_dir"]), config.name
    elif not NAME.fullmatch(name):
        raise ConfigError(f"{folder}: no folder's name that runs are put under; type runs_dir=FOLDER besides")
    if runs_dir.is_relative_to(Path.cwd()):
        runs_dir = runs_dir.relative_to(Path.cwd())
    if not Path(typed.get("data.root", ".")).is_dir():
        raise ConfigError(f"data.root={typed['data.root']}: there is no such folder")
    root = str(Path(typed.get("data.root", config.data.root)).resolve())
    data = config.data.model_copy(update={"root": root})
    return config.model_copy(update={"data": data, "runs_dir": str(runs_dir), "name": name, "resume": "never"})


def repeat(before: RunDir, config: Config, command: str) -> RunDir:
    """Trains and tests it in a directory of its own, or goes on with an unfinished repetition."""
    from cnnbench.distributed.fork_server import elsewhere

    several = config.trainer.devices > 1
    earlier = unfinished(before, config)
    with importing(Console()):
        elsewhere(check, config, before.path) if several else check(config, before.path)
    folder = Path(config.runs_dir) / config.name
    now = earlier or RunDir.claim(folder, stem(before))
    if earlier is None:
        write_atomic(now.config, config.dump())
    config = config.model_copy(update={"resume": str(now.path)})
    code = 0
    try:
        if several:
            code = train_on_ranks(config, command)
        else:
            train(config, command)
    except Interrupted as error:
        raise to_go_on(now, command, error.signum) from error
    if code > 128:
        raise to_go_on(now, command, code - 128)
    if code:
        raise SaidElsewhere(code)
    return now


def to_go_on(run: RunDir, command: str, signum: int) -> Interrupted:
    """What is said of a repetition that was stopped."""
    return Interrupted(f"{run.path}: stopped. To go on, type the same again: {command}", signum)


def check(config: Config, run: Path, progress: Callable[..., None] | None = None) -> None:
    """Whether a frozen config can be run here as it was; needs torch.

    Raises:
        ConfigError: it cannot.
    """
    import torch

    from cnnbench.training.validate import prepare

    if config.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError(f"{run}: was trained on a GPU, and PyTorch sees none here; repeat it where there is one")
    if prepare(config).config.identity() != config.identity():
        raise ConfigError(
            f"{run}: the files in {config.data.root} are not those that it was trained on; restore them, or name the folder of "
            "those with data.root=FOLDER"
        )


def unfinished(before: RunDir, config: Config) -> RunDir | None:
    """The newest repetition that was begun with this config and is not at its end.

    Raises:
        ConfigError: it is on.
    """
    folder, name = Path(config.runs_dir) / config.name, re.compile(rf"{re.escape(stem(before))}-(\d+)")
    numbered = {int(found[1]): path for path in folder.glob("*") if (found := name.fullmatch(path.name))}
    for _, path in sorted(numbered.items(), reverse=True):
        run = RunDir(path)
        if run.found()["state"] not in ("pending", "running", "interrupted") or not run.config.is_file():
            continue
        if Config.load(run.config).model_copy(update={"runs_dir": config.runs_dir}) != config:
            continue
        if owner := run.owner():
            raise ConfigError(f"{path}: this repetition is on ({owner}); wait for it")
        return run
    return None


def stem(run: RunDir) -> str:
    """A directory's name without the number of a second go."""
    return re.sub(r"(_[0-9a-f]{8})-\d+$", r"\1", run.path.resolve().name)


def show(found: Repeated, console: Console) -> None:
    """The verdict, what differs, why that may be."""

    def line(text: str, style: str | None = None) -> None:
        console.print(text, style=style, soft_wrap=True, highlight=False, markup=False)

    console.print()
    if found.equal:
        line(f"equal: {found.compared}, bit for bit", "bold green")
        for reason in found.reasons:
            line(f"  although {reason}", "dim")
        return
    was, now = ("none" if value is None else f"{value:.4f}" for value in found.accuracy)
    style = "bold yellow" if found.within else "bold red"
    line(f"{found.verdict}: test accuracy {was}, now {now}; {found.spread.told()}", style)
    line(f"not equal to the bit, compared were {found.compared}:")
    more = [f"and {len(found.differences) - SHOWN} more"] if len(found.differences) > SHOWN else []
    for text in [*found.differences[:SHOWN], *more]:
        line(f"  {text}")
    line(
        "likely because of:"
        if found.reasons
        else "same code, packages and machine: nothing that is recorded explains it"
    )
    for reason in found.reasons:
        line(f"  {reason}")
