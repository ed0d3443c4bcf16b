"""Nets: pure `nn.Module`s, one paper a file. They import neither Lightning nor Hydra, and name no data set.

A net's constructor takes `in_channels`, `num_classes` and, if it needs it, `image_size` (pixels a side). A class may have
the attributes `min_image_size` and `max_image_size`: the smallest and largest images (pixels a side) that it accepts.
"""
