"""What an exported file says about its model: the fields that Ultralytics writes and reads."""

from __future__ import annotations

import json
from datetime import datetime
from importlib.metadata import version
from typing import Any

from engines.options import ExportOptions
from models_store.description import ModelDescription

LICENSE = "AGPL-3.0 License (https://ultralytics.com/license)"  # of Ultralytics' networks
DOCS = "https://docs.ultralytics.com"


def metadata(
    description: ModelDescription, model_id: str, options: ExportOptions
) -> dict[str, Any]:
    """The metadata of an export, as Ultralytics' exporter names and types it.

    `dynamic` decides whether Ultralytics pads images to a rectangle, as this server does, or to a
    square of `imgsz`; a fixed graph gets batches of `batch` images from it. `visionloop` is our
    own: the model and its preprocessing.
    """
    yolo = description.family == "yolo"
    found: dict[str, Any] = {
        "description": f"VisionLoop {model_id}",
        "author": "VisionLoop",
        "date": datetime.now().astimezone().isoformat(),
        "version": version("ultralytics"),
        **({"license": LICENSE, "docs": DOCS} if yolo else {}),
        "stride": description.stride,
        "task": description.task,
        "head": description.architecture["head"][-1][2] if yolo else "Classify",
        "batch": options.max_batch,
        "imgsz": [options.imgsz, options.imgsz],
        "names": dict(enumerate(description.names)),
        "args": {
            "batch": options.max_batch,
            "dynamic": options.dynamic,
            "quantize": 16 if options.precision == "fp16" else None,
            "nms": None,
        },
        "channels": description.channels,
        "end2end": False,
    }
    if description.keypoint_shape is not None:
        found["kpt_shape"] = list(description.keypoint_shape)
    if (points := keypoint_names(description)) is not None:
        found["kpt_names"] = points
    about = {"model": model_id, "family": description.family}
    about["preprocessing"] = description.preprocessing.model_dump_json()
    found["visionloop"] = json.dumps(about)
    return found


def keypoint_names(description: ModelDescription) -> dict[int, list[str]] | None:
    """The names of the keypoints by class, as Ultralytics has them."""
    if description.keypoint_names is None:
        return None
    return {i: list(description.keypoint_names) for i in range(len(description.names))}


def notes(description: ModelDescription, options: ExportOptions) -> list[str]:
    """Sentences on how other programs must treat images, so that they get the same results."""
    how = description.preprocessing
    found = []
    if description.any_size and options.format != "pt" and not options.dynamic:
        found.append(
            "The file takes images of one size: Ultralytics pads them to a square, this server to "
            "a rectangle. Boxes and scores differ a little. A .pt, or 'dynamic' where the format "
            "has it, gives the server's."
        )
    if description.family == "mobilenet" and options.format == "pt":
        found.append(
            "This is a state dict for torchvision's mobilenet_v2(num_classes="
            f"{len(description.names)}, width_mult={description.architecture['width_mult']}); it "
            f"has no class names. Its input is (x / 255 - {list(how.mean)}) / {list(how.std)} of "
            "RGB images."
        )
    usual = ("centre_crop", how.imgsz, "bilinear", True)
    own = (how.resize, how.resize_to, how.interpolation, how.antialias)
    if description.task == "classify" and own != usual:
        found.append(f"{_prepared(description)} Ultralytics prepares images in another way.")
    return found


def _prepared(description: ModelDescription) -> str:
    how = description.preprocessing
    kind = f"{how.interpolation}, {'with' if how.antialias else 'without'} antialiasing"
    if how.resize == "centre_crop":
        return (
            f"This server scales the shorter side of an image to {how.resize_to} pixels ({kind}) "
            f"and cuts {how.imgsz} x {how.imgsz} from its centre."
        )
    return f"This server resizes an image to {how.imgsz} x {how.imgsz} ({kind})."
