"""Reads checkpoints, which may be from somebody else: tensors and plain values, of no more memory than the file has bytes."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import torch
from torch import Tensor

from cnnbench.errors import ConfigError
from cnnbench.files import open_read
from cnnbench.text import Values, one_line

MOST_PICKLE_BYTES = 16 << 20  # of the values that are no tensors; the records of 10,000 epochs take 2 MB
MOST_REPEATED_BYTES = 64 << 20  # of tensors that show the same numbers several times


def load_checkpoint(path: Path) -> Values:
    """Loads the tensors and plain values of a checkpoint to the CPU; executes no code of it.

    Raises:
        ConfigError: the file is absent, damaged or not a checkpoint.
    """
    try:
        return read_checkpoint(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: absent; the run has not validated yet") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not a checkpoint of cnnbench, or damaged ({error})") from error


def read_checkpoint(path: Path) -> Values:
    """Reads the content of a checkpoint to the CPU; executes no code of it.

    Raises:
        OSError: the file is absent or no regular file, or it cannot be read.
        MemoryError: it does not fit in memory.
        ValueError: it is damaged, or no checkpoint; the message is the reason.
    """
    with open_read(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > psutil.virtual_memory().total:
            raise ValueError(f"its {size / 1e9:,.1f} GB do not fit in memory")
        try:
            _require_intact_archive(file, size)
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
        except (MemoryError, OSError, _Unfit):
            raise
        except Exception as error:  # a flipped bit in a name or a flag may raise anything
            raise ValueError(type(error).__name__) from error
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__}, expected a dict")
    if _tensor_bytes(content) > size + MOST_REPEATED_BYTES:
        raise ValueError("its tensors are larger than the file")
    return content


class _Unfit(ValueError):
    """An archive that `torch.save` does not write."""


def _require_intact_archive(file: BinaryIO, size: int) -> None:
    """Checks the members of a checkpoint, also their checksums, which PyTorch does not check.

    Raises:
        ValueError: one is compressed, so that it may become larger than the file; overlaps another; is damaged; or is too large.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise _Unfit("its members are compressed")
        if sum(member.file_size for member in members) > size:
            raise _Unfit("its members are larger than the file")
        pickled = sum(member.file_size for member in members if member.filename.endswith(".pkl"))
        if pickled > MOST_PICKLE_BYTES:
            raise _Unfit(
                f"its values take {pickled / 1e6:,.0f} MB without tensors, expected at most {MOST_PICKLE_BYTES / 1e6:,.0f}"
            )
        if any(member.external_attr for member in members):  # PyTorch may take files for folders
            raise _Unfit("its members have attributes")
        if (damaged := archive.testzip()) is not None:
            raise _Unfit(f"the checksum of {damaged} is wrong")


def _tensor_bytes(content: Any) -> int:
    """The bytes of all tensors in nested lists and dicts if each had its own memory; a view may repeat a single number."""
    total, waiting, known = 0, [content], set()
    while waiting:
        value = waiting.pop()
        if id(value) in known:
            continue
        known.add(id(value))
        if isinstance(value, Tensor):
            total += value.numel() * value.element_size()
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return total
