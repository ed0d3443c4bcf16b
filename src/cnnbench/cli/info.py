"""`cnnbench info [key=value ...]`: a net's arithmetic layer by layer, before training; reads no data."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from cnnbench.cli.parser import Parser
from cnnbench.console import Console, plain_text
from cnnbench.errors import ConfigError
from cnnbench.text import Values, csv_table, one_line

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
TEXTS = ("name", "type", "output", "model", "image", "shape", "init")  # the columns that are aligned left


def main(arguments: list[str]) -> None:
    """Prints the layers of one net, or the totals of all nets."""
    parser = Parser("info", "A net's layers with their parameters, multiply-adds, activations and receptive fields.")
    parser.add_switch("--params", "list every parameter with its shape and initial distribution")
    parser.add_switch("--all", "compare every model in one table")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print comma-separated values")
    parser.add_overrides("as for training: model=vgg16 data=cifar10 ...")
    options = parser.parse_args(arguments)
    if options.all and options.params:
        parser.error("--params: lists one net's parameters; leave --all out")
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
        _print_csv(*(PARAMETER_COLUMNS, facts["parameters"]) if options.params else (LAYER_COLUMNS, facts["layers"]))
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
    with Console(stderr=True).status("") as status:
        for number, name in enumerate(names, start=1):
            status.update(plain_text(f"{name} ({number} of {len(names)})"))
            try:
                facts = describe(compose([*options.overrides, f"model={name}"], options.config_dir))
                if facts["failure"]:
                    raise ConfigError(facts["failure"])
                rows.append({"model": name, **_net_row(facts)})
            except ConfigError as error:
                reasons.append(f"{name}: {error}")
    if not rows:
        raise ConfigError(reasons[0].partition(": ")[2])
    if options.json:
        print(json.dumps({"schema": 1, "nets": rows, "left_out": reasons}, indent=2))
    elif options.csv:
        _print_csv(NET_COLUMNS, rows)
    else:
        print("\n".join([*_table(NET_COLUMNS, rows), "", *reasons]).rstrip())


def describe(config: Config) -> Values:
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
        "image": data.shape,
        "num_classes": data.num_classes,
        "batch_size": config.batch_size,
        "layers": [{key: value for key, value in vars(layer).items() if key != "window"} for layer in summary.layers],
        "totals": totals,
        "warnings": warnings,
        "parameters": [
            {"name": name, "shape": parameter.shape, "numbers": parameter.numel(), "init": drawn[name]}
            for name, parameter in net.named_parameters()
        ],
        "failure": failure_message(summary),
    }


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
        if summary.failure is None:
            return net, summary
    except Exception as error:  # a user's net may need values while it is built
        if isinstance(error, ConfigError):
            raise
    try:
        return build("cpu")
    except Exception as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"model: {config.model.target.rpartition('.')[2]} cannot be built: {one_line(error)}"
        ) from error


def _totals(net: nn.Module, summary: ModelSummary, config: Config, warnings: list[str]) -> Values:
    """Sums over all layers, and the memory of a training step; adds a warning if the net cannot be trained on such batches."""
    from cnnbench.complexity.memory import training_memory
    from cnnbench.config.instantiate import construct

    totals: Values = {
        **{key: summary.total(key) for key in COUNTS},
        "buffers": sum(value.numel() for name, value in net.named_buffers() if "running_" in name),
        "memory_bytes": None,
    }
    if summary.failure is None:
        try:
            make_optimizer = partial(construct, config.optimizer, "optimizer")
            memory = training_memory(net, summary.image, config.batch_size, make_optimizer)
            totals["memory_bytes"] = {**memory._asdict(), "total": memory.total}
        except ConfigError:
            raise
        except Exception as error:
            warnings.append(f"training on batches of {config.batch_size} fails: {one_line(error)}")
    return totals


def _output_warnings(summary: ModelSummary, num_classes: int) -> list[str]:
    if summary.output == (num_classes,):
        return []
    output = "no tensor" if summary.output is None else f"{_shape(summary.output)} numbers"
    return [
        f"the net's output is {output} per image, expected {num_classes}, one per class; let its constructor take num_classes"
    ]


def _net_row(facts: Values) -> Values:
    """A net's row in the table of all nets."""
    layers, totals = facts["layers"], facts["totals"]
    fields = [layer["receptive_field"] for layer in layers if layer["receptive_field"] and layer["stride"]]
    return {
        "image": facts["image"],
        "weight_layers": sum(
            layer["type"] in ("Conv2d", "Linear") and "shortcut" not in layer["name"] for layer in layers
        ),
        "receptive_field": max(fields, default=None),
        **totals,
        "memory_bytes": (totals["memory_bytes"] or {}).get("total"),
    }


# ---- as text ------------------------------------------------------------------------------------------------------------


def _net_as_text(facts: Values, params: bool, failed: bool) -> Iterator[str]:
    totals = facts["totals"]
    yield f"{facts['net']} on images of {_shape(facts['image'])}, {facts['num_classes']} classes"
    yield ""
    if params:
        yield from _table(PARAMETER_COLUMNS, [*facts["parameters"], {"name": "total", "numbers": totals["params"]}])
        return
    if failed:
        yield from _table(LAYER_COLUMNS, facts["layers"]) if facts["layers"] else ()
        return
    yield from _table(LAYER_COLUMNS, [*facts["layers"], {"name": "total", **totals}])
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


def _table(columns: dict[str, str], rows: Iterable[Values]) -> Iterator[str]:
    """Formats rows below their heads; a cell that a row does not have is empty."""
    table = [list(columns.values()), *([_cell(key, row) for key in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        aligned = (
            f"{cell:<{width}}" if key in TEXTS else f"{cell:>{width}}"
            for key, cell, width in zip(columns, cells, widths, strict=True)
        )
        yield "  ".join(aligned).rstrip()


def _cell(key: str, row: Values) -> str:
    value = row.get(key, "")
    if value is None:
        return "all" if key == "stride" and row["receptive_field"] is not None else "?"
    if isinstance(value, tuple):
        return _shape(value)
    if key == "memory_bytes":
        return _bytes(value)
    return f"{value:,}" if isinstance(value, int) else value


def _shape(sides: Iterable[int]) -> str:
    return "×".join(map(str, sides))


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _print_csv(columns: Collection[str], rows: Iterable[Values]) -> None:
    texts = ({key: _shape(value) if isinstance(value, tuple) else value for key, value in row.items()} for row in rows)
    print(csv_table(columns, texts), end="")
