"""`--help`, `--version` and `list`: prints commands, groups, choices and keys; reads `conf/` without Hydra."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from cnnbench.cli.parser import Parser
from cnnbench.config.compose import conf_dir, groups
from cnnbench.errors import PROGRAM, ConfigError, did_you_mean
from cnnbench.files import read_text

USAGE = f"""\
{PROGRAM} [key=value ...]              train one run, test it once, write runs/<name>/<job>/
{PROGRAM} -m key=a,b seed=0,1,2        a sweep: train each combination, several at a time; the same again finishes it
{PROGRAM} plan -m key=a,b ...          what a sweep would do: jobs, finished jobs, time, memory, confounds
{PROGRAM} status runs/NAME             the progress of a sweep, from any shell, at any time; --watch
{PROGRAM} report runs/NAME             the answer of a sweep, with intervals: page, tables, figures; --text prints it
{PROGRAM} evaluate RUN_DIR             evaluate a saved run, also on another split or data set
{PROGRAM} compare A B                  two sweeps or runs: differences with intervals, config differences; --fail-if-worse
{PROGRAM} merge A B                    two folders of one sweep, as two machines made them with sweep.part: adds the runs of B to A
{PROGRAM} clean DIR                    what takes room on the disk; --yes deletes what finished runs no longer need, no results
{PROGRAM} reproduce RUN_DIR            repeat a run: is the result bit-equal, or within the spread of the seeds?
{PROGRAM} predict RUN_DIR IMAGE ...    the most probable classes of image files
{PROGRAM} info [key=value ...]         a net's layers: parameters, multiply-adds, receptive fields; --all compares nets
{PROGRAM} features RUN_DIR IMAGE       a figure of a layer's feature maps for an image
{PROGRAM} fetch SET ...                download data sets, verify those already there
{PROGRAM} preview [key=value ...]      a sheet of training images, raw and augmented; class counts, mean
{PROGRAM} ops                          the textbooks' worked examples on hand-written operators
{PROGRAM} list [GROUP]                 the choices of every group, or of one
tensorboard --logdir runs             the same runs, live

COMMAND --help lists its flags. --config-dir DIR adds your own conf folder. HYDRA_FULL_ERROR=1 shows tracebacks.
--trust, with a RUN_DIR that you trust, lets its config import more than cnnbench, torch and torchvision, such as your own net.

examples
  {PROGRAM}
  {PROGRAM} model=simplecnn data=cifar10 optimizer=momentum optimizer.lr=0.05 epochs=20 seed=1
  {PROGRAM} model=custom model._target_=mypkg.MyNet +model.depth=3
  {PROGRAM} -m model=plain18,resnet18 optimizer.lr=0.01,0.1 seed=range(5)
  {PROGRAM} -m experiment=demo
  {PROGRAM} resume=runs/lenet5_mnist5k/seed0_1a2b3c4d

exit codes: 0 done; 1 a check failed, or a bug; 2 wrong configuration or data, nothing ran; 3 a run failed or diverged;
            130 Ctrl-C, 143 SIGTERM
"""
# Files with every key of a group, and its default.
KEY_FILES = {"data": "data_keys.yaml", "trainer": "trainer/auto.yaml"}


def usage(arguments: list[str]) -> None:
    """Prints commands, groups with their choices, and keys with their defaults."""
    config = _read(conf_dir() / "config.yaml")
    defaults = dict(re.findall(r"^  - (\w+): *(\w+)", config, re.MULTILINE))
    print(USAGE)
    print("groups (choices; the default is marked *)")
    for group, choices in groups().items():
        marked = [f"{choice}*" if choice == defaults.get(group) else choice for choice in choices]
        print(textwrap.fill(" ".join(marked), 118, initial_indent=f"  {group:<12}", subsequent_indent=" " * 14))
    print("\nkeys (and their defaults)")
    keys, _, sweep_keys = config.partition("\nsweep:")
    _print_keys("", keys)
    print("  keys of a sweep:")
    _print_keys("sweep.", textwrap.dedent(sweep_keys))
    for group, file in KEY_FILES.items():
        print(f"  keys of {group}:")
        _print_keys(f"{group}.", _read(conf_dir() / file))


def version(arguments: list[str]) -> None:
    """Prints the version."""
    from cnnbench import __version__

    print(f"cnnbench {__version__}")


def main(arguments: list[str]) -> None:
    """Prints every choice with the first comment line of its file.

    Raises:
        ConfigError: there is no such group.
    """
    parser = Parser("list", "Lists the choices of every config group, each with one line about it.")
    parser.add_argument("group", nargs="?", metavar="GROUP", help="one group only, as in: list model")
    parser.add_config_dir()
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
            headlines = (line for line in _read(path).splitlines() if line.startswith("#") and "@package" not in line)
            print(f"  {choice:<{width}}  {next(headlines, '').lstrip('# ')}")


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _print_keys(prefix: str, text: str) -> None:
    """Prints the `key: value   # comment` lines of a YAML's outermost level as `key=value   # comment`."""
    for key, value in re.findall(r"^([A-Za-z]\w*):(.*)", text, re.MULTILINE):
        if key != "defaults":
            print(f"  {prefix}{key}={value.strip()}")
