"""The former place of `ImageData`, for data sets written before it moved; gone with version 1.0."""

from cnnbench.data.datamodule import ImageData

__all__ = ["ImageData"]
