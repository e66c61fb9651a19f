"""Reading datasets never takes the threads that other requests need."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest

from api.thread_pool import FOR_ONE, LIMIT, BoundedThreadPool, slow_reads, slow_work
from errors import BackendUnavailable, RateLimited
from jobs.caller import CALLER
from tests.support.patience import PATIENCE, until
from tests.support.training_app import Service


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


def test_one_caller_leaves_places_for_others() -> None:
    async def story() -> None:
        work, go = BoundedThreadPool(limit=5, for_one=3), threading.Event()

        async def asked(caller: str) -> bool:
            CALLER.set(caller)
            return await work.run(go.wait)

        reading = [asyncio.create_task(asked("a")) for _ in range(3)]
        await until(lambda: work.count == 3)
        with pytest.raises(RateLimited, match="3 of your requests are already waiting"):
            await asyncio.create_task(asked("a"))
        reading += [asyncio.create_task(asked("b")) for _ in range(2)]
        await until(lambda: work.count == 5)
        with pytest.raises(BackendUnavailable):
            await asyncio.create_task(asked("c"))
        go.set()
        assert await asyncio.gather(*reading) == [True] * 5
        await until(lambda: work.count == 0)
        assert await asyncio.create_task(asked("a"))

    asyncio.run(story())


def test_reads_take_no_place_of_the_admin_s_work(service: Service) -> None:
    """A check runs while reads of the use token fill their places and threads."""

    async def story() -> None:
        go = threading.Event()

        async def read(caller: str) -> bool:
            CALLER.set(caller)
            return await slow_reads.run(go.wait)

        reading = [asyncio.create_task(read(str(n % 2))) for n in range(LIMIT)]
        await until(lambda: slow_reads.count == LIMIT == 2 * FOR_ONE)
        try:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(service.app), base_url="http://localhost"
            ) as client:
                sheet = await client.get("/api/datasets/a/sheet.png")
                queue = await client.get("/api/annotation/queue")
                export = await client.get("/api/datasets/a/export")
                assert [a.status_code for a in (sheet, queue, export)] == [503] * 3
                body = {"data_path": str(service.data), "task": "detect"}
                checked = await client.post("/api/datasets/check", json=body)
                assert checked.status_code == 200, checked.text
        finally:
            go.set()
            await asyncio.gather(*reading)
        assert slow_work.count == 0

    asyncio.run(story())
