"""`python -m cnnbench fetch SET ...`: brings data sets here, checks what is here already, and mends it."""

from __future__ import annotations

from pathlib import Path

from cnnbench.arguments import Parser
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
    options = parser.parse_args(arguments)
    failures = []
    for name in dict.fromkeys(options.sets):
        try:
            fetch_set(name, options.root)
        except DataError as error:
            failures.append(str(error))
    if failures:
        raise DataError("\n".join(failures))


def fetch_set(name: str, root: Path | None) -> None:
    """Brings one set, and says what it is and where it lies."""
    from cnnbench.build import locate
    from cnnbench.compose import compose
    from cnnbench.prepare import build_data

    if "=" in name:
        raise ConfigError(f"{name}: fetch takes the names of sets, as in fetch {name.partition('=')[2] or 'cifar10'}")
    config = compose([f"data={name}", *([f"data.root='{root}'"] if root else [])])
    if not getattr(locate(config.data, "data"), "remotes", ()):
        print(f"{name}: needs no download")
        return
    data = build_data(config)
    data.mend()
    data.prepare_data()
    print(f"{name}: {data.count('train'):,} + {data.count('test'):,} images in {data.folder}")
    print(f"    {data.origin}; licence: {data.licence}")
