"""`python -m cnnbench info [key=value ...]`: a net's arithmetic layer by layer, before training; reads no data."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.cli.parser import Parser
from cnnbench.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from cnnbench.complexity.layers import ModelSummary
    from cnnbench.config.schema import Config
    from cnnbench.data.datamodule import ImageData

# key in --json and --csv -> column head in the table
COUNTS = {"params": "parameters", "macs": "MACs", "book_flops": "book FLOPs", "activations": "activations"}
LAYER_COLUMNS = {
    "name": "layer",
    "type": "type",
    "output": "output",
    **COUNTS,
    "receptive_field": "receptive field",
    "stride": "stride",
}
NET_COLUMNS = {
    "model": "model",
    "image": "image",
    "weight_layers": "weight layers",
    **COUNTS,
    "receptive_field": "receptive field",
    "memory_bytes": "memory",
}
PARAMETER_COLUMNS = {"name": "parameter", "shape": "shape", "numbers": "numbers", "init": "drawn from"}


def main(arguments: list[str]) -> None:
    """Prints the layers of one net, or the totals of all nets."""
    options = _parse(arguments)
    if options.all:
        _print_all_nets(options)
    else:
        _print_net(options)


def _print_net(options: argparse.Namespace) -> None:
    from cnnbench.config.compose import compose

    facts = describe(compose(options.overrides, options.config_dir))
    failure = facts.pop("failure")
    if options.json and not failure:
        print(json.dumps({"schema": 1, **facts}, indent=2))
    elif options.csv and not failure:
        _write_csv(*(PARAMETER_COLUMNS, facts["parameters"]) if options.params else (LAYER_COLUMNS, facts["layers"]))
    else:
        print("\n".join(_net_as_text(facts, options.params, bool(failure))))
    if failure:
        sys.stdout.flush()
        raise ConfigError(failure)


def _print_all_nets(options: argparse.Namespace) -> None:
    from cnnbench.config.compose import compose, groups

    if any(override.startswith("model=") for override in options.overrides):
        raise ConfigError("info --all: compares every model; leave model=... out")
    rows, reasons = [], []
    names = [name for name in groups(options.config_dir)["model"] if name != "custom"]
    for number, name in enumerate(names, start=1):
        _show_progress(f"{name} ({number} of {len(names)})")
        try:
            facts = describe(compose([*options.overrides, f"model={name}"], options.config_dir))
            if facts["failure"]:
                raise ConfigError(facts["failure"])
            rows.append({"model": name, **_net_row(facts)})
        except ConfigError as error:
            reasons.append(f"{name}: {error}")
    _show_progress("")
    if not rows:
        raise ConfigError(reasons[0].partition(": ")[2])
    if options.json:
        print(json.dumps({"schema": 1, "nets": rows, "left_out": reasons}, indent=2))
    elif options.csv:
        _write_csv(NET_COLUMNS, rows)
    else:
        table = [[_cell(key, row[key]) for key in NET_COLUMNS] for row in rows]
        print("\n".join([*columns(NET_COLUMNS.values(), table, left=2), "", *reasons]).rstrip())


def describe(config: Config) -> dict[str, Any]:
    """The facts of a config's net on images of its data set, with the keys of `--json`. Nothing is read or trained.

    `failure` is one line if the net does not run on such images, else None; `--json` does not have this key.
    """
    from cnnbench.complexity.warnings import failure_message, model_warnings
    from cnnbench.models.initialization import distributions
    from cnnbench.training.factories import data_for_net

    data = data_for_net(config)
    net, summary = _build_and_summarize(config, data)
    warnings = [] if summary.failure else [*_output_warnings(summary, data.num_classes), *model_warnings(summary)]
    totals = _totals(net, summary, config, warnings)
    drawn = distributions(net, config.init, config.init_std)
    return {
        "model": config.choices.get("model", config.model.target),
        "net": type(net).__name__,
        "image": list(data.shape),
        "num_classes": data.num_classes,
        "batch_size": config.batch_size,
        "layers": [
            {key: _as_json(getattr(layer, key)) for key in ("name", "type", "input", *list(LAYER_COLUMNS)[2:])}
            for layer in summary.layers
        ],
        "totals": totals,
        "warnings": warnings,
        "parameters": [
            {"name": name, "shape": list(parameter.shape), "numbers": parameter.numel(), "init": drawn[name]}
            for name, parameter in net.named_parameters()
        ],
        "failure": failure_message(summary),
    }


def _show_progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _build_and_summarize(config: Config, data: ImageData) -> tuple[nn.Module, ModelSummary]:
    """Builds the net and runs it on one image: on the meta device, or on the CPU if it fails there."""
    import torch

    from cnnbench.complexity.layers import summarize
    from cnnbench.training.factories import build_net

    def build(device: str) -> tuple[nn.Module, ModelSummary]:
        with torch.device(device):
            net = build_net(config, data)
            return net, summarize(net, data.shape)

    try:
        net, summary = build("meta")
    except ConfigError:
        raise
    except Exception:  # a user's net may need values while it is built
        return build("cpu")
    return (net, summary) if summary.failure is None else build("cpu")


def _totals(net: nn.Module, summary: ModelSummary, config: Config, warnings: list[str]) -> dict[str, Any]:
    """Sums over all layers, and the memory of a training step; adds a warning if the net cannot be trained on such batches."""
    from dataclasses import asdict

    from cnnbench.complexity.memory import training_memory
    from cnnbench.config.instantiate import construct

    totals: dict[str, Any] = {key: summary.total(key) for key in COUNTS}
    totals["buffers"] = sum(value.numel() for name, value in net.named_buffers() if "running_" in name)
    totals["memory_bytes"] = None
    if summary.failure is None:
        try:
            memory = training_memory(
                *(net, summary.image, config.batch_size),
                lambda parameters: construct(config.optimizer, "optimizer", parameters),
            )
            totals["memory_bytes"] = {**asdict(memory), "total": memory.total}
        except ConfigError:
            raise
        except Exception as error:
            warnings.append(f"training on batches of {config.batch_size} fails: {' '.join(str(error).split())}")
    return totals


def _output_warnings(summary: ModelSummary, num_classes: int) -> list[str]:
    if summary.output == (num_classes,):
        return []
    output = "no tensor" if summary.output is None else f"{_shape(summary.output)} numbers"
    return [
        f"the net's output is {output} per image, expected {num_classes}, one per class; let its constructor take num_classes"
    ]


def _net_row(facts: dict[str, Any]) -> dict[str, Any]:
    """A net's row in the table of all nets."""
    layers, totals = facts["layers"], facts["totals"]
    fields = [layer["receptive_field"] for layer in layers if layer["receptive_field"] and layer["stride"]]
    return {
        "image": facts["image"],
        "weight_layers": sum(
            layer["type"] in ("Conv2d", "Linear") and "shortcut" not in layer["name"] for layer in layers
        ),
        "receptive_field": max(fields, default=None),
        **{key: totals[key] for key in (*COUNTS, "buffers")},
        "memory_bytes": (totals["memory_bytes"] or {}).get("total"),
    }


