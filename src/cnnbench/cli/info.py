"""`python -m cnnbench info [key=value ...]`: a net's arithmetic, layer by layer, before it is trained; no data is read."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.cli.parser import Parser
from cnnbench.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from cnnbench.complexity.layers import Account
    from cnnbench.config.schema import Config
    from cnnbench.data.datamodule import ImageData

LAYER_KEYS = (
    *("name", "type", "output", "params", "macs", "book_flops", "activations"),
    *("receptive_field", "stride"),
)
LAYER_HEADS = (
    *("layer", "type", "output", "parameters", "MACs", "book FLOPs", "activations"),
    *("receptive field", "stride"),
)
NET_KEYS = (
    "model",
    "image",
    "weight_layers",
    "params",
    "macs",
    "book_flops",
    "activations",
    "receptive_field",
    "memory_bytes",
)
NET_HEADS = (
    "model",
    "image",
    "weight layers",
    "parameters",
    "MACs",
    "book FLOPs",
    "activations",
    "receptive field",
    "memory",
)
PARAMETER_KEYS = ("name", "shape", "numbers", "init")
PARAMETER_HEADS = ("parameter", "shape", "numbers", "drawn from")


def main(arguments: list[str]) -> None:
    """Prints one net's layers, or every net's totals."""
    options = _parse(arguments)
    if options.all:
        _compare(options)
    else:
        _tell(options)


def _tell(options: argparse.Namespace) -> None:
    from cnnbench.config.compose import compose

    facts = describe(compose(options.overrides, options.config_dir))
    failure = facts["failure"]
    if options.json and not failure:
        print(json.dumps({"schema": 1, **{key: value for key, value in facts.items() if key != "failure"}}, indent=2))
    elif options.csv and not failure:
        _write_csv(*(PARAMETER_KEYS, facts["parameters"]) if options.params else (LAYER_KEYS, facts["layers"]))
    else:
        print("\n".join(_text(facts, options.params)))
    if failure:
        sys.stdout.flush()
        raise ConfigError(failure)


def _compare(options: argparse.Namespace) -> None:
    from cnnbench.config.compose import compose, groups

    if any(override.startswith("model=") for override in options.overrides):
        raise ConfigError("info --all: compares every model; leave model=... out")
    rows, reasons = [], []
    names = [name for name in groups(options.config_dir)["model"] if name != "custom"]
    for number, name in enumerate(names, start=1):
        _progress(f"{name} ({number} of {len(names)})")
        try:
            facts = describe(compose([*options.overrides, f"model={name}"], options.config_dir))
            if facts["failure"]:
                raise ConfigError(facts["failure"])
            rows.append({"model": name, **_summary(facts)})
        except ConfigError as error:
            reasons.append(f"{name}: {error}")
    _progress("")
    if not rows:
        raise ConfigError(reasons[0].partition(": ")[2])
    if options.json:
        print(json.dumps({"schema": 1, "nets": rows, "left_out": reasons}, indent=2))
    elif options.csv:
        _write_csv(NET_KEYS, rows)
    else:
        table = [[_cell(key, row[key]) for key in NET_KEYS] for row in rows]
        print("\n".join([*columns(NET_HEADS, table, left=2), "", *reasons]).rstrip())


def describe(config: Config) -> dict[str, Any]:
    """The facts of the net that a config names, for images of its data set; nothing is read or trained.

    `failure` is a line where the net does not run on such images, else None; the other keys are those of `--json`.
    """
    from cnnbench.complexity.warnings import failure_of, notes_on
    from cnnbench.models.initialization import distributions
    from cnnbench.training.factories import data_for_net

    data = data_for_net(config)
    net, book = _run(config, data)
    totals, untrainable = _totals(net, book, config)
    return {
        "model": config.choices.get("model", config.model.target),
        "net": type(net).__name__,
        "image": list(data.shape),
        "num_classes": data.num_classes,
        "batch_size": config.batch_size,
        "layers": [
            {key: _plain(getattr(layer, key)) for key in (*LAYER_KEYS[:2], "input", *LAYER_KEYS[2:])}
            for layer in book.layers
        ],
        "totals": totals,
        "warnings": [] if book.failure else [*_misfit(book, data.num_classes), *notes_on(book), *untrainable],
        "parameters": [
            {"name": name, "shape": list(parameter.shape), "numbers": parameter.numel(), "init": drawn}
            for (name, parameter), drawn in zip(
                net.named_parameters(), distributions(net, config.init, config.init_std).values(), strict=True
            )
        ],
        "failure": failure_of(book),
    }


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _run(config: Config, data: ImageData) -> tuple[nn.Module, Account]:
    """The net, and what running it on one image tells; on the CPU if it cannot live on the meta device."""
    import torch

    from cnnbench.complexity.layers import account
    from cnnbench.training.factories import build_net

    for device in ("meta", "cpu"):
        try:
            with torch.device(device):
                net = build_net(config, data)
                book = account(net, data.shape)
        except ConfigError:
            raise
        except Exception:  # a net of the user's own may ask for values already when it is built
            if device == "cpu":
                raise
        else:
            if book.failure is None or device == "cpu":
                return net, book
    raise AssertionError("the CPU is tried last")


def _totals(net: nn.Module, book: Account, config: Config) -> tuple[dict[str, Any], list[str]]:
    """The sums over all layers, and a line where the net cannot be trained on such batches."""
    from dataclasses import asdict

    from cnnbench.complexity.memory import training_memory
    from cnnbench.config.instantiate import construct

    totals: dict[str, Any] = {key: book.total(key) for key in ("params", "macs", "book_flops", "activations")}
    totals["buffers"] = sum(value.numel() for name, value in net.named_buffers() if "running_" in name)
    totals["memory_bytes"] = None
    if book.failure is None:
        try:
            memory = training_memory(
                *(net, book.image, config.batch_size),
                lambda parameters: construct(config.optimizer, "optimizer", parameters),
            )
        except ConfigError:
            raise
        except Exception as error:
            return totals, [f"training on batches of {config.batch_size} fails: {' '.join(str(error).split())}"]
        totals["memory_bytes"] = {**asdict(memory), "total": memory.total}
    return totals, []


def _misfit(book: Account, num_classes: int) -> list[str]:
    if book.output == (num_classes,):
        return []
    given = "no tensor" if book.output is None else f"{_shape(book.output)} numbers"
    return [f"it gives {given} for an image and cannot be trained on {num_classes} classes; let it take num_classes"]


def _summary(facts: dict[str, Any]) -> dict[str, Any]:
    """A net's row in the table of all."""
    layers, totals = facts["layers"], facts["totals"]
    seen = [layer["receptive_field"] for layer in layers if layer["receptive_field"] and layer["stride"]]
    return {
        "image": facts["image"],
        "weight_layers": sum(
            layer["type"] in ("Conv2d", "Linear") and "shortcut" not in layer["name"] for layer in layers
        ),
        "receptive_field": max(seen, default=None),
        **{key: totals[key] for key in ("params", "buffers", "macs", "book_flops", "activations")},
        "memory_bytes": (totals["memory_bytes"] or {}).get("total"),
    }


