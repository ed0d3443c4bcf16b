"""Convolution, pooling, batch norm, up-sampling and LeNet-5 by hand, to be read with the textbook. Autograd trains them.

They compute the same as PyTorch's layers, but slower. `cnnbench ops` compares the two.
"""
