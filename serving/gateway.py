"""The state of the gateway process: settings, stores, runners, background tasks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import Any, NamedTuple

from access.control import AccessControl
from annotation.browse.browser import DatasetBrowser
from annotation.datasets import AnnotatedDatasets
from annotation.drafts.store import DraftStore
from annotation.prelabels import PrelabelStore
from annotation.queue.review_queue import ReviewQueue
from database import REQUEST_TIMEOUT, Database
from dataset.browse.thumbnails import Thumbnails
from dataset.store import open_datasets
from disk_space import no_room
from errors import (
    BackendTimeout,
    BackendUnavailable,
    ModelNotFound,
    VisionLoopError,
    without_server_paths,
)
from evaluation.store import EvaluationStore
from inference.prediction import InferenceItem, ItemResult
from inference.runtime.allocator import release_free_memory
from jobs.store import JobStore
from models_store import preload
from models_store.decision_log import COMMAND, DecisionReason
from models_store.registry import Registry
from models_store.versions import ModelVersion
from serving import telemetry
from serving.annotation_inbox import AnnotationInbox
from serving.deferred import afterwards
from serving.gateways.one_process import Leadership
from serving.gateways.peers import Peers
from serving.gateways.prefetch import Prefetch
from serving.gateways.renewal import renew_engines
from serving.live_traffic import LiveTraffic
from serving.operations.drift_watch import DriftWatch
from serving.operations.sampler import Sampler
from serving.runner_client import Runner
from serving.shadow import Shadowing
from serving.shutdown import on_shutdown_signal
from serving.tool_images import ToolImages
from serving.trainer_client import TrainerLink
from settings import Settings
from upkeep.model_use import delete_model

log = logging.getLogger("visionloop")

WARMING = 0.8  # share of the request timeout within which `_warm` must have loaded a model
ACTIVE_POLL = 5.0  # seconds between two checks whether the active model is to be loaded
FIRST_POLL = 0.3  # the same at the start, when the service is not ready without it
TOOL_TASKS = 32  # maximum number of tasks of annotation tools predicted at the same time
CLEAN_UP = "Delete jobs, datasets and models that nobody needs: docs/how-to/clean-up.md."
RESTORE = "See that it can be reached and is not locked; a damaged one: docs/how-to/back-up.md."
RESTARTED = "Wait: it is started again by itself. If it is not, see its lines in the log."
UNUSED_POLL = 60.0  # seconds between two looks for models whose series are removed
GAUGE_SECONDS = 0.5  # between two times that a gateway process tells the others its queues
PRELOAD_POLL = 1.0  # seconds between two queries for versions that jobs are about to promote


class QueueGauges(NamedTuple):
    """Of one runner, in all gateway processes.

    Attributes:
        queued: Images waiting for a batch.
        loading: Images waiting until their model is loaded.
        calls: Batches in the runner.
    """

    queued: float
    loading: float
    calls: float


def _missing(what: str, name: str, reason: str, remedy: str) -> dict[str, str]:
    return {"what": what, "name": name, "reason": without_server_paths(reason), "remedy": remedy}


class Gateway:
    """The state of a gateway process; one per process.

    Args:
        settings: The settings of this process.
        registry: The model registry.
        runners: The clients of `detector` and `annotator`, by name.
        trainer: The client of the Trainer; None in tests without one.
        peers: The other gateway processes.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        runners: dict[str, Runner],
        trainer: TrainerLink | None = None,
        peers: Peers | None = None,
    ) -> None:
        self.settings = settings
        self.registry = registry
        self.runners = runners
        self.access = AccessControl(registry.database)
        self.datasets = open_datasets(registry.database)
        self.jobs = JobStore(registry.database)
        self.prelabels = PrelabelStore(registry.database)
        self.evaluations = EvaluationStore(registry.database)
        self.annotated = AnnotatedDatasets(registry.database)
        self.leadership = Leadership(settings.paths.locks)
        self.inbox = AnnotationInbox(
            self.annotated,
            ToolImages(settings),
            registry,
            self.jobs,
            self.evaluations,
            self.leadership,
        )
        self.live = LiveTraffic(registry)
        self.browser = DatasetBrowser(
            self.datasets, self.annotated.entries, DraftStore(registry.database).contents
        )
        self.thumbnails = Thumbnails(settings)
        self.review = ReviewQueue(self.datasets, self.annotated, self.live.kept, registry)
        self.shadow = Shadowing(registry, runners["annotator"])
        self.sampler = Sampler(lambda: sum(one.queued for one in self.queues().values()))
        self.trainer = trainer
        self.peers = peers or Peers()
        self.tool_tasks = asyncio.Semaphore(settings.per_gateway(TOOL_TASKS))
        self.shutdown = asyncio.Event()  # once set, endless responses are closed
        self._tasks: set[asyncio.Task[None]] = set()
        self._unusable: tuple[str, str] | None = None  # active model and why it cannot be loaded
        self._delayed = ""  # why the active model could not be loaded yet
        self._tried = asyncio.Event()  # whether the active model has been loaded, or failed to

    @property
    def detector(self) -> Runner:
        return self.runners["detector"]

    @classmethod
    def open(
        cls,
        settings: Settings,
        runners: dict[str, Runner],
        trainer: TrainerLink | None = None,
        peers: Peers | None = None,
    ) -> Gateway:
        """Create and start a gateway; its tasks wait for the runners and load the active model."""
        database = Database(settings, REQUEST_TIMEOUT)
        gateway = cls(settings, Registry(database), runners, trainer, peers)
        gateway._start()
        return gateway

    def _start(self) -> None:
        on_shutdown_signal(self._begin_shutdown)
        self.access.start()
        for runner in self.runners.values():
            runner.start()
        self.live.start()
        self.inbox.start()
        self.shadow.start()
        work = [self._keep_active_loaded(), self._preload_promoted(), self._renew_engines()]
        work += [self.sampler.run(), self._watch_drift(), self._prefetch(), self._remove_series()]
        if not self.peers.alone:
            work.append(self._publish_gauges())
        for one in work:
            task = asyncio.create_task(one)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _begin_shutdown(self) -> None:
        self.shutdown.set()
        for runner in self.runners.values():
            runner.begin_shutdown()

    async def stop(self) -> None:
        """Cancel the background tasks, store the statistics, close the clients."""
        for task in self._tasks:
            task.cancel()
        await self.shadow.stop()
        await self.inbox.stop()
        for runner in self.runners.values():
            await runner.stop()
        await self.live.stop()
        if self.trainer is not None:
            await self.trainer.close()
        await asyncio.to_thread(self.access.stop)
        self.leadership.stop()
        self.peers.close()

    def answered(
        self, model: ModelVersion, item: InferenceItem, result: ItemResult, answer: dict[str, Any]
    ) -> None:
        """Record a live response for statistics, kept images and the shadow.

        Everything slow runs after the response has been sent. If the request filtered the
        classes, nothing is recorded: what is left out would look as if it had not been there.
        """
        if result.prediction is None or item.classes is not None:
            return
        self.live.note(model, result.prediction)
        if (confidence := self.live.doubt(model, result.prediction)) is not None:
            afterwards(partial(self.live.keep, item.image, answer, confidence))
        if self.shadow.fits(model):
            afterwards(partial(self.shadow.offer, item, result))

    async def check_ready(self) -> None:
        """Check that the service can predict.

        Raises:
            BackendUnavailable: A runner has not started yet, all are down, the database cannot be
                read, or the active model cannot be loaded; `missing` lists all of these. A disk
                that is full is listed too, but alone it is no reason: inference goes on.
        """
        found = await asyncio.gather(
            *(runner.status() for runner in self.runners.values()), return_exceptions=True
        )
        down = [
            _missing(
                "runner", name, str(error), "It is started by itself: see the log's lines of it."
            )
            for name, error in zip(self.runners, found, strict=True)
            if isinstance(error, BaseException)
        ]
        started = all(runner.started for runner in self.runners.values())
        missing = down if len(down) == len(found) or not started else []
        missing += await self._missing_model()
        if not missing:
            return
        if (full := no_room(self.settings)) is not None:
            missing.append(_missing("disk", "VISIONLOOP_HOME", full.message, CLEAN_UP))
        message = " ".join(dict.fromkeys(one["reason"] for one in missing))
        raise BackendUnavailable(f"The service is not ready. {message}", 2.0, missing)

    async def _missing_model(self) -> list[dict[str, str]]:
        """Why the active model cannot serve; empty if it can."""
        try:
            active = await asyncio.to_thread(self.registry.active)
        except ModelNotFound as error:
            reason = f"No model can serve: {error.message}"
            return [
                _missing("model", "", reason, "Import one, or choose one: POST /models/active.")
            ]
        except VisionLoopError as error:
            reason = f"No model can serve: {error.message}"
            return [_missing("database", "", reason, RESTORE)]
        if not self._tried.is_set():
            return [self._loading(active)]
        if self._unusable is not None and self._unusable[0] == active.id:
            reason = f"The active model cannot serve: {self._unusable[1]}"
            remedy = "Choose another one: POST /models/active."
            return [_missing("model", active.id, reason, remedy)]
        return []

    def _loading(self, active: ModelVersion) -> dict[str, str]:
        """What `/readyz` says while the active model is loaded for the first time."""
        if active.is_here:
            reason, remedy = "is being loaded.", "Wait: it takes seconds."
        elif self._delayed:
            reason, remedy = f"cannot be downloaded yet. {self._delayed}", "It is tried again."
        else:
            reason, remedy = "is being downloaded from the object store.", "Wait."
        return _missing("model", active.id, f"The active model '{active.id}' {reason}", remedy)

    async def activate(self, model_id: str, by: str | None = None) -> ModelVersion:
        """Make a model the one that serves requests without a model id; `by`: who asked for it."""
        await self._warm(self.registry.get(model_id))
        model = await asyncio.to_thread(self.registry.activate, model_id, by)
        await self.shadow.look()
        return model

    async def promote(
        self, model: ModelVersion, why: DecisionReason, expected_promoted: str | None = None
    ) -> ModelVersion:
        """Promote a version: requests with its bare name then get it. See `Registry.promote`."""
        await self._warm(model)
        model = await asyncio.to_thread(self.registry.promote, model.id, why, expected_promoted)
        await self.shadow.look()
        return model

    async def rollback(self, name: str, why: DecisionReason) -> ModelVersion:
        """Promote the previous version again; see `Registry.rollback`."""
        await self._warm(await asyncio.to_thread(self.registry.previous, name))
        model = await asyncio.to_thread(self.registry.rollback, name, why)
        await self.shadow.look()
        return model

    async def _warm(self, model: ModelVersion) -> None:
        """Load a model before the first request for it, if the runner is up and time allows."""
        with contextlib.suppress(BackendUnavailable, BackendTimeout, TimeoutError):
            async with asyncio.timeout(WARMING * self.settings.request_timeout):
                await self.detector.warm(model.id)

    async def delete(self, model_id: str, why: DecisionReason = COMMAND) -> None:
        """Delete a version with its evaluations and kept images, and evict it from the runners.

        Raises:
            Conflict: The version is active, or a job needs it.
            ValidationFailed: A bare name was given, and it has several versions.
        """
        model = await asyncio.to_thread(self._delete, model_id, why)
        for runner in self.runners.values():
            with contextlib.suppress(VisionLoopError):  # a runner that is down has no model loaded
                await runner.unload(model.id)
        await self.shadow.look()

    def _delete(self, model_id: str, why: DecisionReason) -> ModelVersion:
        stores = self.registry, self.jobs, self.evaluations, self.live.kept
        return delete_model(model_id, why, *stores)

    async def engines(self) -> dict[str, dict[str, str | None]]:
        """`engine` (the backend) and `letterbox` of every loaded model, by model id."""
        if self.detector.up:
            with contextlib.suppress(VisionLoopError):
                status = await self.detector.status()
                return {
                    model_id: {"engine": engine, "letterbox": status["letterboxes"][model_id]}
                    for model_id, engine in status["engines"].items()
                }
        return {}

    async def _renew_engines(self) -> None:
        """Make the engines of a version before again, in one gateway process."""
        await self.leadership.wait()
        await renew_engines(self.registry, self.detector.idle.wait_idle)

    async def _watch_drift(self) -> None:
        """Record when models drift, in one gateway process."""
        await self.leadership.wait()
        await DriftWatch(self.registry).run()

    async def _remove_series(self) -> None:
        """Remove the series of deleted and unused models, with the memory that they took."""
        while True:
            await asyncio.sleep(UNUSED_POLL)
            try:
                stored = {model.id for model in self.registry.list()}
                if await asyncio.to_thread(telemetry.remove_unused, stored):
                    await asyncio.to_thread(release_free_memory)
            except Exception:
                log.exception("The series of unused models could not be removed")

    async def _prefetch(self) -> None:
        """Download what other machines promote, in one gateway process."""
        await self.leadership.wait()
        await Prefetch(self.registry).run()

    async def _preload_promoted(self) -> None:
        """Load the versions that jobs are about to promote, so that requests need not wait."""
        await self.leadership.wait()
        database = self.registry.database
        while True:
            try:
                for model_id in await asyncio.to_thread(preload.preload, database):
                    with contextlib.suppress(VisionLoopError):
                        await self._warm(self.registry.get(model_id))
                    await asyncio.to_thread(preload.loaded, database, model_id)
            except Exception:
                log.exception("Preloading the versions to be promoted failed")
            await asyncio.sleep(PRELOAD_POLL)

    def queues(self) -> dict[str, QueueGauges]:
        """Of each runner: what waits in this gateway process and the others, and is in flight."""
        own = self._own_queues()
        others = self.peers.gauges(len(own))
        sums = [mine + theirs for mine, theirs in zip(own, others, strict=True)]
        width = len(QueueGauges._fields)
        return {
            name: QueueGauges(*sums[start : start + width])
            for name, start in zip(self.runners, range(0, len(sums), width), strict=True)
        }

    def _own_queues(self) -> list[float]:
        values: list[float] = []
        for runner in self.runners.values():
            stats = [batcher.stats for batcher in runner.batchers]
            values += QueueGauges(
                sum(one.queued for one in stats),
                sum(one.loading for one in stats),
                sum(one.running_calls for one in stats),
            )
        return values

    async def _publish_gauges(self) -> None:
        while True:
            self.peers.set_gauges(self._own_queues())
            await asyncio.sleep(GAUGE_SECONDS)

    async def _keep_active_loaded(self) -> None:
        """Load the active model once per runner process; try again while that fails."""
        loaded: tuple[int, str] | None = None  # process and model
        while True:
            await self.detector.wait_until_up()
            active = ""
            try:
                active = self.registry.active().id
                wanted = (int((await self.detector.status())["process"]), active)
                if wanted != loaded:
                    await self.detector.warm(active)
                    loaded = wanted
                self._unusable = None
                self._tried.set()
            except (BackendUnavailable, BackendTimeout) as error:  # it is tried again
                self._delayed = error.message
            except Exception as error:
                self._note_unusable(active, error)
            await asyncio.sleep(ACTIVE_POLL if self._tried.is_set() else FIRST_POLL)

    def _note_unusable(self, active: str, error: Exception) -> None:
        why = str(error) if isinstance(error, VisionLoopError) else "see the server's log."
        if self._unusable != (active, why):
            log.error("The active model cannot be loaded", exc_info=error)
        self._unusable = (active, why)
        self._tried.set()