# ---- as text ------------------------------------------------------------------------------------------------------------


def _text(facts: dict[str, Any], params: bool) -> Iterable[str]:
    totals = facts["totals"]
    yield f"{facts['net']} on images of {_shape(facts['image'])}, {facts['num_classes']} classes"
    yield ""
    if params:
        rows = [[p["name"], _shape(p["shape"]), f"{p['numbers']:,}", p["init"]] for p in facts["parameters"]]
        yield from columns(PARAMETER_HEADS, [*rows, ["total", "", f"{totals['params']:,}", ""]], left=2, right_end=3)
        return
    rows = [
        [_cell(key, layer[key], known=layer["receptive_field"] is not None) for key in LAYER_KEYS]
        for layer in facts["layers"]
    ]
    if facts["failure"]:
        yield from columns(LAYER_HEADS, rows, left=3) if rows else ()
        return
    ends = ["total", "", "", *(f"{totals[key]:,}" for key in ("params", "macs", "book_flops", "activations")), "", ""]
    yield from columns(LAYER_HEADS, [*rows, ends], left=3)
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


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int, right_end: int = 99) -> Iterable[str]:
    """A table: the first `left` columns, and those from `right_end` on, flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
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


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _shape(sides: Iterable[int]) -> str:
    return "×".join(map(str, sides))


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _write_csv(keys: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
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
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a conf folder of yours besides")
    options = parser.parse_args(arguments)
    if options.all and options.params:
        parser.error("--params: lists one net's parameters; leave --all out")
    return options
