"""The task that reads the counters on and on."""

from __future__ import annotations

import asyncio

import pytest

from serving.operations.counters import Counters
from serving.operations.sampler import Sampler
from tests.support.patience import until


def test_it_goes_on_after_a_reading_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    readings = iter([1, None, 3, 4])

    def read() -> Counters:
        number = next(readings, 5)
        if number is None:
            raise OSError("The folder is gone.")
        return Counters(requests=number)

    async def story() -> None:
        sampler = Sampler(lambda: 2.0, read, step=0.02)
        task = asyncio.create_task(sampler.run())
        await until(lambda: len(sampler.window.steps) >= 2)
        task.cancel()
        assert sampler.window.steps[0].queued == 2.0
        assert sampler.seconds > 0

    asyncio.run(story())
    assert "could not be read" in caplog.text
