"""Measures the console's annotator in headless Chromium: frames, and the way to the next image.

    python -m benchmarks.console.annotator
    python -m benchmarks.console.annotator --shapes 200 1000 2000 --images 20

A server is started on a home of its own. Images of 1920 × 1080 pixels with so many polygons are
uploaded; one of them is dragged, and the image is panned and zoomed, each for some seconds. The
times are those between two frames, 16.7 ms at best, and of the main thread's work in one. Then
images are accepted with Enter: from the key to the frame that shows the next one.

It needs Chromium, Playwright, and `console/dist` (`make console`).
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
import sys
import tempfile
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.server import free_port, serving
from shell import Parser
from tests.support.browsing import launched
from tests.support.serving import BENTOML, environment

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession, Page

SIZE = (1920, 1080)
CORNERS = 12
RECORD = """() => {
  const times = [];
  const next = (now) => {
    times.push(now);
    window.frames_ = times;
    window.frame_ = requestAnimationFrame(next);
  };
  cancelAnimationFrame(window.frame_);
  window.frame_ = requestAnimationFrame(next);
}"""
RECORDED = "() => { cancelAnimationFrame(window.frame_); return window.frames_; }"
# Pressed in the page, so that the time of the browser's remote control is not in it.
ENTER = """() => new Promise((done) => {
  const shown = () => document.querySelector('.annotate-bar h1').textContent;
  const before = shown(), start = performance.now();
  const ready = () => done(performance.now() - start);
  const look = () => requestAnimationFrame(shown() !== before ? ready : look);
  document.querySelector('.annotate-stage').dispatchEvent(
    new KeyboardEvent('keydown', { key: 'Enter', code: 'Enter', bubbles: true, cancelable: true }));
  look();
})"""


def main() -> int:
    parser = Parser(
        prog="python -m benchmarks.console.annotator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--shapes", type=int, nargs="+", default=[200, 1000, 2000], help="polygons of an image")
    add("--images", type=int, default=12, help="images to accept with Enter (12)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="visionloop-annotator-") as scratch:
        home = Path(scratch)
        port = free_port()
        command = [*BENTOML, "serve", "service:VisionLoop", "--port", str(port)]
        with (
            serving(command, port, home / "log", "/readyz", environment(home)) as server,
            launched() as browser,
        ):
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            _measure(page, server.url, options)
    return 0


def _measure(page: Page, url: str, options: argparse.Namespace) -> None:
    print(
        f"{'shapes':>7} {'':8} {'median':>8} {'p95':>8} {'max':>8} {'work':>8}   ms a frame",
        flush=True,
    )
    for count in options.shapes:
        _frames(page, url, count)
    times = _accepted(page, url, options.images)
    print(
        f"Enter to the next image: median {statistics.median(times):.0f} ms, "
        f"at most {max(times):.0f} ms"
    )


def _frames(page: Page, url: str, count: int) -> None:
    dataset = _upload(url, f"shapes-{count}", [_polygons(count, seed) for seed in range(2)])
    images = httpx.get(f"{url}/api/datasets/{dataset}/images").raise_for_status().json()["images"]
    page.goto(f"{url}/#/annotate/{dataset}/{images[0]['content']}")
    stage = page.locator(".annotate-stage")
    stage.wait_for()
    page.keyboard.press("j")
    box = stage.bounding_box()
    assert box is not None
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def drag() -> None:
        page.keyboard.press("Escape")
        page.mouse.move(*middle)
        page.keyboard.press("j")
        where = page.locator(".annotate-stage [data-part=outline]").bounding_box()
        assert where is not None
        at = (where["x"] + where["width"] / 2, where["y"] + where["height"] / 2)
        page.mouse.move(*at)
        page.mouse.down()
        _circle(page, at)
        page.mouse.up()

    def pan() -> None:
        page.mouse.move(*middle)
        page.mouse.down(button="middle")
        _circle(page, middle)
        page.mouse.up(button="middle")

    def zoom() -> None:
        page.mouse.move(*middle)
        for step in range(120):
            page.mouse.wheel(0, 60 if step % 40 < 20 else -60)

    for name, act in (("drag", drag), ("pan", pan), ("zoom", zoom)):
        before = _work(session)
        page.evaluate(RECORD)
        act()
        times = page.evaluate(RECORDED)
        frames = sorted(b - a for a, b in pairwise(times))
        work = (_work(session) - before) * 1000 / len(frames)
        at95 = frames[math.ceil(0.95 * len(frames)) - 1]
        print(
            f"{count:7} {name:8} {statistics.median(frames):8.1f} {at95:8.1f} {frames[-1]:8.1f} "
            f"{work:8.1f}",
            flush=True,
        )
        page.keyboard.press("f")


def _circle(page: Page, middle: tuple[float, float]) -> None:
    for step in range(150):
        turn = step / 12
        page.mouse.move(middle[0] + 60 * math.sin(turn), middle[1] + 40 * math.cos(turn))


def _work(session: CDPSession) -> float:
    """Seconds that the main thread has worked so far."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(float(row["value"]) for row in metrics if row["name"] == "TaskDuration")


def _accepted(page: Page, url: str, count: int) -> list[float]:
    """Milliseconds from Enter to the next image, for images that nobody has annotated."""
    dataset = _upload(url, "queue", [""] * (count + 1), task="detect", classes="car,person")
    page.goto(f"{url}/#/annotate/{dataset}")
    page.locator(".annotate-stage").wait_for()
    times = []
    for _ in range(count):
        page.wait_for_timeout(1500)  # as long as a person looks, at least
        times.append(float(page.evaluate(ENTER)))
    return times


def _polygons(count: int, seed: int) -> str:
    """The label file of an image: ovals of CORNERS corners each."""
    random = np.random.default_rng(seed)
    lines = []
    for number in range(count):
        x, y = random.uniform(0.05, 0.95, 2)
        a, b = random.uniform(0.004, 0.03, 2)
        turns = np.linspace(0, 2 * math.pi, CORNERS, endpoint=False)
        corners = np.stack([x + a * np.cos(turns), y + b * np.sin(turns)], 1).clip(0, 1)
        lines.append(f"{number % 8} " + " ".join(f"{value:.6f}" for value in corners.ravel()))
    return "\n".join(lines) + "\n"


def _upload(url: str, name: str, labels: list[str], **fields: str) -> str:
    """Upload drawn images with these label files; with `task` and `classes` images alone."""
    names = [f"class {number}" for number in range(8)]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        if not fields:
            text = f"train: images/train\nval: images/val\nnames: {names}\n"
            archive.writestr("data.yaml", text)
        for number, text in enumerate(labels):
            place = f"{'val' if number == len(labels) - 1 else 'train'}/{number}"
            archive.writestr(f"images/{place}.jpg", _photo(number))
            if text:
                archive.writestr(f"labels/{place}.txt", text)
    sent: dict[str, Any] = {"file": (f"{name}.zip", buffer.getvalue())}
    answer = httpx.post(f"{url}/api/datasets", files=sent, data=fields, timeout=300)
    answer.raise_for_status()
    return str(answer.json()["id"])


def _photo(seed: int) -> bytes:
    """Coarse noise, scaled up: about as many bytes as a photograph of this size."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (SIZE[1] // 12, SIZE[0] // 12, 3), np.uint8))
    buffer = io.BytesIO()
    coarse.resize(SIZE, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
