"""The same five flows of annotators in our console."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from benchmarks.console.person import Effort, Person

if TYPE_CHECKING:
    from playwright.sync_api import Page


class ConsoleFlows:
    """The flows in a running console, by somebody who knows its keys."""

    def __init__(self, page: Page, url: str, dataset: str) -> None:
        """`dataset` is the display name of pre-labelled images that wait for review."""
        self.person = Person(page)
        self.page = page
        self.url = url
        self.dataset = dataset

    def upload(self, images: list[Path], labels: str) -> Effort:
        """A new dataset of images and class names, until its images are stored."""
        page, person = self.page, self.person
        self._datasets()
        new = page.get_by_role("link", name="New dataset to annotate").first
        new.wait_for()
        person.begin()
        person.click(new)
        person.type(page.get_by_label("Classes"), labels)
        with page.expect_file_chooser() as chooser:
            person.click(page.get_by_role("button", name="Choose files"))
        chooser.value.set_files(images)
        page.get_by_role("link", name="Annotate now").wait_for()
        return person.effort.done()

    def accept(self, count: int) -> Effort:
        """From the list of datasets: open the pre-labelled images and accept `count` of them."""
        page, person = self.page, self.person
        self._datasets()
        card = page.get_by_role("link", name=re.compile(self.dataset)).first
        card.wait_for()
        person.begin()
        person.click(card)
        person.click(page.get_by_role("link", name="Annotate", exact=True).first)
        self._shown()
        for _ in range(count):
            self._accept()
        return person.effort.done()

    def correct(self, point: tuple[float, float]) -> Effort:
        """Move the box around a point of the image that is shown, and accept it."""
        person = self.person
        left, top, scale = self._image()
        person.begin()
        inside = (left + point[0] * scale, top + point[1] * scale)
        self.page.mouse.click(*inside)
        person.effort.clicks += 1
        person.drag(inside, (inside[0] + 30, inside[1] + 20))
        self._accept()
        return person.effort.done()

    def draw(self) -> Effort:
        """Draw a box in the image that is shown, and accept it."""
        person = self.person
        left, top, scale = self._image()
        person.begin()
        person.press("b")
        person.drag((left + 60 * scale, top + 330 * scale), (left + 160 * scale, top + 420 * scale))
        self._accept()
        return person.effort.done()

    def export(self) -> Effort:
        """From the list of datasets: download the annotations as COCO, without the images."""
        page, person = self.page, self.person
        self._datasets()
        card = page.get_by_role("link", name=re.compile(self.dataset)).first
        card.wait_for()
        person.begin()
        person.click(card)
        person.click(page.get_by_role("button", name="Export").first)
        page.get_by_label("Format").select_option("coco")
        person.effort.clicks += 2  # the list is opened, and an entry chosen
        with page.expect_download() as download:
            page.get_by_role("dialog").get_by_text("Download", exact=True).click()
            person.effort.clicks += 1
        assert Path(download.value.path()).stat().st_size
        return person.effort.done()

    def _datasets(self) -> None:
        self.page.goto(f"{self.url}/#/data")
        self.page.reload()  # as Label Studio's page is loaded, too

    def _shown(self) -> None:
        """Wait until an image and its objects are there."""
        self.page.locator(".annotate-stage").wait_for()
        expect(self.page).to_have_url(re.compile("/[0-9a-f]{64}$"))
        self.page.locator(".annotate-row").first.wait_for()

    def _accept(self) -> None:
        before = self.page.url
        self.person.press("Enter")
        expect(self.page).not_to_have_url(before)
        self._shown()

    def _image(self) -> tuple[float, float, float]:
        """Left and top of the image on the page, and the page's pixels per pixel of the image."""
        box = self.page.locator(".annotate-stage").bounding_box()
        assert box is not None
        margin, size = 16, (640, 480)
        room = (box["width"] - 2 * margin, box["height"] - 2 * margin)
        scale = min(room[0] / size[0], room[1] / size[1], 8)
        left = box["x"] + (box["width"] - size[0] * scale) / 2
        return left, box["y"] + (box["height"] - size[1] * scale) / 2, scale
