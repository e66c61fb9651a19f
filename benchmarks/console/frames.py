"""How much the console weighs, how soon it is seen, and how smoothly it scrolls."""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OPENED = 5  # times that the page is opened for the first paint
FRAMES, STEP = 120, 60  # frames of scrolling, and pixels a frame: a wheel that is turned fast

PAINT = """() => new Promise(done => new PerformanceObserver(list => {
  for (const one of list.getEntries()) if (one.name === 'first-contentful-paint') done(one.startTime);
}).observe({ type: 'paint', buffered: true }))"""  # noqa: E501

SCROLL = """([frames, step]) => new Promise(done => {
  const times = [];
  let before = performance.now();
  const next = now => {
    times.push(now - before);
    before = now;
    scrollBy(0, step);
    times.length < frames ? requestAnimationFrame(next) : done(times.slice(1));
  };
  requestAnimationFrame(next);
})"""


def bytes_sent(url: str) -> dict[str, int]:
    """Bytes of the page and of its files as they are sent, compressed."""
    found = {}
    with httpx.Client(base_url=url, headers={"Accept-Encoding": "gzip"}) as client:
        page = client.get("/", headers={"Accept": "text/html"})
        names = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
        for name in ("/", *dict.fromkeys(names)):
            accept = {"Accept": "text/html"} if name == "/" else {}
            with client.stream("GET", name, headers=accept) as answer:
                found[name] = sum(len(part) for part in answer.iter_raw())
    return found | {"all": sum(found.values())}


def first_paint(browser: Browser, url: str, path: str = "#/train") -> dict[str, float]:
    """Milliseconds to the first content, of a browser that has nothing of the page yet."""
    times = []
    for _ in range(OPENED):
        context = browser.new_context()
        try:
            page = context.new_page()
            page.goto(f"{url}/{path}")
            times.append(float(page.evaluate(PAINT)))
        finally:
            context.close()
    return {"median_ms": round(statistics.median(times)), "worst_ms": round(max(times))}


def scrolled(page: Page) -> dict[str, float]:
    """Frame times while the page scrolls down from its top."""
    page.evaluate("scrollTo(0, 0)")
    times = sorted(page.evaluate(SCROLL, [FRAMES, STEP]))
    return {
        "median_ms": round(statistics.median(times), 1),
        "p95_ms": round(times[int(len(times) * 0.95)], 1),
        "worst_ms": round(times[-1], 1),
    }


def jobs_listed(page: Page, url: str, count: int) -> dict[str, Any]:
    """Opens the list of jobs, shows all `count` of them, and scrolls."""
    page.goto(f"{url}/#/train?status=completed&kind=training")
    rows = page.locator("tbody tr")
    rows.first.wait_for()
    older = page.get_by_role("button", name="Show older jobs")
    while (shown := rows.count()) < count:
        older.click()
        rows.nth(shown).wait_for()
    return {"rows": rows.count(), **scrolled(page)}


def images_listed(page: Page, url: str, dataset: str, count: int) -> dict[str, Any]:
    """Opens the grid of a dataset's images, scrolls until all are there, then from the top."""
    page.goto(f"{url}/#/data/{dataset}/images")
    images = page.locator("main img")
    images.first.wait_for()
    shown = 0
    while (listed := images.count()) < count and listed != shown:
        shown = listed
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        try:
            images.nth(shown).wait_for(state="attached", timeout=20_000)
        except Exception:  # the list is at its end: the count is told
            break
    return {"images": images.count(), **scrolled(page)}
