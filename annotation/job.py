"""Pre-labels for a whole folder, as a job: a data set that people then correct.

What is done is a row per picture, so a job that was killed goes on with the next one.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotation.confidence_bands import BANDS
from annotation.pictures import PRELABEL_RANK
from annotation.prelabeller import Labelled, Labeller
from annotation.priority import Doubt, doubt_of, look_of, pack
from annotation.recipe import AnnotationRecipe, pictures
from annotation.review_queue import first_words
from annotation.revision_builder import build
from annotation.store import AnnotatedDatasets, AnnotationEntry
from dataset.store import CARD
from errors import DatasetInvalid, VisionLoopError
from formats.annotation_tools import TOOLS
from formats.annotations import Annotations
from models_store.registry import Registry
from models_store.versions import ModelVersion

if TYPE_CHECKING:
    from jobs.handle import JobHandle

CHECKPOINT = 2.0  # seconds between two notes of how far the job is
NAMED = 100  # problems that are told one by one
BIGGEST = 512 * 2**20  # bytes of one picture


@dataclass
class PrelabelCounts:
    """What a job has done, for its log and the data set's card.

    Attributes:
        pictures: With pre-labels, each content once.
        twins: Files that have the content of another.
        objects: Band → class → count.
        by_band: Pictures whose least sure object is of it.
        problems: Picture → why it was left out.
    """

    pictures: int = 0
    twins: int = 0
    objects: dict[str, Counter[str]] = field(default_factory=lambda: {b: Counter() for b in BANDS})
    by_band: Counter[str] = field(default_factory=Counter)
    problems: dict[str, str] = field(default_factory=dict)

    def add(self, found: Annotations, discarded: dict[str, int], recipe: AnnotationRecipe) -> None:
        """Count one picture."""
        self.pictures += 1
        self.by_band[recipe.bands.of_picture(thing.score for thing in found.objects)] += 1
        for thing in found.objects:
            self.objects[recipe.bands.of(thing.score)][thing.label] += 1
        self.objects["discard"].update(discarded)

    def totals(self) -> dict[str, float]:
        """For the job's metrics."""
        counts = {f"objects_{band}": self.objects[band].total() for band in BANDS}
        pictures = {f"pictures_{band}": self.by_band[band] for band in BANDS[:2]}
        every = {"pictures": self.pictures, "problems": len(self.problems)}
        return {name: float(value) for name, value in (every | pictures | counts).items()}

    def to_json(self) -> dict[str, Any]:
        names = sorted({name for counts in self.objects.values() for name in counts})
        return {
            "pictures": self.pictures,
            "twins": self.twins,
            "pictures_by_band": {band: self.by_band[band] for band in BANDS[:2]},
            "classes": [
                {"name": name} | {band: self.objects[band][name] for band in BANDS}
                for name in names
            ],
            "problem_count": len(self.problems),
            "problems": [
                {"image": name, "reason": reason}
                for name, reason in list(self.problems.items())[:NAMED]
            ],
        }


def run_annotation(recipe: AnnotationRecipe, job: JobHandle, registry: Registry) -> None:
    """Do what a recipe says, from where an earlier attempt was ended.

    Raises:
        ModelNotFound, DatasetNotFound, Forbidden: The model or the pictures are gone.
        DatasetInvalid: No picture could be read.
        JobCancelled: A stop was asked for.
    """
    version = registry.get(recipe.model_id)
    store = AnnotatedDatasets(registry.database)
    if not (store.folder(recipe.dataset_id) / CARD).exists():
        figures = _Annotating(recipe, job, version, store, registry).run()
        _finish(recipe, job, version, store, figures)
    if recipe.temporary:
        shutil.rmtree(recipe.dataset, ignore_errors=True)


