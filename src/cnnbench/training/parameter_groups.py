"""Splits a net's parameters into those with and without weight decay."""

from __future__ import annotations

from typing import Literal

from torch import nn

from cnnbench.text import Values

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def parameter_groups(net: nn.Module, decay: Literal["all", "weights"] = "all") -> list[Values]:
    """Returns the net's trainable parameters in the groups of a torch.optim.Optimizer.

    Args:
        net: the network.
        decay: `all`: one group. `weights`: biases, parameters of normalization layers, and all other parameters of at most
            one dimension form a second group without weight decay (He et al. 2019, arXiv:1812.01187, section 3.1).
    """
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    exempt = {
        id(parameter)
        for module in net.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if decay == "weights" and (parameter.ndim <= 1 or name == "bias" or isinstance(module, NORMS))
    }
    groups: list[Values] = [
        {"params": [parameter for parameter in parameters if id(parameter) not in exempt]},
        {"params": [parameter for parameter in parameters if id(parameter) in exempt], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
