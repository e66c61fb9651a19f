"""Trials that are due, where several servers share one database: one of them queues them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engines import due_trials
from engines.due_trials import DueTrials
from settings import Settings
from tests.support.patience import until


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The looks for trials that are due; each finds one."""
    found: list[Any] = []

    def look(stores: Any) -> list[str]:
        found.append(stores)
        return ["job"]

    monkeypatch.setattr(due_trials, "submit_due", look)
    return found


def test_only_the_server_that_leads_queues_trials(
    tmp_path: Path, looks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials run on the machine of the leader, so that the others never get a choice of theirs.

    Each that queued them would do so again after every one, for ever.
    """
    monkeypatch.setattr(due_trials, "LEAD", 0.01)
    leads, asked, woken = False, 0, 0

    def told() -> bool:
        nonlocal asked
        asked += 1
        return leads

    def wake() -> None:
        nonlocal woken
        woken += 1

    async def body() -> None:
        nonlocal leads
        trials = DueTrials(Settings(home=tmp_path, device="cpu"), wake, told, poll=0.01)
        trials.start()
        try:
            await until(lambda: asked > 3)
            assert looks == []
            leads = True  # the other server ended
            await until(lambda: len(looks) > 0 and woken > 0)
        finally:
            await trials.stop()

    asyncio.run(body())
