"""The former module of `Step`, kept until version 1.0 for augmentation steps that import it from here."""

from cnnbench.augment.step import Step

__all__ = ["Step"]
