"""The console's annotator on a dataset of its own, as a person at a page uses it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from playwright.sync_api import expect

from tests.support.browsing import WAIT, Console
from tests.support.prelabelled import SIZE
from tests.support.serving import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

MARGIN = 16  # pixels around a fitted image
Point = tuple[float, float]


@dataclass(frozen=True)
class Annotator:
    """The annotator on a dataset of its own: images with a model's predictions."""

    shown: Console
    server: Server
    dataset: str

    @property
    def page(self) -> Page:
        return self.shown.page

    @property
    def content(self) -> str:
        """SHA-256 of the open image."""
        return self.page.url.rpartition("/")[2]

    def at(self, x: float, y: float) -> Point:
        """Where a point of the fitted image is on the page."""
        box = self.page.locator(".annotate-stage").bounding_box()
        assert box is not None
        room = (box["width"] - 2 * MARGIN, box["height"] - 2 * MARGIN)
        scale = min(room[0] / SIZE[0], room[1] / SIZE[1], 8)
        left = box["x"] + (box["width"] - SIZE[0] * scale) / 2
        top = box["y"] + (box["height"] - SIZE[1] * scale) / 2
        return left + x * scale, top + y * scale

    def click(self, x: float, y: float) -> None:
        self.page.mouse.click(*self.at(x, y))

    def drag(self, start: Point, end: Point) -> None:
        self.page.mouse.move(*self.at(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*end), steps=4)
        self.page.mouse.up()

    def keys(self, *names: str) -> None:
        for name in names:
            self.page.keyboard.press(name)

    def says(self, pattern: str) -> None:
        """Wait until the live region says it."""
        expect(self.page.locator(".annotate-said")).to_have_text(re.compile(pattern))

    def labels(self) -> list[str]:
        return self.page.locator(".annotate-row .grow").all_text_contents()

    def draft(self, fits: Callable[[dict[str, Any]], bool], content: str = "") -> dict[str, Any]:
        """The draft on the server, once it is as expected."""
        dataset = f"{self.server.url}/api/datasets/{self.dataset}"
        content = content or self.content
        deadline = time.monotonic() + WAIT / 1000
        found: Any = None
        while time.monotonic() < deadline:
            listed = httpx.get(f"{dataset}/drafts", params={"content": content}, timeout=60).json()
            for row in listed["drafts"]:
                of = {"of": row["author"]}
                found = httpx.get(f"{dataset}/images/{content}/draft", params=of, timeout=60).json()
                if fits(found):
                    return dict(found)
            time.sleep(0.1)
        raise AssertionError(f"the draft stayed {found}")

    def next_is_open(self, content: str) -> None:
        """Wait until another image than this one is open."""
        expect(self.page).not_to_have_url(re.compile(content))
        self.says("objects")


OpenAnnotator = Callable[..., Annotator]


def box_of(draft: dict[str, Any], index: int = 0) -> list[int]:
    """The box of an object of a draft, in whole pixels."""
    return [round(value) for value in draft["objects"][index]["box"]]


def outline_of(draft: dict[str, Any]) -> list[tuple[int, int]]:
    """The outline of the first object of a draft, in whole pixels."""
    return [(round(x), round(y)) for x, y in draft["objects"][0]["parts"][0]["outline"]]
