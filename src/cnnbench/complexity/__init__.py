"""Parameters, multiply-accumulates, activations, memory and receptive fields of any net, layer by layer."""
