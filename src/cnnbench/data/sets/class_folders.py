"""Class folders on a disk: finds splits, classes and picture files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, NoReturn

from cnnbench.errors import DataError

IMAGE_SUFFIXES = frozenset(".jpg .jpeg .jfif .jp2 .png .webp .avif .bmp .gif .tif .tiff .tga .ppm .pgm .pbm".split())
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
LAYOUTS = "expected FOLDER/<class>/<pictures>, or FOLDER/train/<class>/<pictures> with val and test next to train"


class Picture(NamedTuple):
    """A picture file and the number of its class."""

    path: Path
    label: int


def find_splits(top: Path) -> dict[str, Path]:
    """The folders of `train`, and of `val` and `test` if there are any; a folder without splits is all `train`.

    Raises:
        DataError: there is no such folder, or its layout is not one of `LAYOUTS`.
    """
    if not top.is_dir():
        raise DataError(
            f"data=imagefolder data.root={top}: no such folder; name the folder of your pictures with data.root=..."
        )
    inside: dict[str, Path] = {}
    for folder in subfolders(top):
        other = inside.setdefault(folder.name.lower(), folder)
        if other != folder and other.name.lower() in sum(SPLITS.values(), ()):
            raise DataError(f"{top}: holds both {other.name} and {folder.name}; {LAYOUTS}")
    found = {split: inside[name] for split, names in SPLITS.items() for name in names if name in inside}
    named = ", ".join(folder.name for folder in inside.values())
    if "train" not in found:
        if found and len(found) == len(inside):
            raise DataError(f"{top}: holds {named}, and no train; {LAYOUTS}")
        if _look_like_splits(list(inside.values())):
            raise DataError(f"{top}: {named} hold the same class folders; {LAYOUTS}")
    if "train" not in found or not subfolders(found["train"]):
        return {"train": top}
    others = [folder.name for folder in inside.values() if folder not in found.values()]
    if others:
        raise DataError(f"{top}: holds {others[0]} next to {found['train'].name}; {LAYOUTS}")
    return found


def _look_like_splits(folders: list[Path]) -> bool:
    """Whether folders look like splits under other names: all have the same subfolders, and none has files."""
    inside = [{folder.name for folder in subfolders(split)} for split in folders]
    has_files = any(path.is_file() for split in folders for path in split.iterdir() if not _is_hidden(path.name))
    return not has_files and len(inside) > 1 and len(inside[0]) > 1 and all(names == inside[0] for names in inside)


def class_names(splits: dict[str, Path]) -> tuple[str, ...]:
    """The names of the class folders of `train`, in alphabetical order.

    Raises:
        DataError: there are fewer than two classes, or another split has a class that `train` lacks.
    """
    classes = tuple(folder.name for folder in subfolders(splits["train"]))
    if len(classes) < 2:
        found = f"{len(classes) or 'no'} class folder{'s' * (not classes)}"
        raise DataError(f"{splits['train']}: holds {found}, expected two at least; {LAYOUTS}")
    for folder in splits.values():
        unknown = [inside.name for inside in subfolders(folder) if inside.name not in classes]
        if unknown:
            raise DataError(
                f"{folder / unknown[0]}: there is no class {unknown[0]} in {splits['train']}; add it there, or remove it here"
            )
    return classes


def list_pictures(folder: Path, classes: Sequence[str]) -> list[Picture]:
    """The first picture file of each class, then the second of each class, and so on.

    The files of a class are ordered by path, with those in its subfolders, without hidden and other files.
    """
    by_class = [
        [Picture(path, label) for path in sorted(_files(folder / name)) if path.suffix.lower() in IMAGE_SUFFIXES]
        for label, name in enumerate(classes)
    ]
    return [picture for row in zip_longest(*by_class) for picture in row if picture]


def other_files(folder: Path) -> list[Path]:
    """Files below a folder that are not picture files, without hidden ones."""
    return [path for path in _files(folder) if path.suffix.lower() not in IMAGE_SUFFIXES]


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, ordered by name, without hidden ones.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_hidden(path.name))
    except OSError as error:
        _raise_unreadable(error)


def _files(folder: Path) -> list[Path]:
    """Files below a folder, through links, without hidden ones; none if there is no such folder."""
    if not folder.is_dir():  # a split may lack a class
        return []
    found, seen = [], {os.path.realpath(folder)}
    for place, inside, names in os.walk(folder, onerror=_raise_unreadable, followlinks=True):
        real = {name: os.path.realpath(os.path.join(place, name)) for name in inside}
        inside[:] = [name for name in inside if not _is_hidden(name) and real[name] not in seen]
        seen |= {real[name] for name in inside}  # a link may lead back
        paths = [Path(place, name) for name in names if not _is_hidden(name)]
        found += [path for path in paths if path.is_file() or not path.exists()]  # decoding reports broken links
    return found


def _raise_unreadable(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))
