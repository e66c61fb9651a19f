"""Reader of foreign `.pt` checkpoints that executes none of their code.

A checkpoint is a pickle, and unpickling normally executes code; `inert_pickle` reads it without.
Tensors are references into the archive until `Checkpoint.array` reads them. This module does not
import torch.
"""

from __future__ import annotations

import io
import json
import math
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from errors import InvalidModelFile, VisionLoopError
from models_store.foreign.file_type import MOST_ENTRIES
from models_store.foreign.inert_pickle import (
    StorageReference,
    TensorReference,
    load,
    references,
)
from models_store.foreign.network import model_of
from models_store.subprocesses import GIB, limit_self, refused
from zip_bounds import ZipRefused, check_growth, open_zip

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first value in the file format before torch 1.6
MAX_PICKLE = 256 * 1024**2  # bytes; a YOLO checkpoint's is 0.1 MB
MAX_TENSOR = 2 * 1024**3  # bytes
MOST_GROWTH = 16  # bytes of all tensors as float32, as a multiple of the file's size
SMALL = 2**26  # bytes that tensors may take whatever the file's size
WIDEST = 4  # bytes of an element after conversion
MEMORY, CPU_SECONDS = 4 * GIB, 10  # limits of the process that reads a checkpoint


@dataclass
class Checkpoint:
    """The content of a `.pt` file as inert stand-ins, with access to its tensors."""

    root: Any
    file_size: int
    _storages: Callable[[StorageReference], bytes]
    _lengths: Callable[[StorageReference], int]
    _cache: dict[str, bytes] = field(default_factory=dict)

    def array(self, reference: TensorReference) -> np.ndarray:
        """A copy of a tensor's values; bfloat16 as float32.

        Raises:
            InvalidModelFile: The tensor extends beyond its storage.
        """
        count = self.check(reference)
        storage = reference.storage
        width = _width(storage)
        if storage.key not in self._cache:
            self._cache = {storage.key: self._storages(storage)}  # often shared by tensors
        data = self._cache[storage.key]
        if len(data) < storage.elements * width:
            raise InvalidModelFile(
                "The checkpoint is truncated: tensor data is missing. Copy or download it again."
            )
        if not count:
            return np.zeros(reference.size, np.float32)
        dtype = "<u2" if storage.dtype == "bf16" else storage.dtype
        flat = np.frombuffer(data, dtype, storage.elements)[reference.offset :]
        strides = tuple(step * flat.itemsize for step in reference.stride)
        view = np.lib.stride_tricks.as_strided(flat, reference.size, strides)
        if storage.dtype == "bf16":
            return (view.astype(np.uint32) << 16).view(np.float32)
        return np.ascontiguousarray(view).reshape(reference.size).copy()

    def check(self, reference: TensorReference) -> int:
        """The number of a tensor's elements, after checks that read none of its data.

        Raises:
            InvalidModelFile: It extends beyond its storage, or its storage beyond the file's data.
        """
        storage = reference.storage
        count = math.prod(reference.size)
        steps = zip(reference.size, reference.stride, strict=True)
        last = reference.offset + sum((size - 1) * stride for size, stride in steps)
        if count and (last >= storage.elements or count > storage.elements):
            raise InvalidModelFile(
                "The checkpoint is damaged: a tensor exceeds its storage. Copy or download it "
                "again."
            )
        if storage.elements * _width(storage) > MAX_TENSOR:
            raise InvalidModelFile(
                "The checkpoint holds a tensor of more than 2 GiB. Save only the model, in half "
                "precision."
            )
        if count and self._lengths(storage) < storage.elements * _width(storage):
            raise InvalidModelFile(
                "The checkpoint is truncated: tensor data is missing. Copy or download it again."
            )
        return count


def _width(storage: StorageReference) -> int:
    """Bytes of an element."""
    return 2 if storage.dtype == "bf16" else np.dtype(storage.dtype).itemsize


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file that `torch.save` wrote.

    Raises:
        InvalidModelFile: The file is damaged, or refers to a name that is not allowed.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
        return _read_zip(path) if head == b"PK\x03\x04" else _read_legacy(path)
    except InvalidModelFile:
        raise
    except ZipRefused as error:
        raise InvalidModelFile(f"The checkpoint is refused: {error}") from None
    except MemoryError:
        raise InvalidModelFile(
            "The checkpoint needs too much memory to be read. Save it without optimizer and EMA "
            "(Ultralytics: strip_optimizer)."
        ) from None
    except Exception as error:  # a damaged pickle can raise anything
        detail = f"{type(error).__name__}: {error}"[:160]
        raise InvalidModelFile(
            f"The checkpoint is damaged and cannot be read ({detail}). Copy or download it again."
        ) from (error)


