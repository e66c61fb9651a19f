"""Reader of foreign `.pt` checkpoints that executes none of their code.

A checkpoint is a pickle, and unpickling normally executes code. This reader replaces every class
and function in the pickle by an inert stand-in, which only stores name, arguments and state.
A file that refers to a name that is not allowed is refused. Tensors are references into the
archive until `Checkpoint.array` reads them. This module does not import torch.
"""

from __future__ import annotations

import collections
import io
import json
import math
import pickle
import re
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from errors import InvalidModelFile, VisionLoopError
from models_store.file_type import MOST_ENTRIES
from models_store.subprocesses import GIB, limit_self
from zip_bounds import ZipRefused, check_growth, open_zip

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first value in the file format before torch 1.6
MAX_PICKLE = 256 * 1024**2  # bytes; a YOLO checkpoint's is 0.1 MB
MAX_TENSOR = 2 * 1024**3  # bytes
MOST_GROWTH = 16  # bytes of all tensors as float32, as a multiple of the file's size
SMALL = 2**26  # bytes that tensors may take whatever the file's size
WIDEST = 4  # bytes of an element after conversion
MEMORY, CPU_SECONDS = 4 * GIB, 10  # limits of the process that reads a checkpoint
REFUSED_EXIT = 3  # the error is in the printed JSON

DTYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "BFloat16Storage": "bf16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}

ALLOWED = re.compile(
    r"torch\.nn\.(modules\.\w+\.\w+|Module|parameter\.\w+)"
    r"|torch\.(Size|device|dtype|float16|float32|float64|int64|storage\.\w+|Tensor|Generator)"
    r"|torch\._utils\._rebuild_(tensor(_v2)?|parameter(_with_state)?)|torch\._tensor\.\w+"
    r"|torch\.serialization\._get_layout|torch\.strided"
    r"|torchvision\.(transforms\.(v2\.)?\w+\.\w+|ops\.misc\.\w+|models\.mobilenetv2\.\w+)"
    r"|torchvision\.models\.mobilenet\.\w+"
    r"|ultralytics\.nn\.(modules(\.\w+)?\.\w+|tasks\.\w+|autobackend\.\w+)"
    r"|ultralytics\.(yolo\.)?utils\.(IterableSimpleNamespace|loss\.\w+|tal\.\w+|ops\.\w+)"
    r"|ultralytics\.(yolo\.)?data\.augment\.\w+|ultralytics\.yolo\.v8\.\w+\.train\.\w+"
    r"|collections\.(OrderedDict|defaultdict|Counter)|pathlib(\._local)?\.\w*Path"
    r"|(numpy|numpy\._?core\.multiarray)\.(dtype|scalar|_reconstruct|ndarray)"
    r"|numpy\.dtypes\.\w+|_codecs\.encode|types\.SimpleNamespace|argparse\.Namespace"
    r"|(builtins|__builtin__)\.(set|frozenset|dict|list|tuple|int|float|str|bool|bytes|bytearray"
    r"|complex|slice|range|getattr|object|unicode|long)"
    r"|functools\.partial|copyreg\._reconstructor|copy_reg\._reconstructor|dill\._dill\._load_type"
)


class Inert:
    """Inert stand-in for a class or function in a pickle: stores calls and state, runs nothing.

    Attributes:
        args: Arguments of the call.
        state: Attributes and items that the pickle set.
    """

    qualified = "?"
    args: tuple[Any, ...]
    items: list[Any]
    state: Any
    __slots__ = ("args", "items", "state")

    def __new__(cls, *args: Any, **_: Any) -> Inert:
        made = super().__new__(cls)
        made.args, made.state, made.items = args, {}, []
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2:  # (attributes, slots)
            state = {**(state[0] or {}), **(state[1] or {})}
        self.state = state

    def append(self, item: Any) -> None:
        self.items.append(item)

    def extend(self, items: Any) -> None:
        self.items.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def __hash__(self) -> int:
        return id(self)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute that the pickle set."""
        return self.state.get(name, default) if isinstance(self.state, dict) else default

    @property
    def kind(self) -> str:
        """The class's name without its module."""
        return self.qualified.rpartition(".")[2]


