"""Initial weights of any net's convolutions and linear layers; other layers keep PyTorch's own.

| init           | convolution                | linear          | biases    |
|----------------|----------------------------|-----------------|-----------|
| torch          | as PyTorch draws them      | as PyTorch      | as PyTorch|
| paddle         | N(0, sqrt(2 / fan_in))     | Xavier-uniform  | 0         |
| paddle_create  | Xavier-uniform             | Xavier-uniform  | 0         |
| normal         | N(0, init_std)             | N(0, init_std)  | 0         |
| xavier_normal  | Glorot, Bengio 2010        | the same        | 0         |
| kaiming_normal | He et al. 2015             | the same        | 0         |

`paddle` is what PaddlePaddle's `nn.Conv2D` and `nn.Linear` start from, `paddle_create` its `create_parameter`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def initialize(net: nn.Module, init: str, init_std: float = 0.01) -> None:
    """Draws the weights of `net` anew, in place, from torch's global generator, in the order of its modules."""
    if init == "torch":
        return
    draw_convolution, draw_linear = _rules(init_std)[init]
    for module in net.modules():
        if isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            draw = draw_linear if isinstance(module, nn.Linear) else draw_convolution
            draw(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


Rule = Callable[[Tensor], Tensor]


def _rules(std: float) -> dict[str, tuple[Rule, Rule]]:
    def normal(weight: Tensor) -> Tensor:
        return nn.init.normal_(weight, std=std)

    def kaiming(weight: Tensor) -> Tensor:  # N(0, sqrt(2 / fan_in))
        return nn.init.kaiming_normal_(weight, nonlinearity="relu")

    return {
        "paddle": (kaiming, nn.init.xavier_uniform_),
        "paddle_create": (nn.init.xavier_uniform_, nn.init.xavier_uniform_),
        "normal": (normal, normal),
        "xavier_normal": (nn.init.xavier_normal_, nn.init.xavier_normal_),
        "kaiming_normal": (kaiming, kaiming),
    }
