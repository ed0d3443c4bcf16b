"""The DataModule that every data set shares: facts of the set in, splits and loaders out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule

from cnnbench.data.split import Size, split_hash, split_train, take
from cnnbench.data.store import Images, Loader
from cnnbench.errors import ConfigError

Split = Literal["train", "val", "test"]
PerChannel = str | float | list[float]


class ImageData(LightningDataModule):
    """Images of one set, split and kept in memory.

    A subclass states the facts below, names its files and reads an official split. Everything of `conf/data_keys.yaml`
    arrives here; `batch_size` and `shuffle_seed` are the run's.
    """

    name: ClassVar[str]
    classes: Sequence[str]
    channels: int = 1
    size: int = 28
    own_mean: Sequence[float]  # per channel, of the official train split's pixels in 0..1
    own_std: Sequence[float]
    val_share: float = 0.1  # of the official train split, where val_size is absent

    def __init__(
        self,
        *,
        root: str | Path = "",
        image_size: int | Literal["auto"] = "auto",
        mean: PerChannel = "auto",
        std: PerChannel = "auto",
        train_size: Size = None,
        val_size: Size = None,
        test_size: Size = None,
        fraction: float = 1.0,
        split_seed: int = 0,
        pipeline: Literal["auto", "device", "memory"] = "auto",
        batch_size: int = 64,
        shuffle_seed: int = 0,
    ) -> None:
        super().__init__()
        self.root = Path(root).expanduser()
        self.image_size = self.size if image_size == "auto" else image_size
        self.mean = self._per_channel("mean", mean, self.own_mean)
        self.std = self._per_channel("std", std, self.own_std)
        self.train_size, self.val_size, self.test_size = train_size, val_size, test_size
        self.fraction, self.split_seed, self.pipeline = fraction, split_seed, pipeline
        self.batch_size, self.shuffle_seed = batch_size, shuffle_seed
        self.indices: dict[Split, np.ndarray] = {}
        self.images: dict[Split, Images] = {}

    # ---- what a subclass says -------------------------------------------------------------------------------------

    def files(self) -> list[Path]:
        """The files that hold the set; none for a set that is made."""
        return []

    def check(self) -> None:
        """Raises `DataError` where the files are not what they should be. Called once, before anything is written."""

    def read(self, official: Literal["train", "test"]) -> Images:
        """Decodes an official split: (N, C, H, W) uint8 and labels, in the official order."""
        raise NotImplementedError

    # ---- what follows from it -------------------------------------------------------------------------------------

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image as the net sees it."""
        return self.channels, self.image_size, self.image_size

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the names and contents of the set's files (SHA-256, sixteen hex digits)."""
        digest = hashlib.sha256(self.name.encode())
        for path in self.files():
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest() if hasattr(hashlib, "file_digest") else file.read())
        return digest.hexdigest()[:16]

    @property
    def split_hash(self) -> str:
        """Stands for the indices of all three splits; the test images need to have been set up."""
        return split_hash(*(self.indices[split] for split in ("train", "val", "test")))

    def prepare_data(self) -> None:
        """Checks the files."""
        self.check()

    def setup(self, stage: str) -> None:
        """Decodes what a stage needs, once: `fit` and `validate` the official train split, `test` the test split."""
        if stage in ("fit", "validate") and "train" not in self.images:
            official = self.read("train")
            train, val = split_train(
                official.labels.numpy(),
                train_size=self.train_size,
                val_size=self.val_size,
                val_share=self.val_share,
                fraction=self.fraction,
                split_seed=self.split_seed,
            )
            self._keep("train", official, train)
            self._keep("val", official, val)
        elif stage == "test" and "test" not in self.images:
            official = self.read("test")
            self._keep("test", official, take(self.test_size, len(official), "data.test_size"))

    def loader(self, split: Split, shuffle: bool = False) -> Loader:
        """Batches of a split that has been set up; those that are not shuffled, for scoring, are twice as large."""
        return Loader(
            self.images[split],
            self.batch_size if shuffle else 2 * self.batch_size,
            self.mean,
            self.std,
            self._device(),
            self.shuffle_seed if shuffle else None,
        )

    def train_dataloader(self) -> Loader:
        """Shuffled batches."""
        return self.loader("train", shuffle=True)

    def val_dataloader(self) -> Loader:
        """Validation batches."""
        return self.loader("val")

    def test_dataloader(self) -> Loader:
        """Test batches."""
        return self.loader("test")

    def _keep(self, split: Split, official: Images, indices: np.ndarray) -> None:
        self.indices[split] = indices
        images = official.select(indices).resized(self.image_size)
        self.images[split] = images.to(self._device()) if self.pipeline == "device" else images

    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def _per_channel(self, key: str, given: PerChannel, own: Sequence[float]) -> list[float]:
        values = list(own) if isinstance(given, str) else given if isinstance(given, list) else [float(given)]
        if len(values) not in (1, self.channels):
            raise ConfigError(f"data.{key}={given}: {self.name} has {self.channels} channels; type one number for each")
        return values * self.channels if len(values) == 1 else values