@dataclass(frozen=True)
class TensorReference:
    """The position of a tensor in the archive; sizes and strides in elements."""

    storage: StorageReference
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a tensor with a state")


@dataclass(frozen=True)
class StorageReference:
    key: str
    dtype: str
    elements: int

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a storage with a state")


class _Function:
    """A stand-in for one of torch's rebuild functions; the pickle cannot change it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function with a state")


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorReference:
    if not isinstance(storage, StorageReference):
        raise pickle.UnpicklingError("a tensor without storage")
    numbers = (offset, *size, *stride)
    if not all(isinstance(n, int) and 0 <= n < 2**40 for n in numbers) or len(size) != len(stride):
        raise pickle.UnpicklingError("a tensor of impossible shape")
    return TensorReference(storage, offset, tuple(size), tuple(stride))


REAL: dict[str, Any] = {
    "collections.OrderedDict": collections.OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "torch._utils._rebuild_tensor": _Function(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": _Function(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Function(lambda data, *_: data),
    "torch._utils._rebuild_parameter_with_state": _Function(lambda data, *_: data),
    "torch.Size": _Function(lambda size=(): tuple(size)),
}
"""The names in a pickle that stand for working functions, not for inert stand-ins."""


def inert_class(qualified: str) -> type[Inert]:
    return type(qualified.rpartition(".")[2], (Inert,), {"__slots__": (), "qualified": qualified})


REAL["dill._dill._load_type"] = _Function(lambda name: inert_class(f"builtins.{name}"))


class _Reader(pickle.Unpickler):
    """Unpickler that creates inert stand-ins only."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        super().__init__(file)
        self._classes: dict[str, Any] = dict(REAL)

    def find_class(self, module: str, name: str) -> Any:
        qualified = f"{module}.{name}"
        if qualified not in self._classes:
            storage = name if module in ("torch", "torch.cuda") and name in DTYPES else None
            if storage is None and ("." in name or not ALLOWED.fullmatch(qualified)):
                raise _refusal(module, name)
            self._classes[qualified] = inert_class(qualified)
        return self._classes[qualified]

    def persistent_load(self, pid: Any) -> StorageReference:
        _, kind, key, _, elements, *_ = pid
        name = kind.__name__ if isinstance(kind, type) else ""
        if name not in DTYPES or not isinstance(elements, int):
            raise InvalidModelFile(
                f"The checkpoint holds tensors of an unsupported type {name!r}. Save the model in "
                "float32 or float16."
            )
        return StorageReference(str(key), DTYPES[name], elements)


def _refusal(module: str, name: str) -> InvalidModelFile:
    top = module.split(".")[0]
    if top in ("models", "yolov5") and module not in ("models.mobilenet",):
        return InvalidModelFile(
            f"This is a YOLOv5 checkpoint (it names {module}.{name}), which only works with the "
            "original YOLOv5 code. Train a YOLOv8 or newer model, or use Ultralytics' "
            "'yolov5nu'."
        )
    if module.startswith("ultralytics.models.sam") or top in ("segment_anything", "sam2"):
        return InvalidModelFile(
            "This is a SAM checkpoint. Segment Anything models cannot be imported; import a YOLO "
            "-seg model."
        )
    return InvalidModelFile(
        f"The checkpoint was rejected: it names {f'{module}.{name}'[:120]!r}, which is not part "
        "of a plain YOLO or MobileNet model and could run code. No code of it was run. Save the "
        "model with plain Ultralytics or torchvision."
    )


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
    root = _Reader(io.BytesIO(archive.read(pickles[0]))).load()

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
        if _Reader(file).load() != LEGACY_MAGIC:
            raise InvalidModelFile(
                "The file is a pickle, but not a PyTorch checkpoint. Import the .pt that the "
                "training saved."
            )
        for _ in ("protocol", "system"):
            _Reader(file).load()
        reader = _Reader(file)
        root = reader.load()
        keys = _Reader(file).load()
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


