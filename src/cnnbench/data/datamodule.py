"""The DataModule that every data set shares: facts of the set in, splits and loaders out."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
from pytorch_lightning import LightningDataModule

from cnnbench.augment.functional import resize
from cnnbench.augment.mixup_cutmix import MixUpCutMix
from cnnbench.augment.step import Augment
from cnnbench.config.schema import DataKeys
from cnnbench.data.decoded_cache import Decode, FileFacts, cache_folders, load_or_decode, map_if_intact
from cnnbench.data.download.archives import checksum_file
from cnnbench.data.download.fetch import default_root, expand_home, fetch, is_missing
from cnnbench.data.download.mirrors import Remote, file_checksum, has_checksum
from cnnbench.data.image_files import Fit
from cnnbench.data.loader import STATISTICS_CHUNK, BatchPlan, Images, Loader, Normalization, mean_and_std
from cnnbench.data.ownership import advice_for
from cnnbench.data.parallel import CHUNK, in_parallel
from cnnbench.data.read_only import is_read_only
from cnnbench.data.splits import mislabel, size_indices, split_hash, split_train
from cnnbench.errors import PROGRAM, ConfigError, CorruptFile, DataError, SeveralLines
from cnnbench.files import read_text
from cnnbench.text import to_override

log = logging.getLogger("cnnbench.run")

LABEL_BYTES = 8  # of an image
MAX_NAMED = 10  # classes or files that a message lists

Official = Literal["train", "test"]
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class TrainingBatches:
    """How a run cuts training images into batches, and changes them.

    Attributes:
        plan: batch size, accumulation and the seed of the order.
        make_augment: (image_size, mean per channel) -> the run's augmentation, or None.
        mixing: MixUp and CutMix, or None.
    """

    plan: BatchPlan = field(default_factory=lambda: BatchPlan(seed=0))
    make_augment: Callable[[int, list[float]], Augment | None] = lambda image_size, mean: None
    mixing: MixUpCutMix | None = None


class ImageData(LightningDataModule):
    """Images of one set: split, decoded once, and cut into batches.

    A subclass states the facts below, names its files and reads an official split. A subclass with more keys than
    `DataKeys` names them in its constructor, and passes all others on: `def __init__(self, *, shade=3, **keys)`.

    Args:
        root: folder of the files; `auto` is `default_root()`.
        keys: the other keys of `DataKeys`; those that are not given have its defaults.

    Attributes:
        root: folder of the files.
        keys: the other keys, typed.
        image_size: pixels a side of the images that the net takes.
        mean, std: per channel, of pixels scaled to 0..1; empty until `setup` where they are neither given nor stated.
        indices: rows of the official split that each split has; (n,) int64, ascending.
        images: the images of each split that has been set up.
        batches: how the run cuts and changes training images; replaced as a whole.
        pipeline: where the images are kept: `device`, or `memory` (also `auto`).
        scoring_side: pixels a side of the images that are scored; set it before `setup`.

    Raises:
        ConfigError: a key is unknown, or its value is not valid.
    """

    name: str
    classes: Sequence[str]
    channels: int = 1
    size: int = 28  # pixels a side, as published
    own_mean: Sequence[float]  # per channel, of pixels scaled to 0..1
    own_std: Sequence[float]
    measured_on: str = (
        "all pixels of the official train split"  # the pixels that own_mean and own_std were computed from
    )
    licence: str = ""
    origin: str = ""  # authors of the set, and where it is described
    remotes: tuple[Remote, ...] = ()  # the published files; none for a set that cannot be downloaded
    sums: Mapping[str, str] = {}  # published checksums, by a file's path in `folder`
    val_share: float = 0.1  # of the official train split, used where val_size is null
    fit: Fit = "pad"  # how `predict` makes a picture square
    given_splits: Collection[str] = ("train", "test")  # those that the files are divided into; the others are drawn

    def __init__(self, *, root: str | Path = "auto", **keys: Any) -> None:
        super().__init__()
        self.root = default_root() if root == "auto" else expand_home(root)
        self.keys = DataKeys.of_target(type(self), keys)
        self.image_size = self.size if self.keys.image_size == "auto" else self.keys.image_size
        self.mean = self._per_channel("mean", self.own_mean)
        self.std = self._per_channel("std", self.own_std)
        self.batches = TrainingBatches()
        self.pipeline = self.keys.pipeline
        self.scoring_side = self.image_size
        self.indices: dict[Split, np.ndarray] = {}
        self.images: dict[Split, Images] = {}
        self._official: dict[Official, Images] = {}

    # ---- what a subclass defines ----------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Folder that downloaded files are unpacked into."""
        return self.root

    def files(self) -> list[Path]:
        """The files of the set; empty for a set that is generated."""
        return [self.folder / member for remote in self.remotes for member in remote.members]

    def check(self) -> None:
        """Checks the files; this default compares their checksums.

        Raises:
            DataError: a file is absent or its content is wrong; `CorruptFile` if downloading it again repairs it.
        """
        for path in self.files():
            self.require_checksum(path)

    def count(self, official: Official) -> int:
        """Number of images in an official split, without decoding it."""
        raise NotImplementedError

    def read(self, official: Official) -> Images:
        """Decodes an official split: pixels (N, C, H, W) uint8 and labels (N,) int64, in the official order."""
        raise NotImplementedError

    def labels(self, official: Official) -> np.ndarray:
        """(N,) int64, the class of each image of an official split."""
        kept = self._facts.load().get(f"{official} labels")
        if kept is not None:
            return np.array(kept)
        labels = self._read_official(official).labels.numpy()
        self._facts.save(**{f"{official} labels": labels.tolist()})
        return labels

    def decoder(self, official: Official, side: int) -> Decode:
        """A function: rows (n,) of an official split -> pixels (n, C, side, side) uint8."""
        return lambda rows: resize(self._read_official(official).source[rows], side).numpy()

    def decoding_key(self, official: Official) -> str:
        """All that the decoded rows of an official split depend on, except the files and the size; part of a file name."""
        return official

    # ---- derived facts --------------------------------------------------------------------------------------------

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image as the net takes it."""
        return self.channels, self.image_size, self.image_size

    @property
    def native(self) -> int:
        """Pixels a side of the set's images; more than `size` where `size` is limited."""
        return self.size

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the names and contents of the set's files (SHA-256, sixteen hex digits)."""
        if known := self._facts.load().get("fingerprint"):
            return known
        digest, files = hashlib.sha256(self.name.encode()), self.files()
        checksums = in_parallel(file_checksum, files, f"{self.name}: reading {len(files):,} files")
        for path, checksum in zip(files, checksums, strict=True):
            digest.update(os.fsencode(self.portable_name(path)))
            digest.update(bytes.fromhex(checksum))
        return digest.hexdigest()[:16]

    def portable_name(self, path: Path) -> str:
        """A file's name without the folder of the set."""
        return path.name

    @property
    def split_hash(self) -> str:
        """Sixteen hex digits for the indices of all three splits, once they are set up."""
        return split_hash(*(self.indices[split] for split in ("train", "val", "test")))

    @property
    def label_hash(self) -> str:
        """Sixteen hex digits for the training labels, with those that `label_noise` has changed."""
        return split_hash(self.images["train"].labels.cpu().numpy())

    @property
    def train_side(self) -> int:
        """Pixels a side of the train images as they are stored, before augmentation."""
        augment = self.augment()
        return (augment and augment.stored_side(self.native, self.image_size)) or self.scoring_side

    @property
    def train_plan(self) -> BatchPlan:
        """The run's batches of the train split, and this rank's share of them."""
        if not self.trainer:
            return self.batches.plan
        return replace(self.batches.plan, rank=self.trainer.global_rank, world_size=self.trainer.world_size)

    def augment(self) -> Augment | None:
        """The run's augmentation; its mean is 0.5 until the set's is known."""
        return self.batches.make_augment(self.image_size, self.mean or [0.5] * self.channels)

    # ---- files ----------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Downloads absent files, checks all files, and checks `test_size`; does so once.

        Raises:
            DataError: a file cannot be downloaded or read, or is not what it should be; or the test split is too small.
        """
        if "test" in self.indices:
            return
        if not self.files():
            self._require_memory(self.count("train") + self.count("test"), self.image_size)
        with self._readable():
            if not is_read_only():
                self._fetch()
            if not self.missing and "fingerprint" not in self._facts.load():
                self.check()
                self._facts.save(fingerprint=self.fingerprint)
            self._limit_test()

    def require_files(self) -> None:
        """Checks that the published files are there.

        Raises:
            DataError: one is absent.
        """
        for remote in self.missing:
            path = next(path for member in remote.members if not (path := self.folder / member).is_file())
            raise DataError(
                f"data={self.name}: {path} was there when the run was planned, and is absent now; put it back, and type the "
                "same command again"
            )

    def repair_files(self) -> None:
        """Downloads absent and corrupt files; reads every file, even if an earlier command has checked it.

        Raises:
            DataError: a file cannot be downloaded, or is still wrong.
        """
        with self._readable():
            self._fetch()
            for _ in self.files():
                try:
                    self.check()
                    return
                except CorruptFile as error:
                    try:
                        self._fetch(error.path)
                    except DataError as failure:
                        raise SeveralLines(error, failure) from failure
            self.check()

    @property
    def missing(self) -> list[Remote]:
        """The published files of which some member is not in the folder."""
        return [remote for remote in self.remotes if is_missing(remote, self.folder)]

    @property
    def download_note(self) -> str | None:
        """What a run will download or unpack, as a sentence; None if all files are there."""
        absent = [remote for remote in self.missing if not remote.is_at(self.folder / remote.name)]
        size = sum(remote.size for remote in absent)
        if absent:
            return f"data={self.name}: not in {self.folder}; a run downloads {size / 1e6:,.1f} MB to there"
        return f"data={self.name}: a run unpacks it in {self.folder}" if self.missing else None

    def require_checksum(self, path: Path) -> None:
        """Compares a file's checksum with the published one or, if none is published, with that at the time of unpacking.

        Raises:
            CorruptFile: they differ.
        """
        kept = checksum_file(path)
        unpacked = f"sha256:{read_text(kept, most=1000).strip()}" if kept.is_file() else None
        name = path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else path.name
        checksum = self.sums.get(name, unpacked)
        if checksum and not has_checksum(path, checksum):
            kind, _, digest = checksum.partition(":")
            raise CorruptFile(f"{path}: corrupt, its {kind.upper()} sum is not {digest}; {self.repair_hint}", path)

    @property
    def repair_hint(self) -> str:
        """The command to type for a corrupt file."""
        root = "" if self.root == default_root() else f" --root {shlex.quote(str(self.root))}"
        return f"type {PROGRAM} fetch {self.name}{root}, which replaces it"

    # ---- splits and batches ---------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Splits and decodes the images of a stage, once: the official train split for `fit` and `validate`, else `test`.

        A mean and deviation that are neither given nor stated by the set are measured on the train images.

        Raises:
            DataError: a size does not fit the split, or an image cannot be decoded.
        """
        if stage in ("fit", "validate") and "train" not in self.images:
            # without its files only the number of labels is known
            labels = np.arange(self.count("train")) % self.num_classes if self.missing else self.labels("train")
            self.indices["train"], self.indices["val"] = self.split(labels)
            absent = np.setdiff1d(np.arange(self.num_classes), labels[self.indices["train"]])
            if len(absent):
                named = ", ".join(self.classes[label] for label in absent[:MAX_NAMED])
                log.warning("data=%s: %d classes have no image to train on: %s", self.name, len(absent), named)
            self._set_images("train", labels, {"train": self.train_side, "val": self.scoring_side})
            if not self.mean or not self.std:
                mean, std = self.measure_mean_std()
                self.mean, self.std = self.mean or mean, self.std or std
            train = self.images["train"]
            noisy = mislabel(train.labels.numpy(), self.keys.label_noise, self.num_classes, self.keys.split_seed)
            self.images["train"] = replace(train, labels=torch.from_numpy(noisy))
        elif stage == "test" and "test" not in self.images:
            labels = self.labels("test")
            self._limit_test()  # again: `prepare_data` runs in one process of a machine only
            self._set_images("test", labels, {"test": self.scoring_side})
        self._official.clear()

    def measure_mean_std(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, of the pixels that `measured_on` names."""
        return self._statistics(self.size, np.arange(self.count("train")))

    def split(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices (train, val) into the official train split, each ascending, from its labels (N,)."""
        return split_train(
            labels,
            train_size=self.keys.train_size,
            val_size=self.keys.val_size,
            val_share=self.val_share,
            fraction=self.keys.fraction,
            split_seed=self.keys.split_seed,
        )

    def loader(self, split: Split, plan: BatchPlan | None = None) -> Loader:
        """Batches of a split that has been set up.

        Args:
            split: train, val or test.
            plan: with a seed, images are shuffled, augmented and mixed; without a seed they are unchanged, in the stored order.
                None: for scoring, in batches twice as large as the run's.
        """
        plan = plan or self.train_plan.for_scoring()
        images = self.images[split]
        if plan.seed is None and images.source.shape[-1] != self.scoring_side:  # stored at the size for augmentation
            images = Images(self._pixels("train", self.scoring_side, self.indices[split]), images.labels.cpu())
        elif self.pipeline == "device":
            images = self.images[split] = images.to(self._device)
        normalization = Normalization(self.mean, self.std)
        return Loader(images, plan, normalization, self._device, self.augment(), self.batches.mixing)

    def train_dataloader(self) -> Loader:
        """Shuffled, augmented batches of the train split."""
        return self.loader("train", self.train_plan)

    def val_dataloader(self) -> Loader:
        """Validation batches."""
        return self.loader("val")

    def test_dataloader(self) -> Loader:
        """Test batches."""
        return self.loader("test")

    # ---- internals ------------------------------------------------------------------------------------------------

    @cached_property
    def _facts(self) -> FileFacts:
        return FileFacts(self._facts_name, self.files())

    @property
    def _facts_name(self) -> str:
        """Name for the kept facts of the files: the set, and the keys that the facts depend on."""
        return self.name

    def _fetch(self, corrupt: Path | None = None) -> None:
        fetch(self.name, self.remotes, self.folder, self.sums, corrupt, self.root)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Reports a file that cannot be read as a `DataError`."""
        try:
            yield
        except OSError as error:
            path = error.filename or self.folder
            reason = error.strerror or error
            raise DataError(f"data={self.name}: {path} cannot be read ({reason}){advice_for(error)}") from error

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def _require_memory(self, count: int, side: int) -> None:
        """Checks, before anything is allocated, that images of `side` pixels a side fit in memory."""
        needed = count * (self.channels * side**2 + LABEL_BYTES)
        free = psutil.virtual_memory().available
        if needed > free:
            raise DataError(
                f"data={self.name}: {count:,} images of {self.channels}×{side}×{side} take {needed / 1e9:,.1f} GB, "
                f"{free / 1e9:,.1f} GB of memory are free; type a smaller data.image_size, or fewer images"
            )

    def _limit_test(self) -> None:
        """Selects the images of the official test split that are used for testing."""
        self.indices["test"] = size_indices(self.keys.test_size, self.count("test"), "data.test_size")

    def _read_official(self, official: Official) -> Images:
        """An official split, read once while a stage is set up."""
        if official not in self._official:
            with self._readable():
                self._official[official] = self.read(official)
            self._facts.require_unchanged(self.files())
        return self._official[official]

    def _set_images(self, official: Official, labels: np.ndarray, sides: dict[Split, int]) -> None:
        """Decodes splits of one official split, each at its number of pixels a side; splits of one size share a file."""
        for side in sorted(set(sides.values())):
            splits = [split for split in sides if sides[split] == side]
            rows = np.unique(np.concatenate([self.indices[split] for split in splits]))
            decoded = Images(self._pixels(official, side, rows), torch.from_numpy(labels[rows]))
            for split in splits:
                self.images[split] = decoded.select(np.searchsorted(rows, self.indices[split]))

    def _statistics(self, side: int, rows: np.ndarray) -> tuple[list[float], list[float]]:
        """Mean and deviation of rows of the official train split at a size."""
        pixels = self._pixels("train", side, rows)
        if pixels.is_meta:  # in the read-only mode they are decoded and forgotten
            if self.missing:
                raise DataError(
                    f"data={self.name}: not in {self.folder}, and its mean is measured on its images; "
                    f"type {PROGRAM} fetch {self.name} before, or data.mean=... data.std=..."
                )
            decode = self.decoder("train", side)
            parts = (decode(rows[at : at + STATISTICS_CHUNK]) for at in range(0, len(rows), STATISTICS_CHUNK))
            # another order in memory would change the last bits of the sums
            return mean_and_std(torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
        self._official.clear()
        return Images(pixels, torch.from_numpy(rows)).statistics()

    def _pixels(self, official: Official, side: int, rows: np.ndarray) -> torch.Tensor:
        """(n, C, side, side) uint8, rows (n,), ascending, of an official split."""
        self._require_memory(min(len(rows), CHUNK), side)  # so many are decoded at a time
        shape = (self.channels, side, side)
        unread = torch.empty(len(rows), *shape, dtype=torch.uint8, device="meta")
        files = self.files()
        if is_read_only() and (self.missing or not files):
            return unread
        decode = self.decoder(official, side)
        if not files:
            return torch.from_numpy(decode(rows))
        selected = "" if len(rows) == self.count(official) else f"-{split_hash(rows)[:8]}"
        file = f"{self.decoding_key(official)}-{self.channels}x{side}{selected}.npy"
        paths = [folder / file for folder in cache_folders(f"{self.name}-{self.fingerprint}")]
        if is_read_only():
            decoded = map_if_intact(paths, (len(rows), *shape))
            return unread if decoded is None else torch.from_numpy(decoded)
        title = f"{self.name}: decoding {official} images"
        return torch.from_numpy(load_or_decode(paths, rows, shape, decode, title, files[0].parent))

    def _per_channel(self, key: str, own: Sequence[float]) -> list[float]:
        """The key's values, one for each channel; `auto` stands for the set's own."""
        given = getattr(self.keys, key)
        values = list(own) if given == "auto" else given if isinstance(given, list) else [float(given)]
        if values and len(values) not in (1, self.channels):
            raise ConfigError(
                f"data.{key}={to_override(given)}: {self.name} has {self.channels} channels; type one number for each"
            )
        return values * self.channels if len(values) == 1 else values
