"""Which parameters an optimizer treats how."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn


def parameter_groups(net: nn.Module, decay: Literal["all", "weights"] = "all") -> list[dict[str, Any]]:
    """The net's trainable parameters as an optimizer takes them.

    With `decay="weights"` those of one dimension, which are biases and the scales and shifts of norms, are a group of their
    own without weight decay (He et al. 2019, arXiv:1812.01187, section 3.1).
    """
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if decay == "all":
        return [{"params": parameters}]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1]},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
