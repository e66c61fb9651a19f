"""Records when the drift of a model's live traffic reaches another level; in one gateway."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from database import FAILURES
from models_store.registry import Registry
from models_store.tables import ModelEvent, record_event
from monitoring.live_stats import LiveStore
from serving.live_traffic import drifts

log = logging.getLogger("visionloop")

POLL = 60.0  # seconds between two looks
CALM = timedelta(hours=1)  # between two records of a model, unless the drift becomes larger
LEVELS = {"stable": 0, "within chance": 0, "moderate shift": 1, "large shift": 2}


class DriftWatch:
    """Compares the drift of each model with what was recorded of it last."""

    def __init__(self, registry: Registry, poll: float = POLL) -> None:
        self._registry = registry
        self._store = LiveStore(registry.database)
        self._poll = poll

    async def run(self) -> None:
        """Look on and on."""
        while True:
            try:
                await asyncio.to_thread(self.look)
            except FAILURES as error:
                log.warning("The drift of live traffic cannot be recorded yet: %s", error)
            except Exception:
                log.exception("The drift of live traffic could not be recorded")
            await asyncio.sleep(self._poll)

    def look(self) -> list[str]:
        """Record the models whose level has changed; returns their ids."""
        changed = []
        for model_id, found in drifts(self._registry, self._store).items():
            name, _, version = model_id.partition(":")
            last = self._last(name, version)
            level, before = LEVELS[found.verdict], LEVELS[last.details["verdict"]] if last else 0
            if level == before or (level < before and last is not None and _is_fresh(last)):
                continue
            details: dict[str, Any] = {
                "verdict": found.verdict,
                "index": round(found.index, 4),
                "by_chance": round(found.by_chance, 4),
            }
            with self._registry.database.write() as session:
                record_event(session, "drift", (name, version), details)
            changed.append(model_id)
        return changed

    def _last(self, name: str, version: str) -> ModelEvent | None:
        table = ModelEvent
        query = select(table).where(
            table.name == name, table.version == version, table.kind == "drift"
        )
        with self._registry.database.read() as session:
            return session.scalar(query.order_by(table.number.desc()).limit(1))


def _is_fresh(event: ModelEvent) -> bool:
    return datetime.now(UTC) - datetime.fromisoformat(event.at) < CALM
