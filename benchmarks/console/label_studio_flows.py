"""Five flows of annotators in the pages of Label Studio."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.console.person import Effort, Person

if TYPE_CHECKING:
    from playwright.sync_api import Page


class LabelStudioFlows:
    """The flows in a running Label Studio, by somebody who is signed in and knows its keys."""

    def __init__(self, page: Page, url: str, project: str) -> None:
        self.person = Person(page)
        self.page = page
        self.url = url
        self.project = project

    def upload(self, images: list[Path], labels: str) -> Effort:
        """A new project of images and class names, until its images are listed."""
        page, person = self.page, self.person
        page.goto(f"{self.url}/projects/")
        create = page.get_by_role("button", name="Create").first
        create.wait_for()
        person.begin()
        person.click(create)
        person.click(page.get_by_text("Data Import").first)
        with page.expect_file_chooser() as chooser:
            person.click(page.get_by_text("Upload Files").first)
        chooser.value.set_files(images)
        page.get_by_text(images[-1].name).first.wait_for()
        person.click(page.get_by_text("Labeling Setup").first)
        person.click(page.get_by_text("Object Detection with Bounding Boxes").first)
        person.type(page.locator("textarea").first, labels)
        person.click(page.get_by_text("Add", exact=True).first)
        person.click(page.get_by_role("button", name="Save", exact=True))
        page.get_by_role("button", name="Label All Tasks").wait_for()
        return person.effort.done()

    def accept(self, count: int) -> Effort:
        """From the list of projects: open the pre-labelled images and accept `count` of them."""
        page, person = self.page, self.person
        page.goto(f"{self.url}/projects/")
        card = page.get_by_text(self.project, exact=True).first
        card.wait_for()
        person.begin()
        person.click(card)
        person.click(page.get_by_role("button", name="Label All Tasks"))
        self._shown()
        for _ in range(count):
            self._submit()
        return person.effort.done()

    def correct(self, point: tuple[float, float]) -> Effort:
        """Move the box around a point of the image that is shown, and submit it."""
        person = self.person
        left, top, scale = self._image()
        person.begin()
        inside = (left + point[0] * scale, top + point[1] * scale)
        self.page.mouse.click(*inside)
        person.effort.clicks += 1
        person.drag(inside, (inside[0] + 30, inside[1] + 20))
        self._submit()
        return person.effort.done()

    def draw(self) -> Effort:
        """Draw a box of the first class in the image that is shown, and submit it."""
        person = self.person
        left, top, scale = self._image()
        person.begin()
        person.press("1")
        person.drag((left + 60 * scale, top + 330 * scale), (left + 160 * scale, top + 420 * scale))
        self._submit()
        return person.effort.done()

    def export(self) -> Effort:
        """From the list of projects: download the annotations as COCO."""
        page, person = self.page, self.person
        page.goto(f"{self.url}/projects/")
        card = page.get_by_text(self.project, exact=True).first
        card.wait_for()
        person.begin()
        person.click(card)
        person.click(page.get_by_role("button", name="Export").first)
        person.click(page.get_by_text(re.compile(r"^COCO")).first)
        with page.expect_download() as download:
            person.click(page.get_by_role("button", name="Export data"))
        assert Path(download.value.path()).stat().st_size
        return person.effort.done()

    def _shown(self) -> None:
        """Wait until a task, its image and its regions are there."""
        self.page.get_by_role("button", name="Submit").first.wait_for()
        self.page.locator(".lsf-outliner-item, [class*=outliner-item]").first.wait_for()

    def _submit(self) -> None:
        with self.page.expect_response(re.compile("id=next_task")):
            self.person.press("Control+Enter")
        self._shown()

    def _image(self) -> tuple[float, float, float]:
        """Left and top of the image on the page, and the page's pixels per pixel of the image."""
        box = self.page.locator("canvas").first.bounding_box()
        assert box is not None
        return box["x"], box["y"], box["width"] / 640
