"""Import of foreign `.pt` checkpoints as versions of the registry.

A child process with limited memory and time converts the file. Its reader (`checkpoint`) executes
no code from the file. This module does not import torch.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from disk_space import check_room
from errors import InvalidModelFile, ValidationFailed
from files import sha256_of, temporary_folder
from models_store.description import ModelDescription, Task
from models_store.foreign.file_type import check_checkpoint
from models_store.names import check_name, suggest_name
from models_store.registry import Registry
from models_store.subprocesses import ChildTimeout, run_module
from models_store.versions import ModelVersion

log = logging.getLogger(__name__)

TIMEOUT = 600.0  # seconds for one conversion
MAX_FILE = 4 * 1024**3  # bytes
COPIES = 4  # sizes of the file that a conversion writes: weights, ONNX, and both in the store
IMGSZ = range(32, 4097)


@dataclass(frozen=True)
class Conversion:
    """What a checkpoint must be, and what replaces what it says of itself.

    Attributes:
        family: Refuse the file unless it is of this family; default: accept both.
        task: Refuse the file unless its model is for this task.
        names: Class names that replace those of the file, in the order of the outputs.
        imgsz: Side of the input in pixels; replaces that of the file.
        description: Free text shown with the model.
    """

    family: Literal["yolo", "mobilenet"] | None = None
    task: Task | None = None
    names: Sequence[str] | None = None
    imgsz: int | None = None
    description: str = ""

    def check(self) -> None:
        """Refuse, before any file is read, what is not valid for any file.

        Raises:
            ValidationFailed: The class names or imgsz are not valid.
        """
        if self.imgsz is not None and self.imgsz not in IMGSZ:
            raise ValidationFailed(f"imgsz is {self.imgsz}; allowed is {IMGSZ[0]} to {IMGSZ[-1]}.")
        if self.names is not None and not (self.names and all(map(str.strip, self.names))):
            raise ValidationFailed(
                "Class names must not be empty: give one name per output of the model, in order."
            )

    def convert(self, path: Path, folder: Path, timeout: float) -> dict[str, Any]:
        """Convert a checkpoint into an empty model folder; returns facts about its origin.

        Raises:
            InvalidModelFile, ValidationFailed: As `import_model`.
        """
        origin = convert_checkpoint(
            path,
            folder,
            timeout=timeout,
            family=self.family,
            names=None if self.names is None else list(self.names),
            imgsz=self.imgsz,
            description=self.description,
        )
        if self.task is not None and (found := ModelDescription.load(folder).task) != self.task:
            raise InvalidModelFile(f"The model is for {found}, not for {self.task}.")
        return origin


AS_IT_IS = Conversion()


def import_model(
    registry: Registry,
    path: Path,
    conversion: Conversion = AS_IT_IS,
    *,
    name: str | None = None,
    promote: bool = False,
    source: Mapping[str, Any] = MappingProxyType({}),
    timeout: float = TIMEOUT,
) -> ModelVersion:
    """Import a checkpoint: Ultralytics YOLO (four tasks), or torchvision's MobileNetV2.

    Args:
        registry: The registry to publish in.
        path: The checkpoint file.
        conversion: What the file must be, and what of it is replaced.
        name: Model name; default: derived from the file's name.
        promote: Make it the promoted version of its name.
        source: Further facts about its origin; `kind` replaces `import`.
        timeout: Maximum duration of the conversion in seconds.

    Raises:
        InvalidModelFile: The file is refused; the message says why.
        ValidationFailed: The name, the class names or imgsz are not valid.
        InsufficientStorage: The disk has no room for the conversion and the reserve.
    """
    name = check_name(name if name is not None else suggest_name(path.stem))
    conversion.check()
    check_checkpoint(path)
    if path.stat().st_size > MAX_FILE:
        raise InvalidModelFile(
            f"The file is larger than {MAX_FILE // 1024**3} GiB. Save only the model, without "
            "optimizer and EMA (Ultralytics: strip_optimizer)."
        )
    check_room(registry.settings, COPIES * path.stat().st_size)
    with temporary_folder(registry.settings.paths.scratch) as folder:
        origin = conversion.convert(path, folder, timeout)
        facts: dict[str, Any] = {"kind": "import", "parent": None, "file": path.name[:200]}
        facts |= {"sha256": sha256_of(path), **({"origin": origin} if origin else {}), **source}
        return registry.publish(folder, name, facts, promote=promote)


def convert_checkpoint(
    path: Path, folder: Path, *, timeout: float = TIMEOUT, **options: Any
) -> dict[str, Any]:
    """Convert a checkpoint into a model folder, without publishing it, in a child process.

    Args:
        path: The foreign file.
        folder: Exists and is empty.
        timeout: Maximum seconds.
        options: Keyword arguments of `models_store.foreign.convert.convert`.

    Returns:
        Facts about the file's origin.

    Raises:
        InvalidModelFile, ValidationFailed: As `import_model`.
    """
    start = time.monotonic()
    # torch takes seconds to import: what can be refused without it is refused first
    _in_child("models_store.foreign.checkpoint", path.resolve(), timeout, "tensors")
    left = timeout - (time.monotonic() - start)
    request = {"path": str(path.resolve()), "folder": str(folder), **options}
    request |= {"cpu_seconds": int(timeout) * 4}
    return _in_child("models_store.foreign.convert", json.dumps(request), left, "origin")


def _in_child(module: str, argument: str | Path, timeout: float, key: str) -> Any:
    """What a module prints under `key`, run in a child process.

    Raises:
        InvalidModelFile, ValidationFailed: The error that it prints, or it was killed.
    """
    try:
        child = run_module(module, [argument], timeout)
    except ChildTimeout:
        raise InvalidModelFile(
            f"The model could not be converted within {timeout:.0f} seconds. Try again when the "
            "machine is less busy, or raise VISIONLOOP_IMPORT_TIMEOUT."
        ) from None
    lines = child.stdout.strip().splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else {}
    except ValueError:
        answer = {}
    if child.returncode == 0 and key in answer:
        return answer[key]
    if "error" in answer:
        kind = ValidationFailed if answer.get("code") == ValidationFailed.code else InvalidModelFile
        raise kind(answer["error"])
    log.error("The conversion ended with %d:\n%s", child.returncode, child.stderr[-4000:])
    if child.returncode < 0:
        reason = f"was killed by signal {-child.returncode}; it may need too much memory or time"
    else:
        reason = "failed unexpectedly; the log has the details"
    raise InvalidModelFile(f"The model could not be converted: the conversion {reason}.")
