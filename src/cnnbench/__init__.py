"""What does this choice do to a CNN? Classic convolutional networks, Hydra configs, honest comparisons."""

__version__ = "0.1.0"
