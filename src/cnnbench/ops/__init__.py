"""Convolution, pooling, batch norm, up-sampling and LeNet-5 by hand, to be read next to the book; autograd trains them.

Slow beside PyTorch's own, equal to them. `python -m cnnbench ops` shows both.
"""
