"""`python -m cnnbench fetch SET ...`: brings data sets here, checks what is here already, and mends it."""

from __future__ import annotations

from pathlib import Path

from cnnbench.cli.parser import Parser
from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError, DataError


def main(arguments: list[str]) -> None:
    """Fetches or checks each set, one after the other; one that fails does not keep the others from coming."""
    parser = Parser("fetch", "Downloads data sets, checks those that are there, and replaces files that are corrupt.")
    parser.add_argument(
        "sets", nargs="+", metavar="SET", help="as in data=SET; `python -m cnnbench list data` names them"
    )
    parser.add_argument(
        "--root", type=Path, help="the folder for them, as data.root; default: $CNNBENCH_DATA or a per-user cache"
    )
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a conf folder of yours besides")
    options = parser.parse_args(arguments)
    configs = {
        name: _config(name, options.config_dir) for name in options.sets
    }  # a misspelt name is told before anything comes
    failures = []
    for name, config in configs.items():
        try:
            fetch_set(name, config, options.root)
        except DataError as error:
            failures.append(str(error))
    if failures:
        raise DataError("\n".join(failures))


def fetch_set(name: str, config: Config, root: Path | None) -> None:
    """Brings one set, and says what it is and where it lies."""
    from cnnbench.config.instantiate import locate
    from cnnbench.training.factories import build_data

    if not getattr(locate(config.data, "data"), "remotes", ()):
        print(f"{name}: needs no download")
        return
    keys = config.data.model_copy(update={"root": str(root)}) if root else config.data
    data = build_data(config.model_copy(update={"data": keys}))
    data.mend()
    data.prepare_data()
    print(f"{name}: {data.count('train'):,} + {data.count('test'):,} images in {data.folder}")
    print(f"    {data.origin}; licence: {data.licence}")


def _config(name: str, config_dir: Path | None) -> Config:
    if "=" in name:
        raise ConfigError(f"{name}: fetch takes the names of sets, as in fetch {name.partition('=')[2] or 'cifar10'}")
    return compose([f"data={name}"], config_dir)
