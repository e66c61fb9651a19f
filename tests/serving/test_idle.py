"""When a copy of live traffic may start, and when it must stop."""

from __future__ import annotations

import asyncio
import time

from serving.idle import Lull
from tests.support.patience import PATIENCE

PAUSE = 2.0  # seconds; a busy machine may keep the event loop waiting for one


def test_a_lull_lasts_from_the_last_answer_on() -> None:
    async def story() -> None:
        lull = Lull()
        await asyncio.wait_for(lull.lasting(PAUSE), PATIENCE)  # nobody has asked yet
        with lull.broken():
            waiting = asyncio.create_task(lull.lasting(PAUSE))
            with lull.broken():
                await asyncio.wait_for(lull.over(), PATIENCE)
            await asyncio.sleep(0.1)
            assert not waiting.done()  # one of the two is still being answered
        answered = time.monotonic()
        over = asyncio.create_task(lull.over())
        await asyncio.wait_for(waiting, PATIENCE)
        assert time.monotonic() - answered >= PAUSE
        assert not over.done()
        over.cancel()

    asyncio.run(story())


def test_who_asks_again_within_the_pause_begins_it_anew() -> None:
    async def story() -> None:
        lull = Lull()
        with lull.broken():
            waiting = asyncio.create_task(lull.lasting(PAUSE))
            await asyncio.sleep(0)
        for _ in range(6):
            await asyncio.sleep(PAUSE / 5)
            with lull.broken():
                await asyncio.sleep(0)
        assert not waiting.done()
        await asyncio.wait_for(waiting, PATIENCE)

    asyncio.run(story())