def model_of(root: Any) -> tuple[Inert | None, dict[str, TensorReference]]:
    """The network in a checkpoint, or None if it has only weights; and the state dict.

    Raises:
        InvalidModelFile: It holds no network that can be imported; the message says what it holds.
    """
    candidate = root
    if isinstance(root, dict):
        for key in ("ema", "model", "model_state_dict", "state_dict", "net"):
            if root.get(key):
                candidate = root[key]
                break
    if isinstance(candidate, Inert) and not candidate.get("_modules"):
        candidate = candidate.get("model") or candidate
    if isinstance(candidate, Inert):
        if candidate.kind == "RTDETRDetectionModel":
            raise InvalidModelFile(
                "This is an RT-DETR checkpoint. Supported are YOLO models for detection, "
                "segmentation, pose and classification, and MobileNetV2."
            )
        state = dict(_state_dict(candidate))
        if not state:
            raise InvalidModelFile(f"The checkpoint holds a {candidate.kind}, not a model.")
        return candidate, state
    if isinstance(candidate, dict) and candidate:
        state = {
            str(name).removeprefix("module."): value
            for name, value in candidate.items()
            if isinstance(value, TensorReference)
        }
        if state and looks_like_mobilenet(state):
            return None, state
        if any(name.startswith(("image_encoder.", "sam_", "memory_")) for name in state):
            raise InvalidModelFile(
                "This is a SAM checkpoint. Segment Anything models cannot be imported; import a "
                "YOLO -seg model."
            )
        if state:
            raise InvalidModelFile(
                "The file contains weights without an architecture (a state dict). Save the "
                "whole checkpoint, as Ultralytics' training does. Only torchvision's "
                "mobilenet_v2 can be imported from its state dict."
            )
    raise InvalidModelFile(
        "The PyTorch file contains no model. Import the checkpoint that the training saved "
        "(best.pt)."
    )


def _state_dict(module: Inert, prefix: str = "") -> Iterator[tuple[str, TensorReference]]:
    transient = module.get("_non_persistent_buffers_set") or ()
    for kind in ("_parameters", "_buffers"):
        for name, value in (module.get(kind) or {}).items():
            if isinstance(value, TensorReference) and name not in transient:
                yield prefix + name, value
    for name, child in (module.get("_modules") or {}).items():
        if isinstance(child, Inert):
            yield from _state_dict(child, f"{prefix}{name}.")


def looks_like_mobilenet(state: Mapping[str, TensorReference]) -> bool:
    """Whether a state dict is that of torchvision's mobilenet_v2."""
    return "features.0.0.weight" in state and "classifier.1.weight" in state


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


def refused(error: VisionLoopError) -> int:
    """Print an error as JSON for the process that started this one; the exit code to end with."""
    print(json.dumps({"error": error.message, "code": error.code}), flush=True)
    return REFUSED_EXIT


def main() -> int:
    """Read a checkpoint and check it, without torch: `python -m models_store.checkpoint FILE`."""
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


def references(value: Any) -> Iterator[StorageReference]:
    """All storages that an object read from a pickle refers to."""
    stack, seen = [value], set()
    while stack:
        item = stack.pop()
        if isinstance(item, TensorReference):
            yield item.storage
        elif id(item) not in seen:
            seen.add(id(item))
            if isinstance(item, dict):
                stack.extend(item.values())
            elif isinstance(item, list | tuple | set):
                stack.extend(item)
            elif isinstance(item, Inert):
                stack.extend((item.state, item.args, item.items))


if __name__ == "__main__":
    sys.exit(main())
