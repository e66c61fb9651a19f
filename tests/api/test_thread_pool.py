"""Reading data sets never takes the threads that other requests need."""

from __future__ import annotations

import asyncio
import threading

import pytest

from api import thread_pool
from api.thread_pool import BoundedThreadPool
from errors import BackendUnavailable
from tests.support.patience import PATIENCE, until


def test_other_threads_are_free_while_many_data_sets_are_read() -> None:
    async def story() -> None:
        work, go = BoundedThreadPool(), threading.Event()
        reading = [asyncio.create_task(work.run(go.wait)) for _ in range(20)]
        await asyncio.sleep(0.05)
        # comes back while the data sets are still being read
        assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), PATIENCE) == 7
        go.set()
        assert await asyncio.gather(*reading) == [True] * 20

    asyncio.run(story())


def test_a_queue_that_is_full_says_so_and_empties(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_pool, "MOST", 3)

    async def story() -> None:
        work, go = BoundedThreadPool(), threading.Event()
        reading = [asyncio.create_task(work.run(go.wait)) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(BackendUnavailable, match="Try again"):
            await work.run(go.wait)
        reading[0].cancel()  # its thread goes on: it counts until it is done
        with pytest.raises(BackendUnavailable):
            await work.run(go.wait)
        reading[2].cancel()  # it waits: it counts no more
        await asyncio.sleep(0.05)
        reading.append(asyncio.create_task(work.run(go.wait)))
        go.set()
        await asyncio.gather(*reading, return_exceptions=True)
        await until(lambda: work._count == 0)
        assert await work.run(lambda: 7) == 7

    asyncio.run(story())


def test_what_goes_wrong_comes_through() -> None:
    def broken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        asyncio.run(BoundedThreadPool().run(broken))