class _Annotating:
    """The pictures one by one."""

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
        self.figures = PrelabelCounts()
        self.labeller = Labeller(
            version.path,
            registry.settings,
            confidence=recipe.confidence,
            iou=recipe.iou,
            tiled=recipe.tiles,
            boxes_only=TOOLS[recipe.tool].task == "detect",
        )

    def run(self) -> PrelabelCounts:
        recipe, job = self.recipe, self.job
        listed = list(pictures(Path(recipe.dataset), self.settings, recipe.temporary))
        done = self._done()
        seen: set[str] = set()
        job.log(f"{len(listed)} pictures by {self.version.id} on {self.labeller.engine.backend}.")
        if done:
            job.log(f"{len(done)} of them are done already.")
        noted = time.monotonic()
        for number, (path, name, split) in enumerate(listed):
            job.advance(number / len(listed), self.figures.totals())
            job.check()
            try:
                data = _read(path)
                content = sha256(data).hexdigest()
                entry = done[content] = done.get(content) or self._label(data, name, split)
                self._count(entry, seen)
            except (VisionLoopError, OSError) as error:
                self._problem(name, error)
            if time.monotonic() - noted >= CHECKPOINT:
                noted = time.monotonic()
                job.checkpointed(0, batch=number + 1)
        job.advance(1.0, self.figures.totals())
        return self.figures

    def _done(self) -> dict[str, AnnotationEntry]:
        rows = first_words(self.store, self.recipe.dataset_id)
        return {row.content: row for row in rows if row.content}

    def _label(self, data: bytes, name: str, split: str) -> AnnotationEntry:
        labelled = self.labeller.label(data)
        bands = self.recipe.bands
        every = labelled.prediction.to_annotations(name)
        found = every.above(bands.review)
        below = Counter(
            o.label for o in every.objects if o.score is not None and o.score < bands.review
        )
        content, suffix = self.store.keep(self.recipe.dataset_id, data)
        entry = AnnotationEntry(
            key=f"model:{content}",
            rank=PRELABEL_RANK,
            document={
                "by": self.version.id,
                "name": name,
                "split": split,
                "discarded": dict(below),
                **_worth(labelled, doubt_of(labelled.prediction, bands)),
            },
            content=content,
            suffix=suffix,
            annotations=found.to_json(),
        )
        self.store.add_first(self.recipe.dataset_id, [entry])
        return entry

    def _count(self, entry: AnnotationEntry, seen: set[str]) -> None:
        assert entry.content is not None
        if entry.content in seen:
            self.figures.twins += 1
            return
        seen.add(entry.content)
        found = Annotations.from_json(entry.annotations or {})
        self.figures.add(found, entry.document["discarded"], self.recipe)

    def _problem(self, name: str, error: Exception) -> None:
        reason = str(error) if isinstance(error, VisionLoopError) else "It cannot be read."
        self.figures.problems[name] = reason
        if len(self.figures.problems) <= NAMED:
            self.job.log(f"Left out: {name}: {reason}")


def _finish(
    recipe: AnnotationRecipe,
    job: JobHandle,
    version: ModelVersion,
    store: AnnotatedDatasets,
    figures: PrelabelCounts,
) -> None:
    """The first revision, and the card by which the data set is found."""
    if not figures.pictures:
        first = next(iter(figures.problems.items()), ("", "there are none"))
        raise DatasetInvalid(f"No picture could be read: {': '.join(first)}")
    known = version.description
    dataset = store.get(recipe.dataset_id)
    more = {"annotation": {"model_id": version.id, "job_id": job.id, **figures.to_json()}}
    build(
        store,
        store.ensure(dataset.source, dataset.name, more),
        task=recipe.task,
        names=known.names,
        keypoint_names=known.keypoint_names or (),
        keep=True,
    )
    bands = figures.by_band
    job.log(
        f"{figures.pictures} pictures: {bands['accept']} accepted, {bands['review']} to review; "
        f"{len(figures.problems)} could not be read, {figures.twins} were copies of others."
    )
    for row in figures.to_json()["classes"]:
        counts = ", ".join(f"{band} {row[band]}" for band in BANDS)
        job.log(f"{row['name']}: {counts}.")
    job.log(f"The data set is {recipe.dataset_id}.")


def _worth(labelled: Labelled, doubt: Doubt) -> dict[str, Any]:
    """What the queue orders pictures by."""
    return {
        "doubt": doubt.value,
        "shown": doubt.shown,
        "review": doubt.review,
        "below": doubt.discarded,
        "reason": doubt.reason,
        "look": pack(look_of(labelled.pixels)),
    }


def _read(path: Path) -> bytes:
    if path.stat().st_size > BIGGEST:
        raise DatasetInvalid(f"The file is over {BIGGEST // 2**20} MiB.")
    return path.read_bytes()
