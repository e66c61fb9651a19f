"""Pickles whose classes and functions are inert stand-ins: nothing that they name is run.

A stand-in only stores name, arguments and state. A pickle that refers to a name that is not allowed
is refused. Tensors become references into the file.
"""

from __future__ import annotations

import collections
import pickle
import pickletools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from errors import InvalidModelFile

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

GAP = 1000  # places of stored objects that a pickle may leave out; those of torch leave out none

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


def load(file: BinaryIO) -> Any:
    """The next object in a file, made of inert stand-ins only.

    Raises:
        InvalidModelFile: It refers to a name that is not allowed, or would take far more memory
            than it has bytes.
        Exception: It is damaged.
    """
    start = file.tell()
    check_memo(file)
    file.seek(start)
    return _InertUnpickler(file).load()


def check_memo(file: BinaryIO) -> None:
    """Refuse a pickle that stores an object at a place far beyond the number of stored objects.

    Python would allocate memory for all places before it: up to 64 GiB for a pickle of ten bytes.

    Raises:
        InvalidModelFile: See above.
        ValueError: It is damaged.
    """
    stored = 0
    for operation, place, _ in pickletools.genops(file):
        if operation.name == "MEMOIZE":
            stored += 1
        elif operation.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            stored += 1
            if not isinstance(place, int) or place > stored + GAP:
                raise InvalidModelFile(
                    "The checkpoint is damaged, or made to exhaust memory: it stores object "
                    f"{stored:,} at place {place:,}. Copy or download it again."
                )


class _InertUnpickler(pickle.Unpickler):
    """Unpickler that creates inert stand-ins only."""

    def __init__(self, file: BinaryIO) -> None:
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
