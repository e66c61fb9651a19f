"""When a copy of live traffic may start, and when it must stop."""

from __future__ import annotations

import asyncio
import time

from serving.idle import IdleTracker
from tests.support.patience import PATIENCE

PAUSE = 2.0  # seconds; a busy machine may keep the event loop waiting for one


def test_a_lull_lasts_from_the_last_answer_on() -> None:
    async def story() -> None:
        idle = IdleTracker()
        await asyncio.wait_for(idle.wait_idle(PAUSE), PATIENCE)  # nobody has asked yet
        with idle.busy():
            waiting = asyncio.create_task(idle.wait_idle(PAUSE))
            with idle.busy():
                await asyncio.wait_for(idle.wait_busy(), PATIENCE)
            await asyncio.sleep(0.1)
            assert not waiting.done()  # one of the two is still being answered
        answered = time.monotonic()
        over = asyncio.create_task(idle.wait_busy())
        await asyncio.wait_for(waiting, PATIENCE)
        assert time.monotonic() - answered >= PAUSE
        assert not over.done()
        over.cancel()

    asyncio.run(story())


def test_who_asks_again_within_the_pause_begins_it_anew() -> None:
    async def story() -> None:
        idle = IdleTracker()
        with idle.busy():
            waiting = asyncio.create_task(idle.wait_idle(PAUSE))
            await asyncio.sleep(0)
        for _ in range(6):
            await asyncio.sleep(PAUSE / 5)
            with idle.busy():
                await asyncio.sleep(0)
        assert not waiting.done()
        await asyncio.wait_for(waiting, PATIENCE)

    asyncio.run(story())
