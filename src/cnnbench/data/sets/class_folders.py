"""Class folders on a disk: which there are, and which pictures they hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, NoReturn

from cnnbench.errors import DataError

ENDINGS = frozenset(".jpg .jpeg .jfif .jp2 .png .webp .avif .bmp .gif .tif .tiff .tga .ppm .pgm .pbm".split())
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
LAYOUTS = "expected FOLDER/<class>/<pictures>, or FOLDER/train/<class>/<pictures> with val and test beside train"


class Picture(NamedTuple):
    """A file, and the number of its class."""

    path: Path
    label: int


def find_splits(top: Path) -> dict[str, Path]:
    """The folders of `train`, and of `val` and `test` where there are any; one without splits is all `train`."""
    if not top.is_dir():
        raise DataError(
            f"data=imagefolder data.root={top}: no such folder; name the folder of your pictures with data.root=..."
        )
    inside: dict[str, Path] = {}
    for folder in subfolders(top):
        twin = inside.setdefault(folder.name.lower(), folder)
        if twin != folder and twin.name.lower() in sum(SPLITS.values(), ()):
            raise DataError(f"{top}: holds both {twin.name} and {folder.name}; {LAYOUTS}")
    found = {split: inside[name] for split, names in SPLITS.items() for name in names if name in inside}
    if found and "train" not in found and len(found) == len(inside):
        raise DataError(f"{top}: holds {', '.join(folder.name for folder in found.values())}, and no train; {LAYOUTS}")
    if "train" not in found and _holds_splits(list(inside.values())):
        raise DataError(
            f"{top}: {', '.join(folder.name for folder in inside.values())} hold the same class folders; {LAYOUTS}"
        )
    if "train" not in found or not subfolders(found["train"]):
        return {"train": top}
    others = [folder.name for folder in inside.values() if folder not in found.values()]
    if others:
        raise DataError(f"{top}: holds {others[0]} beside {found['train'].name}; {LAYOUTS}")
    return found


def _holds_splits(folders: list[Path]) -> bool:
    """Whether folders look like splits under other names: without a file of their own, and with the same folders in them."""
    inside = [{folder.name for folder in subfolders(split)} for split in folders]
    bare = not any(path.is_file() for split in folders for path in split.iterdir() if not _is_hidden(path.name))
    return bare and len(folders) > 1 and len(set.union(*inside)) > 1 and all(names == inside[0] for names in inside)


def class_names(splits: dict[str, Path]) -> tuple[str, ...]:
    """The names of the class folders of `train`, in alphabetical order; other splits have none besides."""
    classes = tuple(folder.name for folder in subfolders(splits["train"]))
    if len(classes) < 2:
        raise DataError(
            f"{splits['train']}: holds {len(classes) or 'no'} class folder{'s' * (not classes)}, expected two at least; {LAYOUTS}"
        )
    for folder in splits.values():
        unknown = [inside.name for inside in subfolders(folder) if inside.name not in classes]
        if unknown:
            raise DataError(
                f"{folder / unknown[0]}: there is no class {unknown[0]} in {splits['train']}; add it there, or remove it here"
            )
    return classes


def pictures_of(folder: Path, classes: Sequence[str]) -> list[list[Picture]]:
    """The picture files of each class, by name, also those in folders within; hidden files and other files are left out."""
    return [
        [Picture(path, label) for path in sorted(_files(folder / name)) if path.suffix.lower() in ENDINGS]
        for label, name in enumerate(classes)
    ]


def others_in(folder: Path) -> list[Path]:
    """Files below a folder that are not taken for pictures; hidden ones are not counted."""
    return [path for path in _files(folder) if path.suffix.lower() not in ENDINGS]


def in_turn(classes: list[list[Picture]]) -> list[Picture]:
    """The first of each class, the second of each class, and so on."""
    return [picture for row in zip_longest(*classes) for picture in row if picture is not None]


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, by name; hidden ones are left out."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_hidden(path.name))
    except OSError as error:
        _refuse(error)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():  # a class may be absent from a split
        return []
    found, seen = [], {os.path.realpath(folder)}
    for place, inside, names in os.walk(folder, onerror=_refuse, followlinks=True):
        reals = {name: os.path.realpath(os.path.join(place, name)) for name in inside}
        inside[:] = [name for name in inside if not _is_hidden(name) and reals[name] not in seen]
        seen |= {reals[name] for name in inside}  # a link may lead back
        paths = [Path(place, name) for name in names if not _is_hidden(name)]
        found += [
            path for path in paths if path.is_file() or not path.exists()
        ]  # a broken link is named when it is read
    return found


def _refuse(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))