def _read_zip(path: Path) -> Checkpoint:
    archive = open_zip(path, MOST_ENTRIES)
    check_growth(archive.infolist())
    names = archive.namelist()
    pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise InvalidModelFile(
            "The file is a zip archive, but not a PyTorch checkpoint. Import the .pt that the "
            "training saved."
        )
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in names:
        raise InvalidModelFile(
            "This is a TorchScript archive. Import the original .pt checkpoint that it was "
            "exported from."
        )
    if archive.getinfo(pickles[0]).file_size > MAX_PICKLE:
        raise InvalidModelFile(
            "The checkpoint's description is larger than allowed. Save only the model, without "
            "optimizer and history."
        )
    if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
        raise InvalidModelFile(
            "The checkpoint was saved on a big-endian machine. Load it there, and save it on a "
            "little-endian one."
        )
    root = load(io.BytesIO(archive.read(pickles[0])))

    def entry(reference: StorageReference) -> zipfile.ZipInfo:
        try:
            return archive.getinfo(f"{folder}data/{reference.key}")
        except KeyError:
            raise InvalidModelFile(
                "The checkpoint lacks the data of some tensors. Copy or download it again."
            ) from None

    def storage(reference: StorageReference) -> bytes:
        info = entry(reference)
        if info.file_size > MAX_TENSOR:
            raise InvalidModelFile(
                "The checkpoint holds a tensor of more than 2 GiB. Save only the model, in half "
                "precision."
            )
        return archive.read(info)

    size = path.stat().st_size
    return Checkpoint(root, size, storage, lambda reference: entry(reference).file_size)


def _read_legacy(path: Path) -> Checkpoint:
    with path.open("rb") as file:
        if load(file) != LEGACY_MAGIC:
            raise InvalidModelFile(
                "The file is a pickle, but not a PyTorch checkpoint. Import the .pt that the "
                "training saved."
            )
        for _ in ("protocol", "system"):
            load(file)
        root, keys = load(file), load(file)
        widths = {ref.key: ref for ref in references(root)}
        storages: dict[str, bytes] = {}
        for key in keys:
            (elements,) = struct.unpack("<q", file.read(8))
            reference = widths.get(str(key))
            if reference is None:
                raise InvalidModelFile(
                    "The checkpoint has an old format and contains unknown data. Save it again "
                    "with a current PyTorch."
                )
            width = 2 if reference.dtype == "bf16" else np.dtype(reference.dtype).itemsize
            if not 0 <= elements * width <= MAX_TENSOR:
                raise InvalidModelFile(
                    "The checkpoint is damaged: a tensor of impossible size. Copy or download it "
                    "again."
                )
            storages[str(key)] = file.read(elements * width)
            if len(storages[str(key)]) < elements * width:
                raise InvalidModelFile(
                    "The checkpoint is truncated: tensor data is missing. Copy or download it "
                    "again."
                )
    size = path.stat().st_size

    def storage(reference: StorageReference) -> bytes:
        return storages.get(reference.key, b"")

    return Checkpoint(root, size, storage, lambda reference: len(storage(reference)))


def check_sizes(checkpoint: Checkpoint, state: Mapping[str, TensorReference]) -> None:
    """Check what the tensors would take in memory, before the first is read.

    Raises:
        InvalidModelFile: A tensor is larger than its storage or than 2 GiB, its data is missing,
            or all of them are far larger than the file.
    """
    total = 0
    for reference in state.values():
        checkpoint.check(reference)
        total += math.prod(reference.size) * WIDEST
    most = max(MOST_GROWTH * checkpoint.file_size, SMALL)
    if total > most:
        raise InvalidModelFile(
            f"The checkpoint's tensors would take {total / 2**20:,.0f} MiB, but the file has "
            f"{checkpoint.file_size / 2**20:,.1f} MiB. It is damaged, or made to exhaust memory."
        )


def main() -> int:
    """Read a checkpoint and check it: `python -m models_store.foreign.checkpoint FILE`."""
    limit_self(MEMORY, CPU_SECONDS)
    try:
        checkpoint = read_checkpoint(Path(sys.argv[1]))
        _, state = model_of(checkpoint.root)
        check_sizes(checkpoint, state)
    except VisionLoopError as error:
        return refused(error)
    except (MemoryError, RecursionError):
        return refused(
            InvalidModelFile(
                "The checkpoint needs too much memory to be read. Save it without optimizer and "
                "EMA (Ultralytics: strip_optimizer)."
            )
        )
    except Exception as error:  # as in `read_checkpoint`: the pickle decides what is where
        detail = f"{type(error).__name__}: {error}"[:160]
        return refused(
            InvalidModelFile(
                f"The checkpoint is damaged and cannot be read ({detail}). Copy or download it "
                "again."
            )
        )
    print(json.dumps({"tensors": len(state)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
