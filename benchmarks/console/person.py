"""Somebody at a page: does what a person does, and counts it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


@dataclass
class Effort:
    """What a flow took: clicks (a drag is one), keys (a typed text is one), and seconds.

    The seconds are the page's: this person neither reads nor hesitates.
    """

    clicks: int = 0
    keys: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def done(self) -> Effort:
        self.seconds = time.perf_counter() - self.started
        return self


class Person:
    """Clicks, types and drags on a page, and counts it since `begin`."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.effort = Effort()

    def begin(self) -> None:
        self.effort = Effort()

    def click(self, target: Locator) -> None:
        target.click()
        self.effort.clicks += 1

    def choose(self, target: Locator, value: str) -> None:
        """Choose in a list that the browser opens; one click, as for a button."""
        target.select_option(value)
        self.effort.clicks += 1

    def type(self, target: Locator, text: str) -> None:
        target.fill(text)
        self.effort.keys += 1

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.effort.keys += 1

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        for step in range(1, 6):
            mouse.move(*(a + (b - a) * step / 5 for a, b in zip(start, end, strict=True)))
        mouse.up()
        self.effort.clicks += 1
