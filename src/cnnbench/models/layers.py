"""Building blocks that several nets share, and the arithmetic of map sizes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial

from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from cnnbench.checks import require_choice, require_number

LayerClass = Callable[..., nn.Module]

ACTIVATIONS: dict[str, LayerClass] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, 0.1),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
POOLINGS: dict[str, LayerClass] = {"max": nn.MaxPool2d, "mean": nn.AvgPool2d}
NORMS = ("batch", "none")


def activation_layer(name: str) -> nn.Module:
    """The activation `none`, `relu`, `leaky_relu` (slope 0.1), `tanh` or `sigmoid`.

    Raises:
        ValueError: `name` is none of these.
    """
    return ACTIVATIONS[require_choice("activation", name, ACTIVATIONS)]()


def pooling_layer(name: str) -> nn.Module:
    """`max` or `mean` pooling, windows of 2 × 2 pixels that do not overlap.

    Raises:
        ValueError: `name` is neither.
    """
    return POOLINGS[require_choice("pooling", name, POOLINGS)](2)


def conv_layer(in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int = 0) -> nn.Conv2d:
    """A convolution whose kernel size and stride the user chooses.

    Raises:
        ValueError: one of the two is not an integer above 0.
    """
    require_number("kernel_size", kernel_size, integer=True, above=0)
    require_number("stride", stride, integer=True, above=0)
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)


def named_layers(**layers: nn.Module) -> nn.Sequential:
    """The layers in sequence under their names, by which checkpoints hold their weights: `conv1.weight`, not `0.weight`."""
    return nn.Sequential(OrderedDict(layers))


def conv_norm_relu(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: int | None = None,
    norm: str = "batch",
    bias: bool | None = None,
    eps: float = 1e-5,
) -> nn.Sequential:
    """Convolution, batch norm (none if `norm` is none), ReLU.

    `padding` None: at stride 1 the map keeps its size. `bias` None: the convolution has a bias if no norm follows it.
    """
    has_norm = require_choice("norm", norm, NORMS) == "batch"
    bias = not has_norm if bias is None else bias
    padding = kernel_size // 2 if padding is None else padding
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
    norms = {"norm": nn.BatchNorm2d(out_channels, eps=eps)} if has_norm else {}
    return named_layers(conv=conv, **norms, relu=nn.ReLU())


def pool_and_classify(channels: int, num_classes: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The head (N, channels, H, W) -> logits (N, num_classes): global average pool, flatten, linear.

    It returns three modules, which a net names `pool`, `flatten` and `linear`: checkpoints hold `linear.weight`.
    """
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)


class PoolTo(nn.AdaptiveAvgPool2d):
    """(N, C, H, W) -> (N, C, side, side) by average pooling; a map of that size is returned unchanged.

    It precedes linear layers, so that a net built for one image size also accepts others.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pools the map."""
        return x if x.shape[-2:] == (self.output_size, self.output_size) else super().forward(x)


def output_side(side: int, layers: Iterable[nn.Module]) -> int:
    """Pixels a side of a square map of `side` pixels after `layers` in sequence: each (W - F + 2P) / S + 1, rounded down.

    Raises:
        ValueError: a window is larger than its padded input.
    """
    image = side
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            window, stride, padding = (_pair(value)[0] for value in (layer.kernel_size, layer.stride, layer.padding))
            if window > side + 2 * padding:
                raise ValueError(
                    f"an image of {image}×{image} pixels shrinks to nothing: a {window}×{window} window meets a map of "
                    f"{side}×{side}; take larger images, or smaller windows or strides"
                )
            side = (side - window + 2 * padding) // stride + 1
    return side
