"""Predictions and pre-labels: the fields of requests, and the calls of the runners."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field

from annotation.model_choice import choose_model
from api.schemas import InferOptions, RequestFields, Unit
from api.thread_pool import in_image_thread
from errors import BackendTimeout, VisionLoopError, our_fault
from field_names import Unknown
from formats.annotation_tools import TOOLS, ToolName
from formats.annotations import Annotations, keypoint_labels
from formats.capabilities import require_task
from formats.coco import to_coco
from formats.label_studio import to_label_studio, to_task
from formats.labelme import to_labelme
from formats.yolo import to_yolo
from inference.class_filter import class_ids
from inference.images import Header, read_header
from inference.prediction import DrawnFormat, InferenceItem, ItemResult
from inference.preprocess import needed_size
from inference.render import check_drawable
from inference.tiles import AUTO, MOST, OFF, most_tiles, views
from models_store.versions import ModelVersion
from serving import telemetry
from serving.answers import data_uri, infer_answer, prediction_of
from serving.fetch import hold
from serving.gateway import Gateway

TILES = {"auto": AUTO, "off": OFF}
EACH_WITHIN = 0.9  # share of the request's timeout within which one of several images has a result
TOLD = 5  # different messages in the error of a request of which no image has a result
DRAWN_COPIES = 3  # how often a drawn image is in memory: as bytes, as base64, in the response

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


@dataclass(frozen=True, slots=True)
class Choice:
    """What the images of one request are predicted with.

    It is determined at the begin of the request; a promotion during it has no effect.
    """

    model: ModelVersion
    options: InferOptions
    classes: tuple[int, ...] | None

    @classmethod
    def of(cls, gateway: Gateway, options: InferOptions) -> Choice:
        """The choice of a request.

        Raises:
            ModelNotFound: There is no such model.
            ValidationFailed: The model has no such class.
        """
        model = gateway.registry.resolve(options.model_id)
        names = model.description.names
        classes = None if options.classes is None else class_ids(options.classes, names)
        return cls(model, options, classes)


async def predict(gateway: Gateway, image: bytes, options: InferOptions) -> dict[str, Any]:
    """Predict an image with the Detector. Returns the response of `/infer`.

    Raises:
        ModelNotFound: There is no such model.
        InvalidImage, PayloadTooLarge: The image cannot be read, or is too large.
        ValidationFailed: The image is too long to be drawn on, or the model has no such class.
        BackendUnavailable: The Detector is not running, or its queue is full.
        BackendTimeout: The Detector did not respond in time.
        RateLimited: The caller's images and drawn images take too much memory.
    """
    return await _answer(gateway, image, Choice.of(gateway, options))


async def predict_each(
    gateway: Gateway, images: Sequence[bytes], options: InferOptions
) -> list[dict[str, Any]]:
    """Predict several images at the same time. Returns a list in their order.

    An image that fails does not fail the others: its entry is its error.

    Raises:
        VisionLoopError: The request is refused, as by `predict`, or no image has a result; the
            error is then the one with the highest status, and tells all.
    """
    choice = Choice.of(gateway, options)
    within = EACH_WITHIN * gateway.settings.request_timeout

    async def entry(image: bytes) -> dict[str, Any] | VisionLoopError:
        try:
            async with asyncio.timeout(within):
                return await _answer(gateway, image, choice)
        except VisionLoopError as error:
            return error
        except TimeoutError:
            return BackendTimeout(f"No result within {within:g} seconds.")
        except Exception as error:
            return our_fault(error, "The prediction of an image")

    entries = await asyncio.gather(*map(entry, images))
    failures = {i: one for i, one in enumerate(entries, 1) if isinstance(one, VisionLoopError)}
    if len(failures) == len(entries):
        raise _none_succeeded(failures)
    for failure in failures.values():
        telemetry.ERRORS.labels(failure.code).inc()
    return [one.to_json() if isinstance(one, VisionLoopError) else one for one in entries]


def _none_succeeded(failures: dict[int, VisionLoopError]) -> VisionLoopError:
    """One error for those of all images, by number: of the kind with the highest status."""
    worst = max(failures.values(), key=lambda error: error.status)
    numbers: dict[str, list[str]] = {}
    for number, error in failures.items():
        numbers.setdefault(error.message, []).append(str(number))
    told = [f"Image {', '.join(which)}: {message}" for message, which in numbers.items()]
    more = f" … and {len(told) - TOLD} more." if len(told) > TOLD else ""
    message = f"None of the {len(failures)} images has a result. {' '.join(told[:TOLD])}{more}"
    return type(worst)(message, worst.retry_after)


async def draw_predictions(
    gateway: Gateway, image: bytes, options: InferOptions, form: DrawnFormat
) -> tuple[bytes, dict[str, Any]]:
    """The image with its predictions drawn in, and the response of `/infer` without it.

    Raises:
        VisionLoopError: As `predict`.
    """
    choice = Choice.of(gateway, options)
    drawn, answer = await _predict(gateway, image, choice, form)
    assert drawn is not None
    return drawn, answer


async def _answer(gateway: Gateway, image: bytes, choice: Choice) -> dict[str, Any]:
    form: DrawnFormat | None = "JPEG" if choice.options.draw_boxes else None
    drawn, answer = await _predict(gateway, image, choice, form)
    return answer | ({} if drawn is None else {"image_result": data_uri(drawn)})


async def _predict(
    gateway: Gateway, image: bytes, choice: Choice, form: DrawnFormat | None
) -> tuple[bytes | None, dict[str, Any]]:
    """The drawn image, and the response without it; counted for the live statistics.

    `form` is the format of the drawn image; None: it is not drawn.
    """
    header = await in_image_thread(read_header, image, gateway.settings.max_pixels)
    if form is not None:
        check_drawable(header.width, header.height, form)
    needed = needed_size(choice.model.description, gateway.settings.decode)
    item = InferenceItem(
        image,
        choice.model.id,
        confidence=choice.options.confidence,
        iou=choice.options.iou,
        max_det=choice.options.max_det,
        classes=choice.classes,
        draw=form is not None,
        drawn_as=form or "JPEG",
        heavy=header.heavy(None if form else needed),
    )
    result = await gateway.detector.predict(item)
    answer = infer_answer(choice.model.id, replace(result, drawn=None))
    if result.drawn is not None:
        hold(DRAWN_COPIES * len(result.drawn))
    telemetry.record(choice.model.id, result.times)
    gateway.answered(choice.model, item, result, answer)
    return result.drawn, answer


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
    if result.drawn is not None:
        hold(DRAWN_COPIES * len(result.drawn))
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
    needed = needed_size(model.description, gateway.settings.decode, tiles)
    item = InferenceItem(
        image,
        model.id,
        confidence=options.confidence,
        iou=options.iou,
        draw=options.return_annotated_image,
        tiles=tiles,
        boxes_only=tool.task == "detect",
        editable=True,
        heavy=header.heavy(None if options.return_annotated_image else needed),
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
