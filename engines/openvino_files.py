"""The OpenVINO export: a folder with the intermediate representation (IR), in a zip."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from engines.options import SUFFIXES, ExportOptions
from engines.parity import Run
from inference.cpu._openvino import openvino
from models_store.description import ModelDescription


def write_openvino(
    graph: Path,
    folder: Path,
    options: ExportOptions,
    description: ModelDescription,
    metadata: Mapping[str, Any],
    stem: str,
) -> Path:
    """Convert a graph; returns the `.xml`, beside which lie its weights and `metadata.yaml`.

    Precision fp16 halves the weights only: OpenVINO chooses the precision of the layers by the
    device.
    """
    folder.mkdir()
    model = openvino.Core().read_model(str(graph))
    for name, value in _model_info(description).items():
        model.set_rt_info(value, ["model_info", name])
    path = folder / f"{stem}.xml"
    openvino.save_model(model, str(path), compress_to_fp16=options.precision == "fp16")
    text = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True)
    (folder / "metadata.yaml").write_text(text, encoding="utf-8")
    return path


def pack(folder: Path, path: Path) -> None:
    """Zip the folder under the name by which Ultralytics recognises it."""
    inside = path.name.removesuffix(".zip")
    assert inside.endswith(SUFFIXES["openvino"].removesuffix(".zip"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{inside}/{file.name}")


def read_openvino(path: Path, exact: bool) -> tuple[Run, str]:
    """The files as OpenVINO runs them on this CPU, and the precision of its layers.

    Args:
        path: The `.xml`.
        exact: Compute in fp32; otherwise as OpenVINO does by itself: in bfloat16 on a CPU that has
            it, whatever the precision of the file.
    """
    config = {"INFERENCE_PRECISION_HINT": "f32"} if exact else {}
    compiled = openvino.Core().compile_model(str(path), "CPU", config)
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return lambda images: list(compiled(images).values()), precision


def _model_info(description: ModelDescription) -> dict[str, Any]:
    """What OpenVINO's Model API reads, as Ultralytics writes it."""
    found: dict[str, Any] = {
        "labels": [name.replace(" ", "_") for name in description.names],
        "reverse_input_channels": True,
        "scale_values": [255.0],
    }
    if description.family == "yolo":
        found |= {"model_type": "YOLO", "pad_value": 114, "iou_threshold": description.iou}
        if description.task != "classify":
            found["resize_type"] = "fit_to_window_letterbox"
    return found
