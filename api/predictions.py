"""Predictions and pre-labels: the fields of requests, and the calls of the runners."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field

from annotation.model_choice import choose_model
from api.schemas import InferOptions, RequestFields, Unit
from api.thread_pool import in_image_thread
from field_names import Unknown
from formats.annotation_tools import TOOLS, ToolName
from formats.annotations import Annotations, keypoint_labels
from formats.capabilities import require_task
from formats.coco import to_coco
from formats.label_studio import to_label_studio, to_task
from formats.labelme import to_labelme
from formats.yolo import to_yolo
from inference.images import Header, read_header
from inference.prediction import InferenceItem, ItemResult
from inference.render import check_drawable
from inference.tiles import AUTO, MOST, OFF, most_tiles, views
from models_store.versions import ModelVersion
from serving import telemetry
from serving.answers import data_uri, infer_answer, prediction_of
from serving.gateway import Gateway

TILES = {"auto": AUTO, "off": OFF}

ToolFormat = Literal["label_studio", "yolo", "coco", "labelme"]


class ToolOptions(RequestFields):
    """The tool, its model, and how finely the image is tiled."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    unknown: ClassVar[Unknown] = "note"

    tool: ToolName = Field(description="one of: " + ", ".join(TOOLS))
    model: str = Field(
        "",
        max_length=200,
        description=(
            "a model's id (name:version) or name; empty: the active model if its type fits the "
            "tool, else the newest promoted model whose type fits"
        ),
    )
    confidence: Unit | None = Field(None, description="a number from 0 to 1")
    iou: Unit | None = Field(None, description="a number from 0 to 1")
    tiles: str = Field(
        "auto",
        pattern=rf"^(auto|off|[2-{MOST}])$",
        description=(
            f"auto, off or the number of tiles along the longer side, 2 to {MOST}; fewer where a "
            "tile would be smaller than half the network's input"
        ),
    )


class AnnotateOptions(ToolOptions):
    """Options of pre-labels for one image."""

    return_annotated_image: bool = Field(False, description="0 or 1")
    format: ToolFormat = Field(
        "label_studio", description="label_studio, yolo, coco or labelme", examples=["yolo"]
    )


class NativeAnnotateForm(AnnotateOptions):
    image: str = Field(description="The image file", json_schema_extra={"format": "binary"})


async def predict(gateway: Gateway, image: bytes, options: InferOptions) -> dict[str, Any]:
    """Predict an image with the Detector. Returns the response of `/infer`.

    The model version is determined at the beginning; a promotion during the request has no effect.

    Raises:
        ModelNotFound: There is no such model.
        InvalidImage, PayloadTooLarge: The image cannot be read, or is too large.
        ValidationFailed: The image is too long to be drawn on.
        BackendUnavailable: The Detector is not running, or its queue is full.
        BackendTimeout: The Detector did not respond in time.
    """
    model = gateway.registry.resolve(options.model_id)
    header = await in_image_thread(read_header, image, gateway.settings.max_pixels)
    if options.draw_boxes:
        check_drawable(header.width, header.height)
    item = InferenceItem(
        image,
        model.id,
        confidence=options.confidence,
        iou=options.iou,
        max_det=options.max_det,
        draw=options.draw_boxes,
        heavy=header.heavy,
    )
    result = await gateway.detector.predict(item)
    answer = infer_answer(model.id, result)
    telemetry.record(model.id, result.times)
    gateway.answered(model, item, result, answer)
    return answer


async def annotate(
    gateway: Gateway, image: bytes, options: AnnotateOptions, name: str = ""
) -> dict[str, Any]:
    """Pre-label an image. Returns the response of `/api/auto_annotate`.

    `name` is the image's file name, which is written into the annotation document.

    Raises:
        ModelNotFound: There is no model for the tool.
        ValidationFailed: The format cannot represent the tool's annotations.
        VisionLoopError: As `prelabel`.
    """
    tool = TOOLS[options.tool]
    require_task(options.format, tool.task, get_args(ToolFormat))
    model = choose_model(gateway.registry, tool, options.model)
    result, found = await prelabel(gateway, image, options, model, name)
    image_id = await asyncio.to_thread(
        gateway.prelabels.add, image, found, tool.value, model.id, options.confidence
    )
    annotations, document = await asyncio.to_thread(to_format, found, options.format, model)
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
    """A model's pre-labels of an image, predicted by the Annotator.

    Raises:
        InvalidImage, PayloadTooLarge: The image cannot be read, or is too large.
        ValidationFailed: The image is too long to be drawn on.
        BackendUnavailable: The Annotator is not running, or its queue is full.
        BackendTimeout: The Annotator did not respond in time.
    """
    header = await in_image_thread(read_header, image, gateway.settings.max_pixels)
    if options.return_annotated_image:
        check_drawable(header.width, header.height)
    tool = TOOLS[options.tool]
    tiles = tiles_for(model, header, options)
    item = InferenceItem(
        image,
        model.id,
        confidence=options.confidence,
        iou=options.iou,
        draw=options.return_annotated_image,
        tiles=tiles,
        boxes_only=tool.task == "detect",
        editable=True,
        heavy=header.heavy,
        views=len(views(header.width, header.height, model.description.imgsz, tiles)),
    )
    result = await gateway.runners["annotator"].predict(item)
    prediction = prediction_of(result)
    return result, await in_image_thread(prediction.to_annotations, name)


def tiles_of(text: str) -> int:
    """The number of tiles along the longer side, from the value of a request's field `tiles`."""
    return TILES[text] if text in TILES else int(text)


def tiles_for(model: ModelVersion, header: Header, options: ToolOptions) -> int:
    """The number of tiles along the longer side of an image, as the runner needs it.

    Says so in the options' notes if it is less than was asked for.
    """
    asked = tiles_of(options.tiles)
    if asked in (AUTO, OFF):
        return OFF if model.description.task == "classify" else asked
    most = most_tiles(header.width, header.height, model.description.imgsz)
    if model.description.task == "classify":
        most = OFF
        options.notes.append("'tiles' has no effect: classification sees the whole image.")
    elif most < asked:
        used = "off" if most == OFF else str(most)
        options.notes.append(
            f"'tiles' was {used} instead of {asked}: more tiles of an image of {header.width} × "
            f"{header.height} pixels would be smaller than half the model's input of "
            f"{model.description.imgsz} pixels, and show no more."
        )
    return min(asked, most)


def to_format(found: Annotations, form: ToolFormat, model: ModelVersion) -> tuple[list[Any], Any]:
    """Convert annotations to a tool's format.

    Returns:
        A list with one entry per annotation, and the document that the tool can import.
    """
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
    """Names of the model's keypoints, or their numbers; empty if the model has no keypoints."""
    shape = model.description.keypoint_shape
    count = shape[0] if shape else 0
    return keypoint_labels(model.description.keypoint_names, count)