# ---- as text ------------------------------------------------------------------------------------------------------------


def _net_as_text(facts: dict[str, Any], params: bool, failed: bool) -> Iterator[str]:
    totals = facts["totals"]
    yield f"{facts['net']} on images of {_shape(facts['image'])}, {facts['num_classes']} classes"
    yield ""
    if params:
        rows = [[p["name"], _shape(p["shape"]), f"{p['numbers']:,}", p["init"]] for p in facts["parameters"]]
        rows.append(["total", "", f"{totals['params']:,}", ""])
        yield from columns(PARAMETER_COLUMNS.values(), rows, left=2, right_end=3)
        return
    rows = [
        [_cell(key, layer[key], known=layer["receptive_field"] is not None) for key in LAYER_COLUMNS]
        for layer in facts["layers"]
    ]
    if failed:
        yield from columns(LAYER_COLUMNS.values(), rows, left=3) if rows else ()
        return
    rows.append(["total", "", "", *(f"{totals[key]:,}" for key in COUNTS), "", ""])
    yield from columns(LAYER_COLUMNS.values(), rows, left=3)
    yield ""
    if totals["buffers"]:
        with_buffers = totals["params"] + totals["buffers"]
        yield f"with {totals['buffers']:,} running statistics of batch norm: {with_buffers:,} numbers"
    memory = totals["memory_bytes"]
    if memory:
        parts = ", ".join(f"{key} {_bytes(value)}" for key, value in memory.items() if key != "total")
        yield f"training on batches of {facts['batch_size']} holds at least {_bytes(memory['total'])}: {parts}"
    yield "MACs: multiply-adds of convolutions and linear layers; book FLOPs: nndl-practice's count, with biases, norms, means"
    for warning in facts["warnings"]:
        yield f"note: {warning}"


def columns(heads: Iterable[str], rows: Sequence[Sequence[str]], left: int, right_end: int = 99) -> Iterator[str]:
    """Formats a table: the first `left` columns and those from `right_end` on are left-aligned, the others right-aligned."""
    table = [list(heads), *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (
            f"{cell:<{width}}" if index < left or index >= right_end else f"{cell:>{width}}"
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def _cell(key: str, value: Any, known: bool = True) -> str:
    if value is None:
        return "all" if key == "stride" and known else "?"
    if isinstance(value, list):
        return _shape(value)
    if key == "memory_bytes":
        return _bytes(value)
    return f"{value:,}" if isinstance(value, int) else value


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _shape(sides: Iterable[int]) -> str:
    return "×".join(map(str, sides))


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _write_csv(keys: Iterable[str], rows: Iterable[dict[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(keys)
    for row in rows:
        values = (row[key] for key in keys)
        writer.writerow(
            "" if value is None else _shape(value) if isinstance(value, list) else value for value in values
        )


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser("info", "A net's layers with their parameters, multiply-adds, activations and receptive fields.")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="as for training: model=vgg16 data=cifar10 ..."
    )
    parser.add_argument(
        "--params", action="store_true", help="list every parameter with its shape and initial distribution"
    )
    parser.add_argument("--all", action="store_true", help="compare every model in one table")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print comma-separated values")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="another conf folder, used with the shipped one")
    options = parser.parse_args(arguments)
    if options.all and options.params:
        parser.error("--params: lists one net's parameters; leave --all out")
    return options
