"""What an incremental training reads: new and old data, and the old images that it replays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dataset.allowed_roots import data_roots
from dataset.data_yaml import Keypoints
from dataset.dataset import Dataset
from dataset.inspection import check
from dataset.label_files import LabelRow
from settings import Settings
from training.planning.class_union import ClassUnion
from training.planning.compatibility import check_keypoints, check_old_classes
from training.planning.options import IncrementalOptions
from training.planning.recipe import Recipe
from training.prepare import scan_images
from training.replay.buffer import remember
from training.replay.merged_dataset import DatasetPart
from training.start_weights import Start
from training.yolo.feature_extractor import FeatureExtractor, ImageFeatures

if TYPE_CHECKING:
    from jobs.handle import JobHandle


def read_datasets(
    recipe: Recipe, options: IncrementalOptions, job: JobHandle, settings: Settings
) -> tuple[Dataset, Dataset | None]:
    """The new dataset, and the old one if the request names it; both checked and scanned."""
    roots = data_roots(settings)
    new = check(recipe.dataset, recipe.task, roots, min_classes=1)
    old = check(options.old_data, recipe.task, roots, min_classes=1) if options.old_data else None
    for given in (new, old):
        if given is not None:
            scan_images(given, job)
    return new, old


def check_points(before: Start, *datasets: Dataset | None) -> None:
    """Refuse datasets whose key points are not those of the base model."""
    shape = tuple(before.architecture.get("kpt_shape") or ())
    known = Keypoints(shape, None, before.keypoint_names)
    for given in datasets:
        if given is not None and given.keypoints:
            check_keypoints(given.keypoints, known, "the data", "the base model")


def choose_buffer(
    recipe: Recipe,
    options: IncrementalOptions,
    job: JobHandle,
    old: Dataset | None,
    union: ClassUnion,
    extractor: FeatureExtractor,
) -> tuple[Path, ...]:
    """The old images that are replayed; none without old data, or if the request wants none."""
    if old is None:
        return ()
    check_old_classes(union, old.names)
    if not options.replays:
        return ()
    ids = union.ids(old.names)
    part = DatasetPart(old, {}, ids)

    def extract(images: Sequence[Path]) -> ImageFeatures:
        job.log(f"Computing the old model's features of {len(images)} old images, to select some.")
        truth = {image: _truth(part, image) for image in images}
        return extractor.extract(images, truth, job.check, job.log)

    buffer = remember(
        job.folder,
        old,
        ids,
        options.max_replay_samples,
        options.rehearsal,
        recipe.seed,
        extract,
    )
    pool = len(old.scan().splits["train"])
    job.log(
        f"{len(buffer)} of {pool} old images are kept for replay "
        f"(max_replay_samples {options.max_replay_samples}, {options.rehearsal})."
    )
    return buffer


def _truth(part: DatasetPart, image: Path) -> tuple[LabelRow, ...]:
    if part.dataset.task != "classify":
        return part.rows(image)
    return tuple(LabelRow(cls, ()) for cls in part.classes(image))
