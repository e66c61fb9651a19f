"""Large bodies are parsed and decoded in a thread; small ones at once."""

from __future__ import annotations

import asyncio
import base64
import threading
from contextvars import ContextVar

import pytest

from errors import InvalidImage
from serving.base64_images import decoded, from_base64
from serving.large_bodies import LARGE, worked_on
from tests.support.patience import until

NAME: ContextVar[str] = ContextVar("NAME")


def test_only_work_on_many_bytes_goes_to_the_thread() -> None:
    async def story() -> None:
        NAME.set("kept")
        here = threading.current_thread()
        assert await worked_on(LARGE, threading.current_thread) is here
        assert await worked_on(LARGE + 1, threading.current_thread) is not here
        assert await worked_on(LARGE + 1, NAME.get) == "kept"

    asyncio.run(story())


def test_the_loop_goes_on_and_one_body_is_worked_on_after_the_other() -> None:
    async def story() -> None:
        first, second = threading.Event(), threading.Event()
        begun: list[int] = []

        def work(number: int, go_on: threading.Event) -> int:
            begun.append(number)
            go_on.wait()
            return number

        tasks = [
            asyncio.create_task(worked_on(LARGE + 1, lambda n=n, e=e: work(n, e)))  # type: ignore[misc]
            for n, e in ((1, first), (2, second))
        ]
        await until(lambda: begun)
        assert begun == [1]
        first.set()
        assert await tasks[0] == 1
        second.set()
        assert await tasks[1] == 2

    asyncio.run(story())


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000, LARGE])
def test_both_alphabets_white_space_and_missing_padding_are_read(size: int) -> None:
    image = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    for text in (base64.b64encode(image), base64.urlsafe_b64encode(image)):
        plain = text.decode()
        wrapped = "\r\n ".join(plain[i : i + 76] for i in range(0, len(plain), 76))
        for given in (plain, plain.rstrip("="), wrapped, f"data:image/png;base64,{plain}"):
            assert from_base64(given) == image
            assert asyncio.run(decoded(given)) == image


@pytest.mark.parametrize("text", ["a", "?", "é", "\ud800", "data:image/png,AAAA", "=A", "AA=A"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidImage, match="'image'"):
        from_base64(text, "image")
