"""The former module of `ImageData`, kept until version 1.0 for data sets that import it from here."""

from cnnbench.data.datamodule import ImageData

__all__ = ["ImageData"]
