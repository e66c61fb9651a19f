"""The network in a checkpoint that was read as inert stand-ins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from errors import InvalidModelFile
from models_store.foreign.inert_pickle import Inert, TensorReference


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
