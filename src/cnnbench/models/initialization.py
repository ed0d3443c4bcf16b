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
from dataclasses import dataclass
from math import sqrt

from torch import Tensor, nn

from cnnbench.ops import convolution, normalization

CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    convolution.Conv2d,
)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, normalization.BatchNorm2d)


@dataclass(frozen=True)
class Rule:
    """How a weight is drawn, and the distribution's name."""

    draw: Callable[[Tensor], Tensor]
    name: Callable[[Tensor], str]


def initialize(net: nn.Module, init: str, init_std: float = 0.01) -> None:
    """Draws the weights of `net` anew, in place, from torch's global generator, in the order of its modules."""
    if init == "torch":
        return
    for_convolutions, for_linear = rules(init, init_std)
    for module in net.modules():
        if isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            (for_linear if isinstance(module, nn.Linear) else for_convolutions).draw(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def distributions(net: nn.Module, init: str, init_std: float = 0.01) -> dict[str, str]:
    """What each parameter of `net` is drawn from: N(mean, deviation), U(from, to), or a number; by name, in order."""
    found = {}
    for prefix, module in net.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            found[f"{prefix}.{key}" if prefix else key] = _distribution(module, key, parameter, init, init_std)
    return {name: found[name] for name, _ in net.named_parameters()}


def rules(init: str, std: float) -> tuple[Rule, Rule]:
    """An init's rules for the weights of convolutions and of linear layers."""
    normal = Rule(lambda weight: nn.init.normal_(weight, std=std), lambda weight: _normal(std))
    kaiming = Rule(  # nn.init's gain for ReLU is sqrt(2)
        lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
        lambda weight: _normal(sqrt(2 / fans(weight)[0])),
    )
    xavier_normal = Rule(nn.init.xavier_normal_, lambda weight: _normal(sqrt(2 / sum(fans(weight)))))
    xavier_uniform = Rule(nn.init.xavier_uniform_, lambda weight: _uniform(sqrt(6 / sum(fans(weight)))))
    return {
        "paddle": (kaiming, xavier_uniform),
        "paddle_create": (xavier_uniform, xavier_uniform),
        "normal": (normal, normal),
        "xavier_normal": (xavier_normal, xavier_normal),
        "kaiming_normal": (kaiming, kaiming),
    }[init]


def fans(weight: Tensor) -> tuple[int, int]:
    """How many numbers an output is the sum of, and how many outputs an input goes to."""
    return weight[0].numel(), weight.numel() // weight.shape[1]


def _distribution(module: nn.Module, key: str, parameter: Tensor, init: str, std: float) -> str:
    if isinstance(module, (*CONVOLUTIONS, nn.Linear)):
        if init == "torch":  # weight and bias alike: kaiming_uniform with a = sqrt(5) is this
            return _uniform(1 / sqrt(fans(module.weight)[0]))
        return "0" if key == "bias" else rules(init, std)[isinstance(module, nn.Linear)].name(parameter)
    if isinstance(module, NORMS):
        return "1" if key == "weight" else "0"
    return f"as {type(module).__name__} draws it"


def _normal(std: float) -> str:
    return f"N(0, {std:.4g})"


def _uniform(bound: float) -> str:
    return f"U(-{bound:.4g}, {bound:.4g})"
