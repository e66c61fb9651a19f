"""Builds datasets from annotations sent by tools; fetches their images after the response."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select

from annotation.datasets import AnnotatedDatasets
from annotation.preannotation import Preannotation, plan
from annotation.revision_builder import build
from annotation.tables import AnnotatedDataset, AnnotationEntry
from database import FAILURES
from dataset.task_forms import task_of
from disk_space import NO_ROOM, is_disk_full
from errors import InsufficientStorage, ValidationFailed, VisionLoopError, our_fault
from evaluation.store import EvaluationRow, EvaluationStore
from formats.annotations import Annotations
from formats.label_studio import from_label_studio
from formats.label_studio_config import LabelConfig, parse_label_config
from formats.label_studio_marking import marking
from formats.label_studio_names import training_names
from inference.images import check_header
from jobs.home_references import HOME
from jobs.job import Job
from jobs.store import JobStore
from models_store.description import Task
from models_store.registry import Registry
from models_store.versions import ModelVersion
from serving.gateways.one_process import Leadership, OneAtATime
from serving.tool_images import ToolImages

log = logging.getLogger("visionloop")

LOOK = 0.25  # seconds between two looks for annotations that another gateway process received
AGAIN = 300.0  # seconds until a failed image is fetched again
CONFIG = "label_config"  # key in a dataset's options
LEFT_OUT = "left_out"  # key in a row's document: why the annotation cannot be stored


@dataclass(frozen=True)
class Pace:
    """When dataset folders are rebuilt.

    Attributes:
        quiet: Seconds without new annotations after which a folder is rebuilt.
        share: Minimum pause after a build of a folder, as a multiple of the build's duration.
        latest: Maximum seconds for which new annotations can delay a build.
    """

    quiet: float = 3.0
    share: float = 20.0
    latest: float = 60.0


class AnnotationInbox:
    """Stores annotations, fetches their images, builds dataset folders; one per gateway process.

    The leading gateway process fetches and builds. Annotations without an image yet are in the
    database, so none are lost when the server stops.
    """

    def __init__(
        self,
        store: AnnotatedDatasets,
        images: ToolImages,
        registry: Registry,
        jobs: JobStore,
        evaluations: EvaluationStore,
        leadership: Leadership | None = None,
    ) -> None:
        self.store = store
        self.pace = Pace()
        self.images = images
        self.registry = registry
        self.jobs = jobs
        self.evaluations = evaluations
        self._arrived = asyncio.Event()
        self._database = registry.database
        self._change: int | None = None  # of the annotations, as it was seen last
        self._tried: dict[tuple[str, str, int], float] = {}
        self._next: dict[str, float] = {}  # dataset → earliest time of its next build
        self._leadership = leadership or Leadership(registry.settings.paths.locks)
        self._one = OneAtATime("annotation-images", registry.settings.paths.locks)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start, and process annotations left from an earlier run. Needs a running event loop."""
        self._arrived.set()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def wake(self) -> None:
        """Process new annotations now, in whichever gateway process does that."""
        self._arrived.set()
        self._database.signal_change("annotations")
        self._change = self._database.change("annotations")

    async def bring(self, dataset_id: str | None = None, again: bool = False) -> None:
        """Fetch the missing images; with `again`, also those that failed a short time ago."""
        async with self._one:
            for entry in await asyncio.to_thread(self.store.entries.waiting, dataset_id):
                key = (entry.dataset_id, entry.key, entry.number)
                if again or time.monotonic() - self._tried.get(key, -AGAIN) >= AGAIN:
                    self._tried[key] = time.monotonic()
                    try:
                        await self._bring(entry)
                    except FAILURES:  # the annotation still waits; the next call tries it again
                        self._tried.pop(key, None)
                        raise
                    if len(self._tried) > 100_000:
                        self._tried.clear()

    async def build(
        self, dataset: AnnotatedDataset, task: Task | None = None, keep: bool = False
    ) -> dict[str, Any]:
        """Build the dataset's newest folder. Returns the folder's description.

        Args:
            dataset: The dataset.
            task: Task to build for; None: the one that fits the annotations.
            keep: Keep this revision for as long as the dataset.

        Raises:
            DatasetInvalid: The dataset has no annotations yet.
        """
        return await asyncio.to_thread(self.build_now, dataset, task, keep)

    def project(self, dataset: AnnotatedDataset) -> Preannotation | None:
        """The pre-annotation of a dataset's project; None if its configuration cannot be read."""
        try:
            config = parse_label_config(str(dataset.options.get(CONFIG) or ""))
        except ValidationFailed:
            return None
        return self.preannotation(config, dataset.options.get("model"))

    def preannotation(self, config: LabelConfig, wanted: str | None = None) -> Preannotation:
        """The pre-annotation of a labelling configuration; the model `wanted` is preferred."""
        return plan(config, self.candidates(config, wanted), wanted)

    def candidates(self, config: LabelConfig, wanted: str | None = None) -> list[ModelVersion]:
        """Models that may pre-annotate: named in the request or configuration, active, promoted."""
        found: list[ModelVersion] = []
        for name in (wanted, *(control.model for control in config.controls)):
            with contextlib.suppress(VisionLoopError):
                if name:
                    found.append(self.registry.get(name))
        listed = sorted(self.registry.list(), key=lambda model: model.created_at, reverse=True)
        found += [model for model in listed if model.active]
        found += [model for model in listed if model.promoted]
        return list({model.id: model for model in found}.values())

    def base(self, dataset: AnnotatedDataset, task: Task) -> ModelVersion | None:
        """The model of `task` that the project uses, else the active or newest promoted one."""
        project = self.project(dataset)
        used = [share.model for share in project.shares] if project else []
        more = self.candidates(project.config) if project else []
        return next((m for m in (*used, *more) if m.description.task == task), None)

    # --- private

    async def _run(self) -> None:
        await self._leadership.wait()
        pause, arrived = AGAIN, 0.0
        while True:
            woken = await self._wait(pause)
            try:
                await self.bring()
                arrived = arrived or time.monotonic()
                if woken and time.monotonic() - arrived < self.pace.latest:
                    pause = self.pace.quiet
                    continue
                arrived, pause = 0.0, await self._build_changed()
            except Exception:
                log.exception("Processing the new annotations failed")
                pause = self.pace.quiet

    async def _wait(self, pause: float) -> bool:
        """Wait for new annotations, at most `pause` seconds. Returns whether there are some."""
        others = self.registry.settings.gateway_workers > 1 or self._database.is_shared
        until = time.monotonic() + pause
        while not self._arrived.is_set() and (left := until - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                # not wait_for, which in Python 3.11 loses a cancellation at the time of the event
                async with asyncio.timeout(min(left, LOOK) if others else left):
                    await self._arrived.wait()
            if (change := self._database.change("annotations")) != self._change:
                self._change = change
                self._arrived.set()
        woken = self._arrived.is_set()
        self._arrived.clear()
        return woken

    async def _build_changed(self) -> float:
        """Build the outdated folders. Returns seconds until the next build can be due."""
        pause = AGAIN
        for dataset in await asyncio.to_thread(self.store.outdated_projects):
            if CONFIG not in dataset.options:  # corrections build the folder of such a dataset
                continue
            due = self._next.get(dataset.id, 0.0) - time.monotonic()
            if due > 0:
                pause = min(pause, due)
            else:
                await self._try_build(dataset)
        return max(pause, self.pace.quiet)

    async def _try_build(self, dataset: AnnotatedDataset) -> None:
        began = time.monotonic()
        try:
            await self.build(dataset)
        except FAILURES as error:  # the dataset stays outdated, and is built later
            log.warning("Dataset %s cannot be built yet: %s", dataset.id, error)
        except VisionLoopError as error:
            log.info("Dataset %s: %s", dataset.id, error)
            await asyncio.to_thread(self.store.note_built, dataset.id, dataset.changes)
        except Exception as error:  # the other datasets are still built
            our_fault(error, f"Building the dataset {dataset.id}")
        ended = time.monotonic()
        self._next[dataset.id] = ended + self.pace.share * (ended - began)

    async def _bring(self, entry: AnnotationEntry) -> None:
        try:
            if reason := entry.document.get(LEFT_OUT):
                raise ValidationFailed(str(reason))
            regions = marking(entry.document.get("regions") or [])
            picture = await asyncio.to_thread(
                self.store.entries.image_at, entry.dataset_id, entry.address
            )
            picture = picture or await self.images.get(entry.address)
            await asyncio.to_thread(self._record, entry, picture, regions)
        except FAILURES:
            raise
        except VisionLoopError as error:
            log.warning(
                "Annotation %s of %s has no image yet: %s", entry.key, entry.dataset_id, error
            )
            await asyncio.to_thread(self.store.entries.note_error, entry, str(error))
        except Exception as error:  # the other annotations are still processed
            if is_disk_full(error):
                raise InsufficientStorage(NO_ROOM) from error
            fault = our_fault(error, f"Annotation {entry.key} of {entry.dataset_id}")
            await asyncio.to_thread(self.store.entries.note_error, entry, str(fault))

    def _record(
        self, entry: AnnotationEntry, picture: bytes, regions: list[Mapping[str, Any]]
    ) -> None:
        size = check_header(picture, self.store.entries.max_pixels)
        found = from_label_studio(regions, entry.address[-200:], size)
        self.store.entries.complete(entry, picture, found)

    def build_now(
        self, dataset: AnnotatedDataset, task: Task | None = None, keep: bool = False
    ) -> dict[str, Any]:
        """`build` in the calling thread."""
        task = task or task_of(p.annotations for p in self.store.entries.records(dataset.id))
        base = self.base(dataset, task)
        known = base.description.names if base else ()
        points = (base.description.keypoint_names if base else None) or ()
        project = self.project(dataset)
        if project is None:
            used = self._used()
            return build(self.store, dataset, task=task, names=known, used=used, keep=keep)
        names = training_names(project.config, known, points)

        def relabel(found: Annotations) -> Annotations:
            """Apply the class names; drop image-level classes unless the task is classification."""
            named = names.apply(found)
            if task == "classify":
                return named
            return replace(named, objects=tuple(o for o in named.objects if o.bounds is not None))

        return build(
            self.store,
            dataset,
            relabel=relabel,
            task=task,
            names=tuple(names.classes.values()),
            keypoint_names=tuple(names.points.values()),
            used=self._used(),
            keep=keep,
        )

    def _used(self) -> set[str]:
        """The paths that jobs and evaluations refer to; the folders there must not be deleted."""
        with self.jobs.database.read() as session:
            used = {
                text for recipe in session.scalars(select(Job.recipe)) for text in _texts(recipe)
            }
        with self.evaluations.database.read() as session:
            used |= set(session.scalars(select(EvaluationRow.dataset_path)))
        return {text for text in used if text.startswith(("/", HOME))}


def _texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
