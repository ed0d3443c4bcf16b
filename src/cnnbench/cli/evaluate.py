"""`cnnbench evaluate RUN_DIR`: scores the net of a run, also on another split or data set."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from cnnbench.cli.parser import Parser
from cnnbench.config.schema import Config
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.trust import require_data_folder, require_trusted_parts

if TYPE_CHECKING:
    from cnnbench.training.evaluate import Evaluation


def main(arguments: list[str]) -> None:
    """Scores the net and prints the result."""
    parser = Parser("evaluate", "Scores a saved run on a split of its data set, or of another one of the same shape.")
    parser.add_path("run_dir", "RUN_DIR", "a folder with config.yaml and checkpoints/best.ckpt")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: test")
    parser.add_argument(
        "--tta",
        metavar="VIEWS",
        help="average the predictions over views of each image: scales=S,S,... (pixels a side), flips, or both, with a comma between",
    )
    parser.add_switch("--json", "print the result as JSON")
    parser.add_ema()
    parser.add_trust()
    parser.add_overrides("another data set; default: the run's own", "data=NAME data.key=value")
    options = parser.parse_args(arguments)
    if options.tta is not None:
        from cnnbench.augment.test_time import TestTimeViews

        TestTimeViews.parse(options.tta)  # reports a mistake before anything is read
    directory = RunDir.open(options.run_dir)
    config = Config.load(directory.config)
    if not options.trust:
        require_trusted_parts(directory.path, config)
        if not any(typed.startswith(("data=", "data.root=")) for typed in options.overrides):
            require_data_folder(directory.path, config)
    from cnnbench.training.evaluate import evaluate, with_data_overrides

    config = with_data_overrides(config, options.overrides, options.config_dir)
    found = evaluate(directory, config, options.split, options.tta, options.trust, options.ema)
    if options.json:
        print(json.dumps(asdict(found), indent=2))
    else:
        print_evaluation(found)


def print_evaluation(found: Evaluation) -> None:
    """Prints accuracy, loss and calibration error, and a table of the classes."""
    from cnnbench.console import Console, plain_table, plain_text, print_plain

    low, high = found.interval
    averaged = f", averaged over {found.tta}" if found.tta else ""
    weights = ", averaged weights" if found.ema else ""
    console = Console()
    print_plain(
        console,
        f"{found.run} on {found.data}, {found.split}, {found.n:,} images{averaged}{weights}",
        "bold",
    )
    print_plain(console, f"accuracy {found.acc:.4f} (95 % interval {low:.4f} to {high:.4f})  loss {found.loss:.4f}")
    print_plain(console, f"calibration error {found.ece:.4f}")
    table = plain_table("class", "images", "accuracy", "most often mistaken for")
    for label, (name, acc, row) in enumerate(zip(found.classes, found.per_class, found.confusion, strict=True)):
        wrong = {other: count for other, count in enumerate(row) if other != label and count}
        worst = max(wrong, key=wrong.__getitem__, default=None)
        mistaken = "" if worst is None else f"{found.classes[worst]} ({wrong[worst]})"
        table.add_row(plain_text(name), f"{sum(row):,}", "" if acc is None else f"{acc:.4f}", plain_text(mistaken))
    console.print(table)
