"""A page of the console in headless Chromium, watched for what it must not do."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = "Chromium is not installed (apt-get install chromium fonts-noto-cjk)"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
WAIT = 60_000  # milliseconds; a busy machine is no fault of the page
REFUSED = re.compile(r"the server responded with a status of (\d{3})")
Theme = Literal["light", "dark"]
Language = Literal["en", "zh"]


def chromium() -> str | None:
    """The path of an installed Chromium; None without one."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser without a window. Skips the test where none is installed."""
    path = chromium()
    if path is None:
        pytest.skip(MISSING)
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=WAIT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Console:
    """The console of a server in a page of its own.

    `close` fails if the page logged an error, threw one, or asked another host for anything.
    Answers with an error status are logged by the browser, too: `expects` names those that a test
    provokes.

    Attributes:
        page: Playwright's page.
        url: Address of the server, without a slash at its end.
    """

    def __init__(
        self,
        browser: Browser,
        url: str,
        width: int = 1280,
        height: int = 800,
        theme: Theme = "light",
        language: Language = "en",
        **context: Any,
    ) -> None:
        self.url = url.rstrip("/")
        self.errors: list[str] = []
        self.expects: set[int] = set()
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,
            locale="zh-CN" if language == "zh" else "en-GB",
            reduced_motion="reduce",
            **context,
        )
        self.context.set_default_timeout(WAIT)
        self.page: Page = self.context.new_page()
        self._watch(self.page)

    def _watch(self, page: Page) -> None:
        page.on("console", lambda message: self._logged(message.type, message.text))
        page.on("pageerror", lambda error: self.errors.append(f"thrown: {error}"))
        page.on("request", lambda request: self._requested(request.url))

    def _logged(self, kind: str, text: str) -> None:
        if kind not in ("error", "warning"):
            return
        status = REFUSED.search(text)
        if status and int(status[1]) in self.expects:
            return
        if "net::ERR_" in text and 0 in self.expects:  # the server is away
            return
        self.errors.append(f"{kind}: {text}")

    def _requested(self, url: str) -> None:
        if not url.startswith((self.url + "/", "blob:", "data:")):
            self.errors.append(f"asked another host: {url[:200]}")

    def open(self, hash_path: str = "#/try") -> Page:
        """Go to a route of the console, such as `#/models`; returns when it is shown."""
        self.page.goto(f"{self.url}/{hash_path}")
        self.page.locator("main .loading").first.wait_for(state="hidden")
        return self.page

    def theme(self, theme: Theme) -> None:
        """Change the system's theme, which the page follows."""
        self.page.emulate_media(color_scheme=theme)

    def violations(self) -> list[str]:
        """What axe finds against WCAG 2.2 AA, as one line each."""
        from axe_playwright_python.sync_playwright import Axe

        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        found = Axe().run(self.page, options={"runOnly": {"type": "tag", "values": tags}})
        return [
            f"{one['id']}: {one['help']}: {node['target']} {node['html'][:160]}"
            for one in found.response["violations"]
            for node in one["nodes"]
        ]

    def too_wide(self) -> list[str]:
        """The elements beyond the right edge of the page; empty if it does not scroll sideways."""
        return self.page.evaluate(
            """() => document.documentElement.scrollWidth <= innerWidth ? [] :
            [...document.querySelectorAll('body *')]
              .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5)
              .slice(0, 8).map(e => e.tagName + '.' + (e.getAttribute('class') ?? ''))"""
        )

    def shot(self, path: Path) -> None:
        """A picture of the whole page."""
        self.page.screenshot(path=path, full_page=True)

    def close(self) -> None:
        """Close the page. Fails if it did what it must not do."""
        self.context.close()
        assert not self.errors, "\n".join(self.errors)
