"""A server, a browser, and pages of the console in it; `make console-test` runs all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from models_store.description import Task
from tests.support.annotator import Annotator, OpenAnnotator
from tests.support.browsing import Console, launched
from tests.support.prelabelled import drawn_images, prelabelled
from tests.support.serving import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HERE = Path(__file__).parent
OpenConsole = Callable[..., Console]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here that asks for a page needs a browser."""
    for item in items:
        if HERE in item.path.parents and "console" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser a module: while it is open, nothing else can run an event loop in the process."""
    with launched() as running:
        yield running


@pytest.fixture(scope="module")
def live(new_home: Callable[[], Path], browser: Browser) -> Iterator[Server]:
    """A server with the starter models, of this module alone."""
    running = Server(new_home())
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture
def console(browser: Browser, live: Server) -> Iterator[OpenConsole]:
    """Opens pages of the console: `console(width=360, theme="dark", language="zh")`.

    At the end of the test each page must have been without an error and a foreign request.
    """
    opened: list[Console] = []

    def make(**options: Any) -> Console:
        opened.append(Console(browser, options.pop("url", live.url), **options))
        return opened[-1]

    yield make
    failures = []
    for one in opened:
        try:
            one.close()
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, "\n".join(failures)


@pytest.fixture
def annotator(console: OpenConsole, live: Server) -> OpenAnnotator:
    """Opens the annotator on the queue of a new dataset."""

    def make(task: Task = "detect", images: int = 3, **options: Any) -> Annotator:
        objects = options.pop("objects", None)
        dataset = prelabelled(live.home, task, task, drawn_images(images), objects)
        shown = console(**options)
        shown.open(f"#/annotate/{dataset}")
        found = Annotator(shown, live, dataset)
        found.page.locator(".annotate-stage").wait_for()
        return found

    return make
