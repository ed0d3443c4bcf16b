"""`--help`, `--version` and `list`: what there is, read from `conf/` without Hydra."""

from __future__ import annotations

import textwrap
from pathlib import Path

from cnnbench.cli.parser import Parser
from cnnbench.config.compose import conf_dir, groups
from cnnbench.errors import ConfigError, did_you_mean

USAGE = """\
python -m cnnbench [key=value ...]              train one run, test it once, write runs/<name>/<job>/
python -m cnnbench -m key=a,b seed=0,1,2        train a run for each combination, several at a time: a sweep; again: what is left of it
python -m cnnbench plan -m key=a,b ...          what a sweep would do: jobs, what is done already, time, memory, confounds
python -m cnnbench status runs/NAME             how a sweep stands, from any shell, at any time; --watch
python -m cnnbench report runs/NAME             what the runs show and how sure one may be: a page, tables, pictures; --text: here
python -m cnnbench evaluate RUN_DIR             score a saved run, also on another split or data set
python -m cnnbench compare A B                  two sweeps or runs: what became better or worse, how surely, what differs; --fail-if-worse
python -m cnnbench reproduce RUN_DIR            run it again: equal to the bit, or within the spread of the seeds?
python -m cnnbench predict RUN_DIR IMAGE ...    the likeliest classes of any pictures
python -m cnnbench info [key=value ...]         a net's layers: parameters, multiply-adds, receptive fields; --all compares nets
python -m cnnbench features RUN_DIR IMAGE       what a layer of a saved run makes of a picture, drawn
python -m cnnbench fetch SET ...                download data sets, check those that are there
python -m cnnbench preview [key=value ...]      a sheet of training images as loaded and as augmented, class counts, mean
python -m cnnbench ops                          the textbooks' worked examples on hand-written operators
python -m cnnbench list [GROUP]                 the choices of every group, or of one
tensorboard --logdir runs                       the same runs, live

A command's own --help tells its flags. --config-dir DIR adds a conf folder of yours. HYDRA_FULL_ERROR=1 shows tracebacks.
--trust, with a RUN_DIR that is yours, lets its config name more than cnnbench, torch and torchvision: a net of your own, say.

for instance
  python -m cnnbench
  python -m cnnbench model=simplecnn data=cifar10 optimizer=momentum optimizer.lr=0.05 epochs=20 seed=1
  python -m cnnbench model=custom model._target_=mypkg.MyNet +model.depth=3
  python -m cnnbench -m model=plain18,resnet18 optimizer.lr=0.01,0.1 seed=range(5)
  python -m cnnbench -m experiment=demo
  python -m cnnbench resume=runs/lenet5_mnist5k/seed0_1a2b3c4d

exit codes: 0 done, 1 a check said no or a bug, 2 wrong configuration or data, nothing ran, 3 a run failed, diverged, 130/143 Ctrl-C/SIGTERM
"""


def usage(arguments: list[str]) -> None:
    """Prints commands, groups and keys."""
    print(USAGE)
    print("groups (choices; the default is marked *)")
    defaults = _defaults()
    for group, choices in groups().items():
        marked = [f"{choice}*" if choice == defaults.get(group) else choice for choice in choices]
        print(textwrap.fill(" ".join(marked), 118, initial_indent=f"  {group:<12}", subsequent_indent=" " * 14))
    print("\nkeys (and their defaults)")
    for line in _keys(conf_dir() / "config.yaml"):
        print(f"  {line}")
    print("  keys of a sweep:")
    for line in _keys_below(conf_dir() / "config.yaml", "sweep"):
        print(f"  sweep.{line}")
    print("  keys of data:")
    for line in _keys(conf_dir() / "data_keys.yaml"):
        print(f"  data.{line}")
    print("  keys of trainer:")
    for line in _keys(conf_dir() / "trainer" / "auto.yaml"):
        print(f"  trainer.{line}")


def version(arguments: list[str]) -> None:
    """Prints the version."""
    from cnnbench import __version__

    print(f"cnnbench {__version__}")


def main(arguments: list[str]) -> None:
    """Prints every choice with the first line of its file."""
    parser = Parser("list", "The choices of every config group, with what each is.")
    parser.add_argument("group", nargs="?", metavar="GROUP", help="one group only, as in: list model")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a conf folder of yours besides")
    options = parser.parse_args(arguments)
    found = groups(options.config_dir)
    if options.group and options.group not in found:
        raise ConfigError(
            f"list {options.group}: no such group{did_you_mean(options.group, found) or ';'} groups: {', '.join(found)}"
        )
    for group in [options.group] if options.group else found:
        print(group)
        width = max(map(len, found[group]))
        for choice, path in found[group].items():
            print(f"  {choice:<{width}}  {_headline(path)}")


def _headline(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line), "")


def _keys(path: Path) -> list[str]:
    """The file's `key: value   # comment` lines at its outermost level."""
    lines = path.read_text(encoding="utf-8").splitlines()
    keys = [line for line in lines if line and line[0].isalpha() and not line.startswith(("defaults:", "sweep:"))]
    return [f"{line.partition(':')[0]}={line.partition(':')[2].strip()}" for line in keys]


def _keys_below(path: Path, group: str) -> list[str]:
    """The same of the keys in a group of the file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(f"{group}:"))
    keys = [line.strip() for line in lines[begin + 1 :] if line.startswith("  ")]
    return [f"{line.partition(':')[0]}={line.partition(':')[2].strip()}" for line in keys]


def _defaults() -> dict[str, str]:
    lines = (conf_dir() / "config.yaml").read_text(encoding="utf-8").splitlines()
    pairs = [line.strip("- ").split("#")[0].partition(":") for line in lines if line.startswith("  - ")]
    return {group: choice.strip() for group, _, choice in pairs}
