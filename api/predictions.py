"""Predictions and pre-labels for a request."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field

from api.schemas import InferOptions, RequestFields, Unit
from errors import ModelNotFound
from field_names import Unknown
from formats.annotation_tools import TOOLS, Tool, ToolName
from formats.annotations import Annotations, keypoint_labels
from formats.capabilities import require_task
from formats.coco import to_coco
from formats.label_studio import to_label_studio, to_task
from formats.labelme import to_labelme
from formats.yolo import to_yolo
from inference.images import check_header
from inference.prediction import InferenceItem, ItemResult
from inference.tiles import AUTO, MOST, OFF
from models_store.description import TYPES
from models_store.registry import Registry
from models_store.versions import ModelVersion
from serving import telemetry
from serving.answers import data_uri, infer_answer, prediction_of
from serving.gateway import Gateway

Format = Literal["label_studio", "yolo", "coco", "labelme"]


TILES = {"auto": AUTO, "off": OFF}


class ToolOptions(RequestFields):
    """Which model marks what, and how closely it looks."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    unknown: ClassVar[Unknown] = "note"

    tool: ToolName = Field(description="one of: " + ", ".join(TOOLS))
    model: str = Field(
        "",
        max_length=200,
        description="a model's id (name:version) or name; empty: the active model if its type "
        "fits, else the newest promoted one that does",
    )
    confidence: Unit | None = Field(None, description="a number from 0 to 1")
    iou: Unit | None = Field(None, description="a number from 0 to 1")
    tiles: str = Field(
        "auto",
        pattern=rf"^(auto|off|[2-{MOST}])$",
        description=f"auto, off or how many along the longer side, 2 to {MOST}",
    )


class AnnotateOptions(ToolOptions):
    """What to mark, and how to answer."""

    return_annotated_image: bool = Field(False, description="0 or 1")
    format: Format = Field(
        "label_studio", description="label_studio, yolo, coco or labelme", examples=["yolo"]
    )


class NativeAnnotateForm(AnnotateOptions):
    image: str = Field(description="The image file", json_schema_extra={"format": "binary"})


async def annotate(
    gateway: Gateway, image: bytes, options: AnnotateOptions, name: str = ""
) -> dict[str, Any]:
    """The answer of `/api/auto_annotate`. `name` is the file's, for the documents."""
    tool = TOOLS[options.tool]
    require_task(options.format, tool.task, get_args(Format))
    model = choose_model(gateway.registry, tool, options.model)
    result, found = await prelabel(gateway, image, options, model, name)
    image_id = await asyncio.to_thread(
        gateway.prelabels.add, image, found, tool.value, model.id, options.confidence
    )
    annotations, document = await asyncio.to_thread(written, found, options.format, model)
    return {
        "annotations": annotations,
        "annotated_image": data_uri(result.drawn) if result.drawn else None,
        "database_info": {"image_id": image_id, "annotation_count": len(found)},
        "model_id": model.id,
        "tool": tool.value,
        "format": options.format,
        "image": {"width": found.width, "height": found.height},
        "document": document,
        "inference_time": result.times.get("inference", 0.0),
    }


async def prelabel(
    gateway: Gateway,
    image: bytes,
    options: AnnotateOptions,
    model: ModelVersion,
    name: str = "",
) -> tuple[ItemResult, Annotations]:
    """What the model marks in a picture, by the Annotator and its queue.

    Raises:
        InvalidImage, PayloadTooLarge: The picture cannot be read, or is too large.
        BackendUnavailable, BackendTimeout: The Annotator is not there, busy, or slow.
    """
    await asyncio.to_thread(check_header, image, gateway.settings.max_pixels)
    tool = TOOLS[options.tool]
    item = InferenceItem(
        image,
        model.id,
        confidence=options.confidence,
        iou=options.iou,
        draw=options.return_annotated_image,
        tiles=TILES[options.tiles] if options.tiles in TILES else int(options.tiles),
        boxes_only=tool.task == "detect",
        editable=True,
    )
    result = await gateway.runners["annotator"].predict(item)
    prediction = prediction_of(result)
    return result, await asyncio.to_thread(prediction.to_annotations, name)


def choose_model(registry: Registry, tool: Tool, model_id: str = "") -> ModelVersion:
    """The model that is meant; without a name the active one if it fits, else the newest
    promoted version, one of exactly the tool's type before one that fits as well.

    Raises:
        ModelNotFound: There is none, or the one that is named cannot serve the tool.
    """
    wanted = TYPES[tool.task]
    known = registry.list()
    if model_id.strip():
        model = registry.get(model_id)
        if not tool.fits(model.description.task):
            raise ModelNotFound(
                f"'{model.id}' is a {model.description.type} model; {tool.value} needs a {wanted} "
                f"model. {_known(registry, wanted)}"
            )
        return model
    fitting = [model for model in known if tool.fits(model.description.task)]
    if active := next((model for model in fitting if model.active), None):
        return active
    promoted = [model for model in fitting if model.promoted]
    if not promoted:
        raise ModelNotFound(
            f"No {wanted} model is active or promoted, which {tool.value} needs. "
            f"{_known(registry, wanted)}"
        )
    return max(promoted, key=lambda m: (m.description.task == tool.task, m.created_at))


def _known(registry: Registry, wanted: str) -> str:
    names = dict.fromkeys(m.name for m in registry.list() if m.description.type == wanted)
    if not names:
        return f"There is none of type {wanted}: import or train one."
    return f"Of type {wanted}: {', '.join(list(names)[:8])}."


def written(found: Annotations, form: Format, model: ModelVersion) -> tuple[list[Any], Any]:
    """What was found in a tool's form, one entry per mark, and the file that the tool imports."""
    names = model.description.names
    points = point_names(model)
    if form == "yolo":
        text = to_yolo(found, names, points)
        document = {"labels": text, "names": list(names), "keypoint_names": list(points)}
        return text.splitlines(), document
    if form == "coco":
        coco = to_coco([found], names, points)
        return coco["annotations"], coco
    if form == "labelme":
        labelme = to_labelme(found)
        flags = [{"flags": labelme["flags"]}] if labelme["flags"] else []
        return [*labelme["shapes"], *flags], labelme
    regions = to_label_studio(found)
    return regions, to_task(found, regions, model.id)


def point_names(model: ModelVersion) -> tuple[str, ...]:
    """The key points' names, or their numbers; empty where the model has none."""
    shape = model.description.keypoint_shape
    count = shape[0] if shape else 0
    return keypoint_labels(model.description.keypoint_names, count)


async def predict(gateway: Gateway, image: bytes, options: InferOptions) -> dict[str, Any]:
    """The answer of `/infer`: made by the model that is meant when the request comes in."""
    model = gateway.registry.resolve(options.model_id)
    await asyncio.to_thread(check_header, image, gateway.settings.max_pixels)
    item = InferenceItem(
        image,
        model.id,
        confidence=options.confidence,
        iou=options.iou,
        max_det=options.max_det,
        draw=options.draw_boxes,
    )
    result = await gateway.detector.predict(item)
    answer = infer_answer(model.id, result)
    telemetry.record(model.id, result.times)
    gateway.answered(model, item, result, answer)
    return answer
