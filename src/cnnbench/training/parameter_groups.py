"""Which parameters an optimizer treats how."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def parameter_groups(net: nn.Module, decay: Literal["all", "weights"] = "all") -> list[dict[str, Any]]:
    """The net's trainable parameters as an optimizer takes them.

    With `decay="weights"` biases, the scales and shifts of norms, and what else has one dimension or none, are a group of their
    own without weight decay (He et al. 2019, arXiv:1812.01187, section 3.1).
    """
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if decay == "all":
        return [{"params": parameters}]
    spared = {
        id(parameter)
        for module in net.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim <= 1 or name == "bias" or isinstance(module, NORMS)
    }
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in parameters if id(parameter) not in spared]},
        {"params": [parameter for parameter in parameters if id(parameter) in spared], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
