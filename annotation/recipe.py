"""What one job of pre-labelling is going to do: a request, checked and resolved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from annotation.confidence_bands import Bands
from annotation.revision_records import records
from annotation.store import AnnotatedDatasets
from dataset.allowed_roots import data_roots, shown_name
from dataset.image_files import walk
from dataset.inspection import inspect
from dataset.issues import Findings
from dataset.revisions import list_revisions
from errors import DatasetInvalid, DatasetNotFound, ValidationFailed, VisionLoopError
from formats.annotation_tools import TOOLS, ToolName
from formats.annotations import Format
from formats.capabilities import require_task
from inference.tiles import AUTO
from models_store.description import Task
from models_store.versions import ModelVersion
from settings import Settings

SOURCE = "batch:"  # of the data sets that such jobs make, and then the model's id and a number
FLOOR = 0.4  # of the review threshold, from which objects are looked at: doubts count them


class AnnotationRecipe(BaseModel):
    """One batch annotation.

    Attributes:
        model_id: The exact `name:version`.
        tool: As of `/api/auto_annotate`.
        task: What the data set trains.
        dataset: Absolute path of the pictures: a folder, or a data set's description.
        temporary: The pictures were uploaded for this job, and go with it.
        dataset_id: Of the data set that is made.
        confidence: The lowest score looked at.
        iou: Of NMS; None: the model's.
        tiles: Along the longer side, see `inference.tiles`.
        bands: What is taken, and what a person looks at.
        format: Of the data set's export, unless another is asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_id: str
    tool: ToolName
    task: Task
    dataset: str
    temporary: bool = False
    dataset_id: str
    confidence: float
    iou: float | None = None
    tiles: int = AUTO
    bands: Bands
    format: Format


class AnnotationRequest(BaseModel):
    """What is asked for; `source` is a folder or a description inside the data roots."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    source: Path
    temporary: bool
    tool: ToolName
    name: str = ""
    confidence: float | None = None
    iou: float | None = None
    tiles: int = AUTO
    bands: Bands
    format: Format


def plan_annotation(
    request: AnnotationRequest,
    model: ModelVersion,
    store: AnnotatedDatasets,
    settings: Settings,
    number: str,
) -> AnnotationRecipe:
    """Check that there are pictures, and make the data set's row. Call it off the event loop.

    `number` tells this job from others of the model.

    Raises:
        ValidationFailed: `confidence` is above the review band, or the format cannot hold
            what the tool marks.
        DatasetInvalid: There are no pictures.
        Forbidden: Something leads out of the data roots.
    """
    task, bands = TOOLS[request.tool].task, request.bands
    require_task(request.format, task)
    confidence = round(FLOOR * bands.review, 4)
    if request.confidence is not None:
        confidence = request.confidence
        if confidence > bands.review:
            raise ValidationFailed(
                f"'confidence' ({confidence:g}) must not be above bands.review "
                f"({bands.review:g}): what is below it is never looked at."
            )
    if next(pictures(request.source, settings, request.temporary), None) is None:
        raise DatasetInvalid(
            f"There are no pictures in '{shown_name(request.source, settings)}': JPEG, PNG, WebP, "
            "BMP, TIFF or AVIF files, in folders of any depth."
        )
    name = request.name.strip()[:100] or f"{shown_name(request.source, settings)} by {model.name}"
    names = list(model.description.names)
    options = {
        "bands": bands.model_dump(),
        "format": request.format,
        "names": names,
        "keypoint_names": list(model.description.keypoint_names or ()),
    }
    dataset = store.ensure(f"{SOURCE}{number}", name[:60], options)
    return AnnotationRecipe(
        model_id=model.id,
        tool=request.tool,
        task=task,
        dataset=str(request.source),
        temporary=request.temporary,
        dataset_id=dataset.id,
        confidence=confidence,
        iou=request.iou,
        tiles=request.tiles,
        bands=bands,
        format=request.format,
    )


def pictures(
    source: Path, settings: Settings, temporary: bool = False
) -> Iterator[tuple[Path, str, str]]:
    """Every picture with its name and, where that is known, its split.

    Raises:
        Forbidden, DatasetInvalid, DatasetNotFound: As `image_files.walk` has it.
    """
    roots = (source.resolve(),) if temporary else data_roots(settings)
    if not source.exists():
        raise DatasetNotFound("The pictures are gone.")
    grown = _grown(source, settings)
    if grown is not None:
        newest = list_revisions(grown)[0].number
        for picture in records(grown, newest):
            yield picture.file, picture.name or picture.file.name, picture.split
        return
    splits: dict[Path, str] = {}
    root = source if source.is_dir() else source.parent
    if not temporary:
        try:
            found = inspect(source, None, roots)
            splits = {image: split for split, images in found.splits.items() for image in images}
            splits |= dict.fromkeys(found.unlabelled, "")
        except VisionLoopError:  # a folder of pictures, and no more
            if source.is_file():
                raise
    for image in splits or walk(root, roots, Findings()):
        inside = image.is_relative_to(root)
        name = image.relative_to(root).as_posix() if inside else image.name
        yield image, name, splits.get(image, "")


def _grown(source: Path, settings: Settings) -> Path | None:
    """The folder of a data set with revisions that a description belongs to."""
    uploads = (settings.paths.datasets).resolve()
    if not source.is_relative_to(uploads) or source == uploads:
        return None
    folder = uploads / source.relative_to(uploads).parts[0]
    inside = source.relative_to(folder).parts[:1] == ("revisions",)
    return folder if inside and list_revisions(folder) else None
