"""Initial weights of the convolutions and linear layers of any net; other layers keep PyTorch's.

| init           | convolution                | linear          | biases    |
|----------------|----------------------------|-----------------|-----------|
| torch          | PyTorch's default          | the same        | the same  |
| paddle         | N(0, sqrt(2 / fan_in))     | Xavier-uniform  | 0         |
| paddle_create  | Xavier-uniform             | Xavier-uniform  | 0         |
| normal         | N(0, init_std)             | N(0, init_std)  | 0         |
| xavier_normal  | Glorot, Bengio 2010        | the same        | 0         |
| kaiming_normal | He et al. 2015             | the same        | 0         |

`paddle` is the default of PaddlePaddle's `nn.Conv2D` and `nn.Linear`, `paddle_create` that of its `create_parameter`.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from cnnbench.ops import convolution, normalization

CONVOLUTIONS = (nn.modules.conv._ConvNd, convolution.Conv2d)  # transposed ones too
WEIGHTED = (*CONVOLUTIONS, nn.Linear)  # the layers whose weights an init draws
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, normalization.BatchNorm2d)

# the rules for convolutions and for linear layers; any other init is one rule for both
RULES = {"paddle": ("kaiming_normal", "xavier_uniform"), "paddle_create": ("xavier_uniform", "xavier_uniform")}


class Distribution(NamedTuple):
    """N(0, scale) or U(-scale, scale)."""

    kind: Literal["N", "U"]
    scale: float

    def draw(self, weight: Tensor) -> None:
        """Fills a weight in place from torch's global random generator."""
        if self.kind == "N":
            nn.init.normal_(weight, std=self.scale)
        else:
            nn.init.uniform_(weight, -self.scale, self.scale)

    def __str__(self) -> str:
        return f"{self.kind}({0 if self.kind == 'N' else f'-{self.scale:.4g}'}, {self.scale:.4g})"


def initialize(net: nn.Module, init: str, init_std: float = 0.01) -> None:
    """Draws new weights for `net`, in place, in the order of its modules, from torch's global random generator.

    `init` is a row of the table above; `torch` changes nothing. `init_std` is the deviation that `normal` uses.
    """
    if init == "torch":
        return
    for module in net.modules():
        if isinstance(module, WEIGHTED):
            weight_distribution(module, init, init_std).draw(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def distributions(net: nn.Module, init: str, init_std: float = 0.01) -> dict[str, str]:
    """The distribution of each parameter of `net`, by name, in the order of `named_parameters()`.

    A distribution is N(mean, deviation), U(from, to), or a number.
    """
    found = {}
    for name, _ in net.named_parameters():
        prefix, _, key = name.rpartition(".")
        module = net.get_submodule(prefix)
        if isinstance(module, NORMS):
            found[name] = "1" if key == "weight" else "0"
        elif not isinstance(module, WEIGHTED):
            found[name] = f"as {type(module).__name__} draws it"
        elif key == "bias" and init != "torch":
            found[name] = "0"
        else:
            found[name] = str(weight_distribution(module, init, init_std))
    return found


def weight_distribution(module: nn.Module, init: str, std: float) -> Distribution:
    """The distribution from which an init draws the weight of a convolution or linear layer, rounded as in `torch.nn.init`."""
    weight: Any = module.weight  # (out, in, ...)
    fan_in, fan_out = weight[0].numel(), weight.numel() // weight.shape[1]
    rule = RULES.get(init, (init, init))[isinstance(module, nn.Linear)]
    return {
        "torch": Distribution("U", 1 / sqrt(fan_in)),  # PyTorch's kaiming_uniform with a = sqrt(5), for biases too
        "normal": Distribution("N", std),
        "xavier_normal": Distribution("N", sqrt(2 / (fan_in + fan_out))),
        "xavier_uniform": Distribution("U", sqrt(3) * sqrt(2 / (fan_in + fan_out))),
        "kaiming_normal": Distribution("N", sqrt(2) / sqrt(fan_in)),
    }[rule]
