"""`cnnbench fetch SET ...`: downloads data sets, verifies their files and replaces corrupt ones."""

from __future__ import annotations

from pathlib import Path

from cnnbench.cli.parser import Parser
from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.errors import PROGRAM, ConfigError, DataError, SeveralLines
from cnnbench.text import printable


def main(arguments: list[str]) -> None:
    """Downloads or verifies each set; an error in one set is reported after the others are done."""
    parser = Parser("fetch", "Downloads data sets, checks those that are there, and replaces files that are corrupt.")
    parser.add_argument("sets", nargs="+", metavar="SET", help=f"as in data=SET; `{PROGRAM} list data` names them")
    parser.add_path("--root", "ROOT", "the folder for them, as data.root; default: $CNNBENCH_DATA or a per-user cache")
    parser.add_config_dir()
    options = parser.parse_args(arguments)
    configs = {}
    for name in options.sets:  # finds misspelt names before downloading
        if "=" in name:
            raise ConfigError(
                f"{name}: fetch takes the names of sets, as in fetch {name.partition('=')[2] or 'cifar10'}"
            )
        configs[name] = compose([f"data={name}"], options.config_dir)
    failures: list[DataError] = []
    for name, config in configs.items():
        try:
            fetch_set(name, config, options.root)
        except DataError as error:
            failures.append(error)
    if failures:
        raise SeveralLines(*failures)


def fetch_set(name: str, config: Config, root: Path | None) -> None:
    """Downloads or repairs one set, and prints its size, folder, origin and licence.

    Raises:
        DataError: a file cannot be downloaded, or is still wrong afterwards.
    """
    from cnnbench.config.instantiate import locate
    from cnnbench.training.factories import build_data

    if not getattr(locate(config.data, "data"), "remotes", ()):
        print(f"{name}: needs no download")
        return
    keys = config.data.model_copy(update={"root": str(root)}) if root else config.data
    data = build_data(config.model_copy(update={"data": keys}))
    data.repair_files()
    data.prepare_data()
    print(printable(f"{name}: {data.count('train'):,} + {data.count('test'):,} images in {data.folder}"))
    print(f"    {data.origin}; licence: {data.licence}")
