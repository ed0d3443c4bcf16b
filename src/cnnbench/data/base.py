"""The DataModule that every data set shares: facts of the set in, splits and loaders out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule

from cnnbench.config import as_typed
from cnnbench.data.fetch import fetch
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

    name: str
    classes: Sequence[str]
    channels: int = 1
    size: int = 28
    own_mean: Sequence[float]  # per channel, of the official train split's pixels in 0..1
    own_std: Sequence[float]
    fetchable: bool = False
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
        self._prepared = False

    # ---- what a subclass says -------------------------------------------------------------------------------------

    def files(self) -> list[Path]:
        """The files that hold the set; none for a set that is made."""
        return []

    def download(self) -> None:
        """Brings `files` to `root`; a set that cannot be fetched leaves this."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises `DataError` where the files are not what they should be. Called once, before anything is written."""

    def count(self, official: Literal["train", "test"]) -> int:
        """How many images an official split has, without decoding it."""
        raise NotImplementedError

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
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:16]

    @property
    def split_hash(self) -> str:
        """Stands for the indices of all three splits, once they are set up."""
        return split_hash(*(self.indices[split] for split in ("train", "val", "test")))

    def prepare_data(self) -> None:
        """Fetches files that are absent, checks them, and checks the sizes of the splits against them; once."""
        if self._prepared:
            return
        if self.fetchable and not all(path.is_file() for path in self.files()):
            fetch(self.name, self.files(), self.root, self.download)
        self.check()
        self.indices["test"] = take(self.test_size, self.count("test"), "data.test_size")
        self._prepared = True

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
        if self.pipeline == "device":
            self.images[split] = self.images[split].to(self._device())
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
        self.images[split] = official.select(indices).resized(self.image_size)

    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def _per_channel(self, key: str, given: PerChannel, own: Sequence[float]) -> list[float]:
        values = list(own) if isinstance(given, str) else given if isinstance(given, list) else [float(given)]
        if len(values) not in (1, self.channels):
            raise ConfigError(
                f"data.{key}={as_typed(given)}: {self.name} has {self.channels} channels; type one number for each"
            )
        return values * self.channels if len(values) == 1 else values
