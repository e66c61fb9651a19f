"""Queues the trials of engines that are due, as long as the Trainer runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from database import Database
from dataset.store import open_datasets
from engines.trial_submission import submit_due
from errors import DatabaseBusy, InsufficientStorage
from evaluation.store import EvaluationStore
from evaluation.submission import EvaluationStores
from inference.device import device
from jobs.store import JobStore
from models_store.registry import Registry
from settings import Settings

log = logging.getLogger("visionloop")

POLL = 20.0  # seconds between two looks for trials that are due
LEAD = 0.5  # seconds between two questions whether this server leads


class DueTrials:
    """Looks for models without a measured choice of their engine, and queues their trials.

    So a model is tried after its publication or import, after its first evaluation, after a
    promotion, and on a machine that is new to it. Forced engines need no choice, except int8.

    Of servers that share a database, only the one that leads looks: jobs run on its machine, so
    that the others never got the choices that they lack, however often they queued a trial.
    """

    def __init__(
        self,
        settings: Settings,
        wake: Callable[[], None],
        leads: Callable[[], bool],
        poll: float = POLL,
    ) -> None:
        """
        Args:
            settings: Name the home, and the engine that is forced.
            wake: Called when a job was queued.
            leads: Whether jobs run on this machine now.
            poll: Seconds between two looks.
        """
        self._settings, self._wake, self._leads, self._poll = settings, wake, leads, poll
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look, where engines are tried. Needs a running event loop."""
        if self._settings.engine in ("auto", "int8") and device(self._settings) == "cpu":
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        database = Database(self._settings)
        stores = EvaluationStores(
            Registry(database),
            open_datasets(database),
            EvaluationStore(database),
            JobStore(database),
        )
        while True:
            if not self._leads():
                await asyncio.sleep(LEAD)
                continue
            try:
                if await asyncio.to_thread(submit_due, stores):
                    self._wake()
            except (DatabaseBusy, InsufficientStorage):  # the next look may succeed
                pass
            except Exception:
                log.exception("The trials of engines that are due could not be queued")
            await asyncio.sleep(self._poll)
