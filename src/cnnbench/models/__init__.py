"""Nets: pure `nn.Module`s, one paper a file. They know nothing of Lightning, Hydra or data sets.

A net takes `in_channels`, `num_classes` and, where it needs it, `image_size`; its class may state `min_image_size` and
`max_image_size`, the smallest and largest images (pixels a side) that it can take.
"""
