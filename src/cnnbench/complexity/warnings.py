"""Warnings about a net's arithmetic, one line each."""

from __future__ import annotations

from collections.abc import Iterator

from cnnbench.complexity.layers import ModelSummary, Window, window_of
from cnnbench.text import first_few, one_line


def model_warnings(summary: ModelSummary) -> Iterator[str]:
    """Yields all warnings about a net that ran to its end."""
    yield from uneven_windows(summary)
    yield from beyond_the_image(summary)
    yield from maps_of_one_pixel(summary)
    if summary.unknown:
        names = ", ".join(sorted(summary.unknown))
        yield f"{names}: no rule, so it counts as seeing the whole image; receptive fields after it are upper bounds"
    if summary.idle:
        parts = sorted({name.split(".")[0] for name in summary.idle})
        yield f"{', '.join(parts)}: {sum(summary.idle.values()):,} parameters are not used in evaluation"


def uneven_windows(summary: ModelSummary) -> Iterator[str]:
    """Yields windows for which (W - F + 2P) / S + 1 is not an integer, grouped by the pixels that they miss."""
    groups: dict[
        str, tuple[str, list[str]]
    ] = {}  # by what is missed: the arithmetic of the first window, names of the layers
    for layer in summary.layers:
        if window := layer.window:
            side = layer.input[-1]
            left_over = side + 2 * window.padding - window.reach - window.stride * (layer.output[-1] - 1)
            if left_over > 0:
                size = (
                    f"({side} - {window.reach} + 2·{window.padding}) / {window.stride} + 1 = {window.positions(side):g}"
                )
                groups.setdefault(_missed_pixels(window, left_over), (size, []))[1].append(layer.name)
    for missed, (size, names) in groups.items():
        yield (
            f"{first_few(names, 1)}: a window does not fit its input evenly, {size}"
            f"{' for the first' if len(names) > 1 else ''}; {missed}"
        )


def beyond_the_image(summary: ModelSummary) -> Iterator[str]:
    """Yields a warning if receptive fields are larger than the image."""
    _, height, width = summary.image
    windowed = [layer for layer in summary.layers if layer.window]
    beyond = [layer for layer in windowed if (layer.receptive_field or 0) > max(height, width)]
    if beyond:
        yield (
            f"from {beyond[0].name} on, {len(beyond)} of {len(windowed)} convolutions and poolings have a receptive field "
            f"({beyond[0].receptive_field} pixels and more) larger than the {height}×{width} image: they see padding"
        )


def maps_of_one_pixel(summary: ModelSummary) -> Iterator[str]:
    """Yields a warning if convolutions use only the centre of their kernel."""
    names = [
        layer.name
        for layer in summary.layers
        if layer.window and layer.window.padding and layer.type == "Conv2d" and set(layer.input[1:]) == {1}
    ]
    if names:
        yield f"{first_few(names, 1)}: its input is 1×1, so only the centre of its kernel is used; take larger images"


def failure_message(summary: ModelSummary) -> str | None:
    """Explains in one line why a net failed; None if it did not."""
    if summary.failure is None:
        return None
    failure, image = summary.failure, f"{summary.image[1]}×{summary.image[2]}"
    reason = one_line(failure.error)
    if failure.layer is None:
        return f"model: does not accept an image of {image}: {reason}"
    layer, window = f"{failure.name} ({type(failure.layer).__name__})", window_of(failure.layer)
    if window and window.positions(failure.input[-1]) < 1:
        return (
            f"{layer}: a {window.size}×{window.size} window does not fit its {failure.input[-2]}×{failure.input[-1]} input: the net "
            f"shrinks an image of {image} to nothing; take larger images (data.image_size=...), or fewer or smaller windows"
        )
    shape = "×".join(map(str, failure.input))
    if failure.input != summary.image:
        return f"{layer}: does not accept {shape}, the shape of an image of {image} at this layer: {reason}"
    expected, channels = getattr(failure.layer, "in_channels", None), failure.input[0]
    if expected not in (None, channels):
        return (
            f"{layer}: expects {expected} channels, but the images have {channels}; let the net's constructor take "
            f"in_channels, or choose other data"
        )
    return f"{layer}: does not accept the image, {shape}: {reason}"


def _missed_pixels(window: Window, left_over: int) -> str:
    if window.reach < window.stride:
        return f"with stride {window.stride} it sees {window.size**2} of {window.stride**2} pixels"
    unseen = left_over - window.padding
    if unseen < 1:
        return "only zeros of the padding are left out"
    return f"the last {'row and column' if unseen == 1 else f'{unseen} rows and columns'} are never seen"
