"""`python -m cnnbench info [key=value ...]`: a net's arithmetic, layer by layer, before it is trained; no data is read."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.arguments import Parser
from cnnbench.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from cnnbench.accounting import Account, Layer
    from cnnbench.config import Config
    from cnnbench.data.base import ImageData

LAYER_KEYS = (
    *("name", "type", "output", "params", "macs", "book_flops", "activations"),
    *("receptive_field", "stride"),
)
LAYER_HEADS = (
    *("layer", "type", "output", "parameters", "MACs", "book FLOPs", "activations"),
    *("receptive field", "stride"),
)
NET_KEYS = ("model", "image", "depth", "params", "macs", "book_flops", "activations", "receptive_field", "memory_bytes")
NET_HEADS = ("model", "image", "layers", "parameters", "MACs", "book FLOPs", "activations", "receptive field", "memory")
PARAMETER_HEADS = ("parameter", "shape", "numbers", "drawn from")


def main(arguments: list[str]) -> None:
    """Prints one net's layers, or every net's totals."""
    options = _parse(arguments)
    if options.all:
        _compare(options)
    else:
        _tell(options)


def _tell(options: argparse.Namespace) -> None:
    from cnnbench.compose import compose

    facts = describe(compose(options.overrides, options.config_dir))
    failure = facts.pop("failure")
    if options.json and not failure:
        print(json.dumps({"schema": 1, **facts}, indent=2))
    elif options.csv and not failure:
        _write_csv(LAYER_KEYS, facts["layers"])
    else:
        print("\n".join(_text(facts, options.params)))
    if failure:
        sys.stdout.flush()
        raise ConfigError(failure)


def _compare(options: argparse.Namespace) -> None:
    from cnnbench.compose import compose, groups

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
    from cnnbench.models.init import distributions
    from cnnbench.prepare import data_for_net

    data = data_for_net(config)
    net, book = _run(config, data)
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
        "totals": _totals(net, book, config),
        "warnings": [] if book.failure else [*warnings(book)],
        "parameters": [
            {"name": name, "shape": list(parameter.shape), "numbers": parameter.numel(), "init": drawn}
            for (name, parameter), drawn in zip(
                net.named_parameters(), distributions(net, config.init, config.init_std).values(), strict=True
            )
        ],
        "failure": _explain(book),
    }


def warnings(book: Account) -> Iterable[str]:
    """What a net's arithmetic should make one think of, a line each."""
    side = max(book.image[1:])
    windowed = [layer for layer in book.layers if layer.window]
    uneven: dict[str, list[Layer]] = {}
    for layer in windowed:
        if _left_over(layer):
            uneven.setdefault(_unseen(layer), []).append(layer)
    for consequence, layers in uneven.items():
        yield f"{_named(layers)}: does not fit its input evenly, {_fit(layers[0])}; {consequence}"
    beyond = [layer for layer in windowed if (layer.receptive_field or 0) > side]
    if beyond:
        yield (
            f"from {beyond[0].name} on, {len(beyond)} of {len(windowed)} convolutions and poolings have a receptive field "
            f"({beyond[0].receptive_field} pixels and more) larger than the {book.image[1]}×{book.image[2]} image: they see padding"
        )
    small = [
        layer
        for layer in windowed
        if layer.type == "Conv2d"
        and layer.window
        and layer.window[0] > 1
        and layer.window[2]
        and set(layer.input[1:]) == {1}
    ]
    if small:
        yield f"{_named(small)}: works on a map of 1×1, where only the centre of its kernel meets anything; take larger images"
    if book.idle:
        count = sum(book.idle.values())
        first = sorted({name.split(".")[0] for name in book.idle})
        yield f"{', '.join(first)}: {count:,} parameters that are not run in evaluation"


def _left_over(layer: Layer) -> int:
    """The pixels (padding included) of a side that no window reaches."""
    size, stride, padding, dilation = layer.window or (1, 1, 0, 1)
    reach = dilation * (size - 1) + 1
    made, given = layer.output[-1], layer.input[-1]
    return max(0, given + 2 * padding - reach - stride * (made - 1))


