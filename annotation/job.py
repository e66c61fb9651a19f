"""The batch annotation job: prelabels a folder of images as a dataset that people then correct.

Each finished image is a row in the store, so a job that was killed resumes with the next image.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotation.confidence_bands import BANDS
from annotation.datasets import AnnotatedDatasets
from annotation.entries import image_entry
from annotation.image_records import PRELABEL_RANK
from annotation.prelabeller import PrelabelledImage, Prelabeller
from annotation.priority import Uncertainty, descriptor_of, pack, uncertainty_of
from annotation.recipe import AnnotationRecipe, list_images
from annotation.revision_builder import build
from annotation.tables import AnnotationEntry
from dataset.shared import uploads
from errors import DatasetInvalid, VisionLoopError
from formats.annotation_tools import TOOLS
from formats.annotations import Annotations
from models_store.registry import Registry
from models_store.versions import ModelVersion

if TYPE_CHECKING:
    from jobs.handle import JobHandle

CHECKPOINT_INTERVAL = 2.0  # seconds between two checkpoints
MAX_PROBLEMS = 100  # maximum number of problems that are listed
MAX_IMAGE_BYTES = 512 * 2**20


@dataclass
class PrelabelCounts:
    """Counts of prelabels, for the job's log and the dataset's card.

    Attributes:
        images: Number of prelabelled images; each content is counted once.
        duplicates: Number of files with the same content as another.
        objects: Confidence band → class → number of objects.
        by_band: Confidence band → number of images in it, see `Bands.of_image`.
        problems: Name of an image → why it was skipped.
    """

    images: int = 0
    duplicates: int = 0
    objects: dict[str, Counter[str]] = field(default_factory=lambda: {b: Counter() for b in BANDS})
    by_band: Counter[str] = field(default_factory=Counter)
    problems: dict[str, str] = field(default_factory=dict)

    def update(
        self, found: Annotations, discarded: dict[str, int], recipe: AnnotationRecipe
    ) -> None:
        """Add one image."""
        self.images += 1
        self.by_band[recipe.bands.of_image(thing.score for thing in found.objects)] += 1
        for thing in found.objects:
            self.objects[recipe.bands.of(thing.score)][thing.label] += 1
        self.objects["discard"].update(discarded)

    def totals(self) -> dict[str, float]:
        """The job's metrics."""
        counts = {f"objects_{band}": self.objects[band].total() for band in BANDS}
        images = {f"pictures_{band}": self.by_band[band] for band in BANDS[:2]}
        total = {"pictures": self.images, "problems": len(self.problems)}
        return {name: float(value) for name, value in (total | images | counts).items()}

    def to_json(self) -> dict[str, Any]:
        names = sorted({name for counts in self.objects.values() for name in counts})
        return {
            "pictures": self.images,
            "twins": self.duplicates,
            "pictures_by_band": {band: self.by_band[band] for band in BANDS[:2]},
            "classes": [
                {"name": name} | {band: self.objects[band][name] for band in BANDS}
                for name in names
            ],
            "problem_count": len(self.problems),
            "problems": [
                {"image": name, "reason": reason}
                for name, reason in list(self.problems.items())[:MAX_PROBLEMS]
            ],
        }


def run_annotation(recipe: AnnotationRecipe, job: JobHandle, registry: Registry) -> None:
    """Run a batch annotation job, or resume it after an interruption.

    Raises:
        ModelNotFound, DatasetNotFound, Forbidden: The model or the images were deleted, or may
            no longer be read.
        DatasetInvalid: No image could be read.
        JobCancelled: The job was cancelled.
    """
    version = registry.get(recipe.model_id)
    store = AnnotatedDatasets(registry.database)
    if not store.is_built(recipe.dataset_id):
        counts = _BatchAnnotation(recipe, job, version, store, registry).run()
        _finish(recipe, job, version, store, counts)
    if recipe.temporary:
        uploads.discard(Path(recipe.dataset), registry.settings)


