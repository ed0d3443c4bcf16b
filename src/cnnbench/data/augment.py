"""The former place of `Step`, for augmentation steps written before it moved; gone with version 1.0."""

from cnnbench.augment.step import Step

__all__ = ["Step"]
