"""The recipe of a batch annotation: its request, validated and with all defaults resolved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from annotation.confidence_bands import Bands
from annotation.datasets import AnnotatedDatasets, batch_source
from annotation.revision_records import read_records
from dataset.allowed_roots import data_roots, shown_name
from dataset.image_files import walk
from dataset.inspection import inspect
from dataset.issues import Findings
from dataset.revisions import REVISIONS, list_revisions
from errors import DatasetInvalid, DatasetNotFound, ValidationFailed, VisionLoopError
from formats.annotation_tools import TOOLS, ToolName
from formats.annotations import Format
from formats.capabilities import require_task
from inference.tiles import AUTO
from models_store.description import Task
from models_store.versions import ModelVersion
from settings import Settings

FLOOR = 0.4  # score threshold of the prediction, as a share of the review threshold


class AnnotationRecipe(BaseModel):
    """The recipe of one batch annotation job.

    Attributes:
        model_id: The exact `name:version` of the model.
        tool: The annotation tool, as for `/api/auto_annotate`.
        task: The task of the dataset.
        dataset: Absolute path of the images: a folder, or a dataset's data.yaml.
        temporary: Whether the images were uploaded for this job and are deleted after it.
        dataset_id: Id of the dataset that the job creates.
        confidence: The lowest score of an object that is counted.
        iou: IoU threshold of NMS; None: the model's default.
        tiles: Number of tiles along the longer side, see `inference.tiles`.
        bands: The confidence bands: accept, review, discard.
        format: The default export format of the dataset.
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
    """A request; `source` is a folder or a data.yaml inside the data roots."""

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
    """Validate a request and add the dataset's row. Reads folders: call it off the event loop.

    Args:
        request: The request.
        model: The model that predicts the annotations.
        store: The store to which the dataset is added.
        settings: The data roots.
        number: Identifies this batch annotation.

    Raises:
        ValidationFailed: `confidence` is above the review band, or the format cannot represent
            the tool's annotations.
        DatasetInvalid: There are no images.
        Forbidden: A path is outside the data roots.
    """
    task, bands = TOOLS[request.tool].task, request.bands
    require_task(request.format, task)
    confidence = round(FLOOR * bands.review, 4)
    if request.confidence is not None:
        confidence = request.confidence
        if confidence > bands.review:
            raise ValidationFailed(
                f"'confidence' ({confidence:g}) must not be above bands.review "
                f"({bands.review:g}): objects whose scores lie between the two would be missing."
            )
    if next(list_images(request.source, settings, request.temporary), None) is None:
        raise DatasetInvalid(
            f"There are no images in '{shown_name(request.source, settings)}'. Images are JPEG, "
            "PNG, WebP, BMP, TIFF or AVIF files, in folders of any depth."
        )
    name = request.name.strip()[:100] or f"{shown_name(request.source, settings)} by {model.name}"
    names = list(model.description.names)
    options = {
        "bands": bands.model_dump(),
        "format": request.format,
        "names": names,
        "keypoint_names": list(model.description.keypoint_names or ()),
    }
    dataset = store.ensure(batch_source(number), name[:60], options, "batch")
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


def list_images(
    source: Path, settings: Settings, temporary: bool = False
) -> Iterator[tuple[Path, str, str]]:
    """The images of a source: path, name and split of each. The split may be empty.

    Args:
        source: A folder, or a dataset's data.yaml.
        settings: The data roots.
        temporary: The source was uploaded for this job, and is itself the data root.

    Raises:
        Forbidden, DatasetInvalid, DatasetNotFound: As `dataset.image_files.walk` raises them.
    """
    roots = (source.resolve(),) if temporary else data_roots(settings)
    if not source.exists():
        raise DatasetNotFound(
            "The folder of images no longer exists. Bring it back, or send the images again."
        )
    annotated = _annotated_dataset(source, settings)
    if annotated is not None:
        newest = list_revisions(annotated)[0].number
        for record in read_records(annotated, newest):
            yield record.file, record.name or record.file.name, record.split
        return
    splits: dict[Path, str] = {}
    root = source if source.is_dir() else source.parent
    if not temporary:
        try:
            found = inspect(source, None, roots)
            splits = {image: split for split, images in found.splits.items() for image in images}
            splits |= dict.fromkeys(found.unlabelled, "")
        except VisionLoopError:  # a plain folder of images
            if source.is_file():
                raise
    for image in splits or walk(root, roots, Findings()):
        inside = image.is_relative_to(root)
        name = image.relative_to(root).as_posix() if inside else image.name
        yield image, name, splits.get(image, "")


def _annotated_dataset(source: Path, settings: Settings) -> Path | None:
    """The dataset's folder if a source is a dataset's revision, else None."""
    datasets = settings.paths.datasets.resolve()
    if not source.is_relative_to(datasets) or source == datasets:
        return None
    folder = datasets / source.relative_to(datasets).parts[0]
    inside = source.relative_to(folder).parts[:1] == (REVISIONS,)
    return folder if inside and list_revisions(folder) else None
