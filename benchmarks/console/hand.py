"""A person's hand in a browser, whose clicks, keys and seconds are counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


@dataclass(frozen=True)
class Effort:
    """What a flow took.

    Attributes:
        clicks: Clicks, choices in a list, and drags of the mouse.
        keys: Strokes of keys that are commands.
        typed: Characters of names and numbers.
        seconds: From the first action to the last thing that was waited for. A script does not
            read or aim: the time is the page's and the server's.
    """

    clicks: int
    keys: int
    typed: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"seconds": round(self.seconds, 2)}


class Hand:
    """Acts in a page, and counts."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.clicks = self.keys = self.typed = 0
        self._began = time.perf_counter()

    def click(self, place: Locator) -> None:
        self.clicks += 1
        place.click()

    def choose(self, place: Locator, value: str) -> None:
        """Choose in a list that the browser opens; one click, as for a button."""
        self.clicks += 1
        place.select_option(value)

    def type(self, place: Locator, text: str) -> None:
        self.typed += len(text)
        place.fill(text)

    def press(self, key: str) -> None:
        self.keys += 1
        self.page.keyboard.press(key)

    def drag(self, begin: tuple[float, float], end: tuple[float, float]) -> None:
        self.clicks += 1
        self.page.mouse.move(*begin)
        self.page.mouse.down()
        self.page.mouse.move(*((a + b) / 2 for a, b in zip(begin, end, strict=True)))
        self.page.mouse.move(*end)
        self.page.mouse.up()

    @property
    def effort(self) -> Effort:
        return Effort(self.clicks, self.keys, self.typed, time.perf_counter() - self._began)


def measured(page: Page, flow: Callable[[Hand], None]) -> Effort:
    """What a flow takes; it begins on the page that is open."""
    hand = Hand(page)
    flow(hand)
    return hand.effort
