"""The user's own pictures: a folder for each class."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from cnnbench.checks import require_number
from cnnbench.data.datamodule import MAX_NAMED, ImageData, Official, log
from cnnbench.data.decoded_cache import Decode
from cnnbench.data.download.fetch import default_root, expand_home
from cnnbench.data.image_files import Fit, read_image, short_side
from cnnbench.data.parallel import in_parallel
from cnnbench.data.sets.class_folders import (
    Picture,
    class_names,
    find_splits,
    list_pictures,
    other_files,
)
from cnnbench.data.splits import keep_fraction, size_indices, stratified
from cnnbench.errors import ConfigError, DataError, SeveralLines
from cnnbench.text import to_override

LARGEST_AUTO = 224  # pixels a side that data.image_size=auto gives at most
TEST_SHARE = 0.2  # of every class, where there is no folder for test images
TEST_SEED = 5000  # selects the test images where there is no folder for them; a constant, equal for all runs


class ImageFolder(ImageData):
    """Pictures of any format and size: `root/<class>/...`, or `root/{train,val,test}/<class>/...`.

    Classes are in alphabetical order. The official order alternates between the classes, so that every first n are balanced;
    the pictures of a class are ordered by name. The folder `val`, if there is one, is the validation split. Without a folder
    `test`, the test split is `test_share` of each class, the same for every seed. `image_size=auto` is the most common shorter
    side of the train pictures, at most 224.

    Args:
        root: folder of the pictures.
        channels: 3, or 1 for grey.
        fit: how a picture becomes square: `crop` keeps its middle, `pad` adds borders of its border's mean colour, `stretch`
            distorts it.
        test_share: of every class, used without a folder `test`.
        keys: as for every data set.

    Raises:
        ConfigError: a key has a wrong value.
        DataError: the folders do not have this layout.
    """

    name = "imagefolder"
    measured_on = "all pixels of the train images in use, at the size that the net takes"
    licence = origin = "your own"

    def __init__(
        self,
        *,
        root: str | Path = "auto",
        channels: int = 3,
        fit: Fit = "crop",
        test_share: float = TEST_SHARE,
        **keys: Any,
    ) -> None:
        if isinstance(channels, bool) or channels not in (1, 3):
            raise ConfigError(f"data.channels={to_override(channels)}: expected 3, or 1 for grey")
        if fit not in ("crop", "pad", "stretch"):
            raise ConfigError(f"data.fit={to_override(fit)}: expected crop, pad or stretch")
        try:
            require_number("test_share", test_share, above=0, below=1)
        except ValueError as error:
            message = f"data.test_share={to_override(test_share)}: expected a number above 0, below 1; for instance 0.2"
            raise ConfigError(message) from error
        if root == "auto" or expand_home(root) == default_root():
            raise ConfigError("data=imagefolder: which folder? Name the one of your pictures with data.root=FOLDER")
        self.channels, self.fit, self.test_share = channels, fit, test_share
        self.top = expand_home(root).resolve()
        self.folders = self.given_splits = find_splits(self.top)
        self.classes = class_names(self.folders)
        self.own_mean = self.own_std = ()
        self.size = min(self.native, LARGEST_AUTO)
        super().__init__(root=root, **keys)

    # ---- the pictures and their splits ----------------------------------------------------------------------------

    @cached_property
    def pictures(self) -> dict[str, list[Picture]]:
        """The pictures of train, val and test, each alternating between the classes; val may be empty.

        Raises:
            DataError: a folder has no picture.
        """
        found: dict[str, list[Picture]] = {"val": [], "test": []}
        for split, folder in self.folders.items():
            found[split] = list_pictures(folder, self.classes)
            if not found[split]:
                raise DataError(f"{folder}: its folders hold no picture; put some there, or remove it")
        if not found["test"]:
            train = found["train"]
            labels = np.array([picture.label for picture in train])
            chosen = stratified(labels, max(1, round(len(labels) * self.test_share)), TEST_SEED)
            found["test"] = [train[at] for at in chosen]
            found["train"] = [train[at] for at in np.delete(np.arange(len(train)), chosen)]
        return found

    def official_pictures(self, official: Official) -> list[Picture]:
        """The pictures of an official split, in the official order; those of the folder `val` are at the end of the train split."""
        return self.pictures["test"] if official == "test" else self.pictures["train"] + self.pictures["val"]

    def files(self) -> list[Path]:
        """All pictures, ordered by path."""
        return sorted(picture.path for pictures in self.pictures.values() for picture in pictures)

    def count(self, official: Official) -> int:
        """Number of picture files in an official split."""
        return len(self.official_pictures(official))

    def labels(self, official: Official) -> np.ndarray:
        """(N,) int64, from the folders' names."""
        return np.array([picture.label for picture in self.official_pictures(official)], dtype=np.int64)

    def check(self) -> None:
        """Checks that every class has a picture to train on, and that the test pictures, which are decoded last, can be read.

        Raises:
            DataError: names the class or the pictures.
        """
        ignored = Counter(path.suffix.lower() for folder in self.folders.values() for path in other_files(folder))
        if ignored:
            named = ", ".join(f"{n} {suffix or 'without an ending'}" for suffix, n in ignored.most_common(MAX_NAMED))
            log.warning("data=imagefolder: files left out that are not pictures it can read: %s", named)
        tested = [picture.path for picture in self.pictures["test"]]
        available = {picture.label for picture in self.pictures["train"]}
        for label, name in enumerate(self.classes):
            folder = self.folders["train"] / name
            if label in available:
                continue
            if any(path.is_relative_to(folder) for path in tested):
                raise DataError(
                    f"{folder}: holds too few pictures, the test takes all of them (data.test_share={self.test_share}); add some"
                )
            raise DataError(f"{folder}: holds no picture to train on; put some there, or remove the folder")
        if self._errors(tested):
            self._refuse_unreadable()

    def portable_name(self, path: Path) -> str:
        """A picture's path below the root."""
        return str(path.relative_to(self.top))

    def split(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices (train, val); with a folder `val`, `train_size` and `val_size` count within their own folder."""
        validating = len(self.pictures["val"])
        if not validating:
            return super().split(labels)
        keys, trained = self.keys, len(labels) - validating
        train = size_indices(keys.train_size, trained, "data.train_size")
        val = trained + size_indices(keys.val_size, validating, "data.val_size")
        return keep_fraction(train, labels, keys.fraction, keys.split_seed), val

    def measure_mean_std(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel of the train images in use, at the net's size, before augmentation."""
        train = self.images["train"]
        if train.source.shape[-1] == self.image_size and not train.source.is_meta:
            return train.statistics()
        return self._statistics(self.image_size, self.indices["train"])

    @property
    def _facts_name(self) -> str:
        return f"{self.name}-{self.channels}-{self.test_share}"

    # ---- decoding -------------------------------------------------------------------------------------------------

    def decoder(self, official: Official, side: int) -> Decode:
        """A function: rows (n,) -> pixels (n, C, side, side) uint8. It raises `DataError` naming unreadable pictures."""
        paths = [picture.path for picture in self.official_pictures(official)]

        def decode(rows: np.ndarray) -> np.ndarray:
            chosen = [paths[row] for row in rows]
            read = list(in_parallel(lambda path: self._decode(path, side), chosen))
            if any(isinstance(error, ConfigError) for error in read):
                self._refuse_unreadable()
            self._facts.require_unchanged(chosen)
            return np.stack(read)

        return decode

    def decoding_key(self, official: Official) -> str:
        """The official split, a hash of its pictures' names in their order, and `fit`."""
        names = "\n".join(self.portable_name(picture.path) for picture in self.official_pictures(official))
        return f"{official}-{hashlib.sha256(os.fsencode(names)).hexdigest()[:8]}-{self.fit}"

    def _errors(self, paths: list[Path]) -> list[ConfigError]:
        """The errors of the pictures that cannot be read."""
        title = f"{self.name}: looking for unreadable pictures"
        read = in_parallel(lambda path: self._decode(path, 1), paths, title)
        return [error for error in read if isinstance(error, ConfigError)]

    def _refuse_unreadable(self) -> NoReturn:
        """Raises `DataError` that names the pictures of the set that cannot be read, the first ten of many, or the absent folder."""
        if not self.top.is_dir():
            raise DataError(f"data.root={self.top}: the folder has gone since this command began; put it back")
        errors = self._errors(self.files())
        if len(errors) == 1:
            raise DataError(f"{errors[0]}; replace or remove it")
        more = [f"and {len(errors) - MAX_NAMED} more"] * (len(errors) > MAX_NAMED)
        listed = [f"    {line}" for line in (*errors[:MAX_NAMED], *more)]
        raise SeveralLines(f"{len(errors)} pictures cannot be read; replace or remove them", *listed)

    def _decode(self, path: Path, side: int) -> np.ndarray | ConfigError:
        """(C, side, side) uint8, or the error."""
        from PIL import Image

        try:
            image = read_image(path, self.channels, fit=self.fit).resize((side, side), Image.Resampling.BILINEAR)
        except ConfigError as error:
            return error
        return np.asarray(image).reshape(side, side, self.channels).transpose(2, 0, 1)

    @cached_property
    def native(self) -> int:
        """The most common shorter side of the train pictures in pixels; the larger of two that are as common."""
        if known := self._facts.load().get("native"):
            return known
        sides = Counter(
            filter(None, in_parallel(short_side, [picture.path for picture in self.official_pictures("train")]))
        )
        native = max(sides, key=lambda side: (sides[side], side), default=LARGEST_AUTO)
        self._facts.save(native=native)
        return native
