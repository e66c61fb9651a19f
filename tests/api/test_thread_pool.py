"""Reading datasets never takes the threads that other requests need."""

from __future__ import annotations

import asyncio
import threading

import pytest

from api.thread_pool import BoundedThreadPool
from errors import BackendUnavailable
from tests.support.patience import PATIENCE, until


def test_other_threads_are_free_while_many_datasets_are_read() -> None:
    async def story() -> None:
        work, go = BoundedThreadPool(), threading.Event()
        reading = [asyncio.create_task(work.run(go.wait)) for _ in range(20)]
        await until(lambda: work.count == 20)
        # returns while the datasets are still being read
        assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), PATIENCE) == 7
        go.set()
        assert await asyncio.gather(*reading) == [True] * 20

    asyncio.run(story())


def test_a_queue_that_is_full_says_so_and_empties() -> None:
    async def story() -> None:
        work, go = BoundedThreadPool(limit=3), threading.Event()
        reading = [asyncio.create_task(work.run(go.wait)) for _ in range(3)]
        await until(lambda: work.count == 3)
        with pytest.raises(BackendUnavailable, match="Try again"):
            await work.run(go.wait)
        reading[0].cancel()  # its thread goes on: it counts until it is done
        with pytest.raises(BackendUnavailable):
            await work.run(go.wait)
        reading[2].cancel()  # it waits: it counts no more
        await until(lambda: work.count == 2)
        reading.append(asyncio.create_task(work.run(go.wait)))
        go.set()
        await asyncio.gather(*reading, return_exceptions=True)
        await until(lambda: work.count == 0)
        assert await work.run(lambda: 7) == 7

    asyncio.run(story())


def test_what_goes_wrong_comes_through() -> None:
    def broken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        asyncio.run(BoundedThreadPool().run(broken))
