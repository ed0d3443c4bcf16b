"""The DataModule that every data set shares: facts of the set in, splits and loaders out."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule

from cnnbench.augment.mixup_cutmix import Mixing
from cnnbench.augment.step import Augment
from cnnbench.data.decoded_cache import Decoded, Make, Remembered, decoded_folder
from cnnbench.data.download.archives import sum_beside
from cnnbench.data.download.fetch import default_root, expanded, fetch
from cnnbench.data.download.mirrors import Remote, has_sum, sum_of
from cnnbench.data.image_files import Fit
from cnnbench.data.loader import Images, Loader, resize
from cnnbench.data.parallel import chunks, in_parallel
from cnnbench.data.splits import Size, mislabel, split_hash, split_train, take
from cnnbench.errors import ConfigError, CorruptFile, DataError
from cnnbench.text import as_typed

log = logging.getLogger("cnnbench.run")

NAMED = 10  # so many classes are named in a message

Official = Literal["train", "test"]
Split = Literal["train", "val", "test"]
PerChannel = str | float | list[float]


class ImageData(LightningDataModule):
    """Images of one set, split, decoded once, and cut into batches.

    A subclass states the facts below, names its files and reads an official split. Everything of `conf/data_keys.yaml`
    arrives here; batch size, seed and augmentation are the run's.
    """

    name: str
    classes: Sequence[str]
    channels: int = 1
    size: int = 28  # pixels a side, as published
    own_mean: Sequence[float]  # per channel, of pixels in 0..1
    own_std: Sequence[float]
    measured_on: str = "all pixels of the official train split"  # what own_mean and own_std are of
    licence: str = ""
    origin: str = ""  # who made the set, and where it is described
    remotes: tuple[Remote, ...] = ()  # the published files; none for a set that cannot be fetched
    sums: Mapping[str, str] = MappingProxyType({})  # published checksums of files, by their name in `folder`
    val_share: float = 0.1  # of the official train split, where val_size is absent
    fit: Fit = "pad"  # what becomes of a picture from elsewhere that is not square

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
        label_noise: float = 0.0,
        split_seed: int = 0,
        pipeline: Literal["auto", "device", "memory"] = "auto",
        batch_size: int = 64,
        shuffle_seed: int = 0,
        make_augment: Callable[[int, list[float]], Augment | None] | None = None,
    ) -> None:
        super().__init__()
        self.root = expanded(root)
        self.image_size = self.size if image_size == "auto" else image_size
        self.mean = self._per_channel("mean", mean, self.own_mean)
        self.std = self._per_channel("std", std, self.own_std)
        self.train_size, self.val_size, self.test_size = train_size, val_size, test_size
        self.fraction, self.label_noise = fraction, label_noise
        self.split_seed, self.pipeline = split_seed, pipeline
        self.batch_size, self.shuffle_seed, self.make_augment = batch_size, shuffle_seed, make_augment
        self.accumulate = 1  # parts that a batch is cut into
        self.mixing: Mixing | None = None
        self.scoring_side = self.image_size  # of images that are scored; tests at several scales begin with larger ones
        self.indices: dict[Split, np.ndarray] = {}
        self.images: dict[Split, Images] = {}
        self._prepared = False
        self._read: dict[Official, Images] = {}

    # ---- what a subclass says -------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Where published files are unpacked to."""
        return self.root

    def files(self) -> list[Path]:
        """The files that hold the set; none for a set that is made."""
        return [self.folder / member for remote in self.remotes for member in remote.members]

    def check(self) -> None:
        """Raises `DataError` where the files are not what they should be: here, where they have not their checksums."""
        for path in self.files():
            self.require_sum(path)

    def count(self, official: Official) -> int:
        """How many images an official split has, without decoding it."""
        raise NotImplementedError

    def read(self, official: Official) -> Images:
        """Decodes an official split: (N, C, H, W) uint8 and labels, in the official order."""
        raise NotImplementedError

    def labels(self, official: Official) -> np.ndarray:
        """(N,) int64, the class of each image of an official split."""
        kept = self._facts.recall().get(f"{official} labels")
        if kept is not None:
            return np.array(kept)
        labels = self._whole(official).labels.numpy()
        self._facts.keep(**{f"{official} labels": labels.tolist()})
        return labels

    def decoder(self, official: Official, side: int) -> Make:
        """Rows of an official split -> (n, C, side, side) uint8."""
        return lambda rows: resize(self._whole(official).source[rows], side).numpy()

    def decoding(self, official: Official) -> str:
        """What, besides the files, the rows of an official split depend on; part of a file name."""
        return official

    # ---- what follows from it -------------------------------------------------------------------------------------

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image as the net sees it."""
        return self.channels, self.image_size, self.image_size

    @property
    def native(self) -> int:
        """Pixels a side that the set's images have; `size`, unless that is less."""
        return self.size

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the names and contents of the set's files (SHA-256, sixteen hex digits)."""
        if known := self._facts.recall().get("fingerprint"):
            return known
        digest, files = hashlib.sha256(self.name.encode()), self.files()
        for at in chunks(np.arange(len(files)), f"{self.name}: reading {len(files):,} files"):
            some = [files[index] for index in at]
            for path, content in zip(some, in_parallel(sum_of, some), strict=True):
                digest.update(os.fsencode(self.label_of(path)))
                digest.update(bytes.fromhex(content))
        return digest.hexdigest()[:16]

    def label_of(self, path: Path) -> str:
        """What a file is called wherever the set lies."""
        return path.name

    @property
    def split_hash(self) -> str:
        """Stands for the indices of all three splits, once they are set up."""
        return split_hash(*(self.indices[split] for split in ("train", "val", "test")))

    @property
    def label_hash(self) -> str:
        """Stands for the labels that are trained on, those that `label_noise` has changed among them."""
        return split_hash(self.images["train"].labels.cpu().numpy())

    @property
    def train_side(self) -> int:
        """Pixels a side of the train images as they are stored: what the augmentation begins with."""
        wanted = self.augment(self.mean or [0.5] * self.channels)
        return (wanted and wanted.stored_side(self.native, self.image_size)) or self.scoring_side

    def augment(self, mean: list[float]) -> Augment | None:
        """The run's augmentation."""
        return self.make_augment(self.image_size, mean) if self.make_augment else None

    def prepare_data(self) -> None:
        """Fetches files that are absent, checks them, and checks the sizes of the splits against them; once."""
        if self._prepared:
            return
        with self._readable():
            fetch(self.name, self.remotes, self.folder, self.sums)
            if "fingerprint" not in self._facts.recall():
                self.check()
                self._facts.keep(fingerprint=self.fingerprint)
            self.indices["test"] = take(self.test_size, self.count("test"), "data.test_size")
        self._prepared = True

    def mend(self) -> None:
        """Fetches what is absent, and anew what is corrupt; reads every file, whatever is remembered of them."""
        with self._readable():
            fetch(self.name, self.remotes, self.folder, self.sums)
            for _ in self.files():
                if (error := self._corrupt()) is None:
                    return
                try:
                    fetch(
                        self.name, self.remotes, self.folder, self.sums, lambda: getattr(self._corrupt(), "path", None)
                    )
                except DataError as failure:
                    raise DataError(f"{error}\n{failure}") from failure
            self.check()

    def require_sum(self, path: Path) -> None:
        """Raises `CorruptFile` where a file has not its published checksum, or not the one that it was unpacked with."""
        beside = sum_beside(path)
        kept = f"sha256:{beside.read_text(encoding='utf-8').strip()}" if beside.is_file() else None
        name = path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else path.name
        checksum = self.sums.get(name, kept)
        if checksum and not has_sum(path, checksum):
            kind, _, digest = checksum.partition(":")
            raise CorruptFile(f"{path}: corrupt, its {kind.upper()} sum is not {digest}; {self.again}", path)

    @property
    def again(self) -> str:
        """What to do about a corrupt file."""
        elsewhere = "" if self.root == default_root() else f" --root {shlex.quote(str(self.root))}"
        return f"type python -m cnnbench fetch {self.name}{elsewhere}, which replaces it"

    def setup(self, stage: str) -> None:
        """Decodes what a stage needs, once: `fit` and `validate` the official train split, `test` the test split.

        A mean and deviation that the set does not state are measured on the train images.
        """
        if stage in ("fit", "validate") and "train" not in self.images:
            labels = self.labels("train")
            self.indices["train"], self.indices["val"] = self.split(labels)
            untrained = np.setdiff1d(np.arange(self.num_classes), labels[self.indices["train"]])
            if len(untrained):
                named = ", ".join(self.classes[label] for label in untrained[:NAMED])
                log.warning("data=%s: %d classes have no image to train on: %s", self.name, len(untrained), named)
            sides: dict[Split, int] = {"train": self.train_side, "val": self.scoring_side}
            self._keep("train", labels, sides)
            if not self.mean or not self.std:
                mean, std = self.measured()
                self.mean, self.std = self.mean or mean, self.std or std
            noisy = mislabel(self.images["train"].labels.numpy(), self.label_noise, self.num_classes, self.split_seed)
            self.images["train"] = self.images["train"].relabelled(noisy)
        elif stage == "test" and "test" not in self.images:
            labels = self.labels("test")
            self.indices["test"] = take(self.test_size, len(labels), "data.test_size")
            self._keep("test", labels, {"test": self.scoring_side})
        self._read.clear()

    def measured(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of each channel, of what `measured_on` names: here, of the official train split, as published."""
        return self._statistics("train", self.size, np.arange(self.count("train")))

    def split(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices (train, val) into the official train split."""
        return split_train(
            labels,
            train_size=self.train_size,
            val_size=self.val_size,
            val_share=self.val_share,
            fraction=self.fraction,
            split_seed=self.split_seed,
        )

    def loader(self, split: Split, shuffle: bool = False) -> Loader:
        """Batches of a split that has been set up; those that are not shuffled, for scoring, are twice as large."""
        images = self.images[split]
        if not shuffle and images.source.shape[-1] != self.scoring_side:  # stored as an augmentation would like them
            rows = self._rows("train", self.scoring_side, self.indices[split])
            images = Images(torch.from_numpy(rows), images.labels.cpu(), torch.from_numpy(self.indices[split]))
        elif self.pipeline == "device":
            images = self.images[split] = images.to(self._device())
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return Loader(
            images,
            self.batch_size if shuffle else max(1, 2 * self.batch_size // self.accumulate),
            self.mean,
            self.std,
            self._device(),
            self.shuffle_seed if shuffle else None,
            self.augment(self.mean) if shuffle else None,
            rank,
            ranks,
            self.accumulate if shuffle else 1,
            self.mixing if shuffle else None,
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

    # ---- how ------------------------------------------------------------------------------------------------------

    @cached_property
    def _facts(self) -> Remembered:
        return Remembered(self._remembered_as, self.files())

    @property
    def _remembered_as(self) -> str:
        """What facts of the files are kept under: the name, and whatever else they depend on."""
        return self.name

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Files that cannot be read are a mistake of the user's, or of the disk."""
        try:
            yield
        except OSError as error:
            where = error.filename or self.folder
            raise DataError(f"data={self.name}: {where} cannot be read ({error.strerror or error})") from error

    def _corrupt(self) -> CorruptFile | None:
        """What the check says of the first corrupt file."""
        try:
            self.check()
        except CorruptFile as error:
            return error
        return None

    def _whole(self, official: Official) -> Images:
        """An official split as it is read, while a stage is set up."""
        if official not in self._read:
            self._read[official] = self.read(official)
            self._facts.require_unchanged(self.files())
        return self._read[official]

    def _keep(self, official: Official, labels: np.ndarray, sides: dict[Split, int]) -> None:
        """Fills `images` with splits of one official split, each at its size; those of one size share their rows."""
        for side in sorted(set(sides.values())):
            splits = [split for split in sides if sides[split] == side]
            wanted = np.unique(np.concatenate([self.indices[split] for split in splits]))
            whole = Images(torch.from_numpy(self._rows(official, side, wanted)), torch.from_numpy(labels))
            for split in splits:
                self.images[split] = whole.select(self.indices[split])

    def _statistics(self, official: Official, side: int, rows: np.ndarray) -> tuple[list[float], list[float]]:
        """Mean and deviation of some images of an official split at some size."""
        pixels = torch.from_numpy(self._rows(official, side, rows))
        self._read.clear()
        return Images(pixels, torch.zeros(len(pixels), dtype=torch.int64)).select(rows).statistics()

    def _rows(self, official: Official, side: int, wanted: np.ndarray) -> np.ndarray:
        """(N, C, side, side) uint8 of an official split, of which the rows `wanted` are there."""
        if not self.files():
            return resize(self._whole(official).source, side).numpy()
        folder = decoded_folder(self.name, self.fingerprint, self.files()[0].parent)
        shape = (self.count(official), self.channels, side, side)
        decoded = Decoded(folder, f"{self.decoding(official)}-{self.channels}x{side}", shape)
        return decoded.rows(wanted, self.decoder(official, side), f"{self.name}: decoding {official} images")

    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def _per_channel(self, key: str, given: PerChannel, own: Sequence[float]) -> list[float]:
        values = list(own) if isinstance(given, str) else given if isinstance(given, list) else [float(given)]
        if values and len(values) not in (1, self.channels):
            raise ConfigError(
                f"data.{key}={as_typed(given)}: {self.name} has {self.channels} channels; type one number for each"
            )
        return values * self.channels if len(values) == 1 else values
