"""What a net's arithmetic should make one think of, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cnnbench.complexity.layers import Account, Layer, Window, window_of


def notes_on(book: Account) -> Iterator[str]:
    """Everything that is worth a note, a line each."""
    yield from uneven_windows(book)
    yield from beyond_the_image(book)
    yield from maps_of_one_pixel(book)
    if book.unknown:
        names = ", ".join(sorted(book.unknown))
        yield f"{names}: counted as seeing everything, for want of a rule; receptive fields from there on are upper bounds"
    if book.idle:
        parts = sorted({name.split(".")[0] for name in book.idle})
        yield f"{', '.join(parts)}: {sum(book.idle.values()):,} parameters that are not run in evaluation"


def uneven_windows(book: Account) -> Iterator[str]:
    """Windows for which (W - F + 2P) / S + 1 is not a whole number, by what they so leave out."""
    found: dict[str, list[Layer]] = {}
    for layer in book.layers:
        if layer.window:
            reached = layer.window.reach + layer.window.stride * (layer.output[-1] - 1)
            left_over = layer.input[-1] + 2 * layer.window.padding - reached
            if left_over > 0:
                found.setdefault(_consequence(layer.window, left_over), []).append(layer)
    for consequence, layers in found.items():
        side, window = layers[0].input[-1], layers[0].window
        if window:
            yield (
                f"{_named(layers)}: a window does not fit its input evenly, ({side} - {window.reach} + 2·{window.padding}) / "
                f"{window.stride} + 1 = {window.positions(side):g}{' for the first' if len(layers) > 1 else ''}; {consequence}"
            )


def beyond_the_image(book: Account) -> Iterator[str]:
    """Receptive fields larger than the image."""
    _, height, width = book.image
    windowed = [layer for layer in book.layers if layer.window]
    beyond = [layer for layer in windowed if (layer.receptive_field or 0) > max(height, width)]
    if beyond:
        yield (
            f"from {beyond[0].name} on, {len(beyond)} of {len(windowed)} convolutions and poolings have a receptive field "
            f"({beyond[0].receptive_field} pixels and more) larger than the {height}×{width} image: they see padding"
        )


def maps_of_one_pixel(book: Account) -> Iterator[str]:
    """Convolutions of whose kernel only the centre is ever used."""
    found = [
        layer
        for layer in book.layers
        if layer.window and layer.window.padding and layer.type == "Conv2d" and set(layer.input[1:]) == {1}
    ]
    if found:
        yield f"{_named(found)}: works on a map of 1×1, where only the centre of its kernel meets anything; take larger images"


def failure_of(book: Account) -> str | None:
    """One line for a net that broke off; None for one that did not."""
    if book.failure is None:
        return None
    failure, image = book.failure, f"{book.image[1]}×{book.image[2]}"
    reason = " ".join(str(failure.error).split())
    if failure.layer is None:
        return f"model: does not take an image of {image}: {reason}"
    who, window = f"{failure.name} ({type(failure.layer).__name__})", window_of(failure.layer)
    if window and window.positions(failure.input[-1]) < 1:
        return (
            f"{who}: a {window.size}×{window.size} window does not fit its {failure.input[-2]}×{failure.input[-1]} input: the net "
            f"shrinks an image of {image} to nothing; take larger images (data.image_size=...), or fewer or smaller windows"
        )
    if failure.input == book.image:
        made_for = getattr(failure.layer, "in_channels", failure.input[0])
        if made_for != failure.input[0]:
            return (
                f"{who}: is made for {made_for} channels, and the images have {failure.input[0]}; let the net's constructor take "
                f"in_channels, or choose other data"
            )
        return f"{who}: does not take the image, {'×'.join(map(str, book.image))}: {reason}"
    shape = "×".join(map(str, failure.input))
    return f"{who}: does not take {shape}, what an image of {image} has become: {reason}"


def _consequence(window: Window, left_over: int) -> str:
    if window.reach < window.stride:
        return f"moving by {window.stride}, it sees {window.size**2} of {window.stride**2} pixels"
    unseen = left_over - window.padding
    if unseen < 1:
        return "only zeros of the padding are left out"
    return (
        "the last row and column are never seen"
        if unseen == 1
        else f"the last {unseen} rows and columns are never seen"
    )


def _named(layers: Sequence[Layer]) -> str:
    return layers[0].name + (f" and {len(layers) - 1} more" if len(layers) > 1 else "")