class _BatchAnnotation:
    """Prelabels the images one by one."""

    def __init__(
        self,
        recipe: AnnotationRecipe,
        job: JobHandle,
        version: ModelVersion,
        store: AnnotatedDatasets,
        registry: Registry,
    ) -> None:
        self.recipe, self.job, self.version, self.store = recipe, job, version, store
        self.settings = registry.settings
        self.counts = PrelabelCounts()
        self.prelabeller = Prelabeller(
            version.files(),
            registry.settings,
            confidence=recipe.confidence,
            iou=recipe.iou,
            tiled=recipe.tiles,
            boxes_only=TOOLS[recipe.tool].task == "detect",
        )

    def run(self) -> PrelabelCounts:
        """Prelabel the images that earlier attempts have not. Returns the counts of all images."""
        recipe, job = self.recipe, self.job
        listed = list(list_images(Path(recipe.dataset), self.settings, recipe.temporary))
        done = self.store.entries.prelabelled(recipe.dataset_id)
        seen: set[str] = set()
        backend = self.prelabeller.engine.backend
        job.log(f"{len(listed)} images, annotated by {self.version.id} on {backend}.")
        if done:
            job.log(f"{len(done)} of them were annotated before a restart.")
        reported = time.monotonic()
        for number, (path, name, split) in enumerate(listed):
            job.advance(number / len(listed), self.counts.totals())
            job.check()
            try:
                data = _read(path)
                content = sha256(data).hexdigest()
                entry = done[content] = done.get(content) or self._prelabel(data, name, split)
                self._count(entry, seen)
            except (VisionLoopError, OSError) as error:
                self._problem(name, error)
            if time.monotonic() - reported >= CHECKPOINT_INTERVAL:
                reported = time.monotonic()
                job.checkpointed(0, batch=number + 1)
        job.advance(1.0, self.counts.totals())
        return self.counts

    def _prelabel(self, data: bytes, name: str, split: str) -> AnnotationEntry:
        """Prelabel an image; store its file and its annotations."""
        image = self.prelabeller.prelabel(data)
        bands = self.recipe.bands
        every = image.prediction.to_annotations(name)
        found = every.above(bands.review)
        below = Counter(
            o.label for o in every.objects if o.score is not None and o.score < bands.review
        )
        content, suffix = self.store.entries.keep(self.recipe.dataset_id, data)
        entry = image_entry(
            "model",
            content,
            suffix,
            found,
            rank=PRELABEL_RANK,
            document={
                "by": self.version.id,
                "name": name,
                "split": split,
                "discarded": dict(below),
                **_queue_values(image, uncertainty_of(image.prediction, bands)),
            },
        )
        self.store.entries.add_prelabels(self.recipe.dataset_id, [entry])
        return entry

    def _count(self, entry: AnnotationEntry, seen: set[str]) -> None:
        assert entry.content is not None
        if entry.content in seen:
            self.counts.duplicates += 1
            return
        seen.add(entry.content)
        found = Annotations.from_json(entry.annotations or {})
        self.counts.update(found, entry.document["discarded"], self.recipe)

    def _problem(self, name: str, error: Exception) -> None:
        reason = str(error) if isinstance(error, VisionLoopError) else "The file cannot be read."
        self.counts.problems[name] = reason
        if len(self.counts.problems) <= MAX_PROBLEMS:
            self.job.log(f"Skipped {name}: {reason}")


def _finish(
    recipe: AnnotationRecipe,
    job: JobHandle,
    version: ModelVersion,
    store: AnnotatedDatasets,
    counts: PrelabelCounts,
) -> None:
    """Build the first revision and write the dataset's card, which makes it visible."""
    if not counts.images:
        first = next(iter(counts.problems.items()), ("", "there are none"))
        raise DatasetInvalid(
            f"No image could be read: {': '.join(first)}. Replace the files, or leave them out."
        )
    known = version.description
    dataset = store.get(recipe.dataset_id)
    result = {"model_id": version.id, "job_id": job.id, **counts.to_json()}
    build(
        store,
        store.ensure(dataset.source, dataset.name, {"annotation": result}, "batch"),
        task=recipe.task,
        names=known.names,
        keypoint_names=known.keypoint_names or (),
        keep=True,
    )
    bands = counts.by_band
    job.log(
        f"{counts.images} images: {bands['accept']} accepted, {bands['review']} to review; "
        f"{len(counts.problems)} could not be read, {counts.duplicates} are copies of others."
    )
    for row in result["classes"]:
        by_band = ", ".join(f"{band} {row[band]}" for band in BANDS)
        job.log(f"{row['name']}: {by_band}.")
    job.log(f"Dataset: {recipe.dataset_id}.")


def _queue_values(image: PrelabelledImage, uncertainty: Uncertainty) -> dict[str, Any]:
    """The values by which the annotation queue orders images."""
    return {
        "doubt": uncertainty.value,
        "shown": uncertainty.shown,
        "review": uncertainty.review,
        "below": uncertainty.discarded,
        "reason": uncertainty.reason,
        "look": pack(descriptor_of(image.image.pixels)),
    }


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_IMAGE_BYTES:
        raise DatasetInvalid(
            f"The file is larger than {MAX_IMAGE_BYTES // 2**20} MiB. Scale the image down."
        )
    return path.read_bytes()