def _fit(layer: Layer) -> str:
    """(W - F + 2P) / S + 1, in numbers."""
    size, stride, padding, dilation = layer.window or (1, 1, 0, 1)
    reach, given = dilation * (size - 1) + 1, layer.input[-1]
    return f"({given} - {reach} + 2·{padding}) / {stride} + 1 = {(given - reach + 2 * padding) / stride + 1:g}"


def _unseen(layer: Layer) -> str:
    padding = (layer.window or (1, 1, 0, 1))[2]
    count = _left_over(layer) - padding
    if count < 1:
        return "only zeros of the padding are left out"
    return (
        "the last row and column are never seen" if count == 1 else f"the last {count} rows and columns are never seen"
    )


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _named(layers: Sequence[Layer]) -> str:
    return layers[0].name + (f" and {len(layers) - 1} more" if len(layers) > 1 else "")


def _explain(book: Account) -> str | None:
    """One line for a net that broke off."""
    if book.failure is None:
        return None
    from cnnbench.accounting import window_of

    failure = book.failure
    image = f"{book.image[1]}×{book.image[2]}"
    if failure.layer is None:
        return f"model: does not take an image of {image}: {' '.join(str(failure.error).split())}"
    window = window_of(failure.layer)
    who = f"{failure.name} ({type(failure.layer).__name__})"
    if window and failure.input[-1] + 2 * window[2] < window[3] * (window[0] - 1) + 1:
        return (
            f"{who}: a {window[0]}×{window[0]} window does not fit its {failure.input[-2]}×{failure.input[-1]} input: the net "
            f"shrinks an image of {image} to nothing; take larger images (data.image_size=...), or fewer or smaller windows"
        )
    shape = "×".join(map(str, failure.input))
    return f"{who}: does not take {shape}, what an image of {image} has become: {' '.join(str(failure.error).split())}"


def _run(config: Config, data: ImageData) -> tuple[nn.Module, Account]:
    """The net, and what running it on one image tells; on the CPU if it cannot live on the meta device."""
    import torch

    from cnnbench.accounting import account
    from cnnbench.prepare import build_net

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


def _totals(net: nn.Module, book: Account, config: Config) -> dict[str, Any]:
    from dataclasses import asdict

    from cnnbench.accounting import training_memory
    from cnnbench.build import construct

    totals: dict[str, Any] = {key: book.total(key) for key in ("params", "macs", "book_flops", "activations")}
    totals["buffers"] = sum(value.numel() for value in net.buffers() if value.is_floating_point())
    if book.failure is None:
        memory = training_memory(
            net, book.image, config.batch_size, lambda parameters: construct(config.optimizer, "optimizer", parameters)
        )
        totals["memory_bytes"] = {**asdict(memory), "total": memory.total}
    return totals


def _summary(facts: dict[str, Any]) -> dict[str, Any]:
    """A net's row in the table of all."""
    layers, totals = facts["layers"], facts["totals"]
    seen = [layer["receptive_field"] for layer in layers if layer["receptive_field"] and layer["stride"]]
    return {
        "image": facts["image"],
        "depth": sum(layer["type"] in ("Conv2d", "Linear") and "shortcut" not in layer["name"] for layer in layers),
        "receptive_field": max(seen, default=None),
        **{key: totals[key] for key in ("params", "buffers", "macs", "book_flops", "activations")},
        "memory_bytes": totals["memory_bytes"]["total"],
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
    rows = [[_cell(key, layer[key]) for key in LAYER_KEYS] for layer in facts["layers"]]
    ends = ["total", "", "", *(f"{totals[key]:,}" for key in ("params", "macs", "book_flops", "activations")), "", ""]
    yield from columns(LAYER_HEADS, [*rows, ends], left=3)
    yield ""
    if totals["buffers"]:
        with_buffers = totals["params"] + totals["buffers"]
        yield f"with {totals['buffers']:,} running statistics of batch norm: {with_buffers:,} numbers"
    if "memory_bytes" in totals:
        memory = totals["memory_bytes"]
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


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "all" if key == "stride" else "?"
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
    return parser.parse_args(arguments)
