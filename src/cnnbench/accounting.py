"""How large a net is: parameters and multiply-accumulates, counted on the meta device, without data or memory."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(net: nn.Module) -> int:
    """Trainable numbers in the net."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def macs(net: nn.Module, shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of convolutions and linear layers for one image (C, H, W); on the net's own device."""
    device = next(net.parameters(), torch.empty(0)).device
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.enable_grad(), FlopCounterMode(display=False) as counter:  # it hooks gradients, and trips without
            net(torch.empty(1, *shape, device=device))
    finally:
        for module, training in modes:
            module.training = training
    return counter.get_total_flops() // 2
