"""One's own pictures: a folder for each class."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cnnbench.data.datamodule import NAMED, ImageData, Official, log
from cnnbench.data.decoded_cache import Make
from cnnbench.data.download.fetch import default_root, expanded
from cnnbench.data.image_files import Fit, read_image, short_side
from cnnbench.data.parallel import chunks, in_parallel
from cnnbench.data.sets.class_folders import Picture, class_names, find_splits, in_turn, others_in, pictures_of
from cnnbench.data.splits import stratified, take, thinned
from cnnbench.errors import ConfigError, DataError
from cnnbench.text import as_typed

LARGEST_OWN = 224  # pixels a side; larger pictures are scaled down to it where data.image_size is auto
TEST_SEED = 5000  # which images are the test split, where there is no folder of them, is a constant


class ImageFolder(ImageData):
    """Pictures of any format and size: `root/<class>/...`, or `root/{train,val,test}/<class>/...`.

    Classes are in alphabetical order. In the official order they take turns, so that every first n are balanced; within a class
    pictures are in the order of their names. Where there is a folder `val`, its pictures validate; where there is none of
    `test`, `test_share` of each class is set apart, the same for every seed. An `auto` image_size is the commonest length of
    a picture's shorter side, at most 224.

    Args:
        channels: 3, or 1 for grey.
        fit: what becomes of a picture that is not square: `crop` keeps its middle, `pad` sets it on the mean of its border,
            `stretch` distorts it.
        test_share: of every class, where there is no folder `test`.
    """

    name = "imagefolder"
    measured_on = "all pixels of the train images in use, at the size that the net takes"
    licence = origin = "one's own"

    def __init__(
        self,
        *,
        root: str | Path,
        channels: int = 3,
        fit: Fit = "crop",
        test_share: float = 0.2,
        image_size: Any = "auto",
        **keys: Any,
    ) -> None:
        if isinstance(channels, bool) or channels not in (1, 3):
            raise ConfigError(f"data.channels={as_typed(channels)}: expected 3, or 1 for grey")
        if fit not in ("crop", "pad", "stretch"):
            raise ConfigError(f"data.fit={as_typed(fit)}: expected crop, pad or stretch")
        if not isinstance(test_share, int | float) or not 0 < test_share < 1:
            raise ConfigError(
                f"data.test_share={as_typed(test_share)}: expected a number above 0, below 1; for instance 0.2"
            )
        self.channels, self.fit, self.test_share = channels, fit, test_share
        if expanded(root) == default_root():
            raise ConfigError("data=imagefolder: which folder? Name the one of your pictures with data.root=FOLDER")
        self.top = expanded(root).resolve()
        self.folders = find_splits(self.top)
        self.classes = class_names(self.folders)
        self.own_mean = self.own_std = ()
        self.size = min(self.native, LARGEST_OWN)
        super().__init__(root=root, image_size=image_size, **keys)

    # ---- which pictures -------------------------------------------------------------------------------------------

    @cached_property
    def pictures(self) -> dict[Official, list[Picture]]:
        """Each official split's pictures, in the official order; those of a folder `val` end the train split."""
        train, val, test = (self._in_folder(split) for split in ("train", "val", "test"))
        for split, found in (("train", train), ("val", val), ("test", test)):
            if split in self.folders and not found:
                raise DataError(f"{self.folders[split]}: its folders hold no picture; put some there, or remove it")
        if not test:
            labels = np.array([picture.label for picture in train])
            apart = set(stratified(labels, max(1, round(len(labels) * self.test_share)), TEST_SEED).tolist())
            test = [train[at] for at in sorted(apart)]
            train = [picture for at, picture in enumerate(train) if at not in apart]
        return {"train": train + val, "test": test}

    def files(self) -> list[Path]:
        """All pictures, in the order of their places."""
        return sorted(picture.path for official in self.pictures.values() for picture in official)

    def count(self, official: Official) -> int:
        """As many as there are files."""
        return len(self.pictures[official])

    def labels(self, official: Official) -> np.ndarray:
        """From the names of the folders."""
        return np.array([picture.label for picture in self.pictures[official]], dtype=np.int64)

    def check(self) -> None:
        """Every class has a picture to train on; those of the test split, which is not looked at before the end, can be read."""
        left_out = Counter(path.suffix.lower() for folder in self.folders.values() for path in others_in(folder))
        if left_out:
            named = ", ".join(f"{n} {ending or 'without an ending'}" for ending, n in left_out.most_common(NAMED))
            log.warning("data=imagefolder: files left out that are not pictures it can read: %s", named)
        tested = [picture.path for picture in self.pictures["test"]]
        trained = self.pictures["train"][: self.count("train") - len(self._in_folder("val"))]
        there = Counter(picture.label for picture in trained)
        for label, name in enumerate(self.classes):
            folder = self.folders["train"] / name
            if not there[label] and any(path.is_relative_to(folder) for path in tested):
                raise DataError(
                    f"{folder}: holds so few pictures that none is left to train on beside the test; add some"
                )
            if not there[label]:
                raise DataError(f"{folder}: holds no picture to train on; put some there, or remove the folder")
        if self._broken(tested):
            raise DataError(broken_pictures(self._broken(self.files())))

    def label_of(self, path: Path) -> str:
        """Its place below the root."""
        return str(path.relative_to(self.top))

    def split(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where there is a folder `val`, it validates: sizes count within `train` and within `val`."""
        validating = len(self._in_folder("val"))
        if not validating:
            return super().split(labels)
        trained = len(labels) - validating
        train = thinned(take(self.train_size, trained, "data.train_size"), labels, self.fraction, self.split_seed)
        return train, trained + take(self.val_size, validating, "data.val_size")

    def measured(self) -> tuple[list[float], list[float]]:
        """Of the train images in use, at the size that the net takes, whatever an augmentation begins with."""
        return self._statistics("train", self.image_size, self.indices["train"])

    @property
    def _remembered_as(self) -> str:
        return f"{self.name}-{self.channels}-{self.test_share}"

    def _in_folder(self, split: str) -> list[Picture]:
        return in_turn(pictures_of(self.folders[split], self.classes)) if split in self.folders else []

    # ---- what is in them ------------------------------------------------------------------------------------------

    def decoder(self, official: Official, side: int) -> Make:
        """Several pictures at once; those that cannot be read are named."""
        paths = [picture.path for picture in self.pictures[official]]

        def decode(rows: np.ndarray) -> np.ndarray:
            read = in_parallel(lambda path: self._decoded(path, side), [paths[row] for row in rows])
            if any(isinstance(error, ConfigError) for error in read):
                raise DataError(broken_pictures(self._broken(self.files())))
            self._facts.require_unchanged([paths[row] for row in rows])
            return np.stack(read)

        return decode

    def decoding(self, official: Official) -> str:
        """Which pictures, in which order, and how they are made square."""
        names = "\n".join(self.label_of(picture.path) for picture in self.pictures[official])
        return f"{official}-{hashlib.sha256(os.fsencode(names)).hexdigest()[:8]}-{self.fit}"

    def _broken(self, paths: list[Path]) -> list[ConfigError]:
        """Why pictures cannot be read, of those that cannot."""
        found: list[ConfigError] = []
        for at in chunks(np.arange(len(paths)), f"{self.name}: looking for broken pictures"):
            read = in_parallel(lambda path: self._decoded(path, 1), [paths[row] for row in at])
            found += [error for error in read if isinstance(error, ConfigError)]
        return found

    def _decoded(self, path: Path, side: int) -> np.ndarray | ConfigError:
        """(C, side, side) uint8, or why not."""
        from PIL import Image

        try:
            image = read_image(path, self.channels, fit=self.fit).resize((side, side), Image.Resampling.BILINEAR)
        except ConfigError as error:
            return error
        return np.asarray(image).reshape(side, side, self.channels).transpose(2, 0, 1)

    @cached_property
    def native(self) -> int:
        """The commonest length of a train picture's shorter side."""
        if known := self._facts.recall().get("native"):
            return known
        sides = Counter(filter(None, in_parallel(short_side, [picture.path for picture in self.pictures["train"]])))
        native = max(sides, key=lambda side: (sides[side], side), default=LARGEST_OWN)
        self._facts.keep(native=native)
        return native


def broken_pictures(errors: list[ConfigError]) -> str:
    """What to do about pictures that cannot be read."""
    if len(errors) == 1:
        return f"{errors[0]}; replace or remove it"
    named = [f"{len(errors)} pictures cannot be read; replace or remove them", *map(str, errors[:NAMED])]
    return "\n    ".join(named + [f"and {len(errors) - NAMED} more"] * (len(errors) > NAMED))
