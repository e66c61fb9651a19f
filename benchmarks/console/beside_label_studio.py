"""Five flows of annotators, in our console and in the real Label Studio: clicks, keys, seconds.

    python -m benchmarks.console.beside_label_studio
    python -m benchmarks.console.beside_label_studio --executable …/bin/label-studio --rounds 3

Both get the same drawn images with the same three pre-labelled boxes, one after the other on an
otherwise idle machine, each on loopback with a home of its own, in the same headless Chromium. The
person of the script knows both tools' keys, and neither reads nor hesitates: the seconds are those
that the tools let it wait. A drag is a click, a typed text is a key.

It needs Chromium and Playwright; Label Studio is installed into a cache folder unless it is named.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from benchmarks.console.console_flows import ConsoleFlows
from benchmarks.console.label_studio_flows import LabelStudioFlows
from benchmarks.console.person import Effort
from benchmarks.cpu import cpu
from benchmarks.label_studio import (
    BOXES,
    CACHE,
    USER,
    VERSION,
    Studio,
    installed,
    label_studio,
    scenes,
)
from benchmarks.server import PYTHON, ROOT, free_port, serving
from shell import Parser
from tests.support.browsing import launched

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZE = (640, 480)
LABELS = ("sign", "other")
NAME = "Signs"
LEFT_EDGES = (20.0, 45.0, 70.0)  # percent of the image's width
TOP, WIDTH, HEIGHT = 30.0, 15.0, 20.0  # percent of the image's height, width and height
ACCEPTED = 10
MAX_PIXELS = SIZE[0] * SIZE[1]
UPLOADED = 12
FLOWS = ("new dataset of 12 images", "accept 10 images", "correct a box", "draw a box", "export")
Flows = dict[str, list[Effort]]


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each tool is used (3)")
    parser.add_argument("--executable", type=Path, help="path of an installed label-studio")
    parser.add_argument("--minutes", type=int, default=20, help="time limit in minutes (20)")
    options = parser.parse_args()
    for end in (signal.SIGTERM, signal.SIGALRM):  # sys.exit also ends the servers started here
        signal.signal(end, lambda *_: sys.exit("The measurement was ended before its end."))
    signal.alarm(60 * options.minutes)
    executable = options.executable or installed(CACHE)
    ours: Flows = {name: [] for name in FLOWS}
    theirs: Flows = {name: [] for name in FLOWS}
    with tempfile.TemporaryDirectory(prefix="flows-") as folder, ExitStack() as stack:
        browser = stack.enter_context(launched())
        images = scenes(options.rounds * (ACCEPTED + 3))
        files = []
        for number, data in enumerate(scenes(UPLOADED)):
            files.append(Path(folder, f"image{number:02}.jpg"))
            files[-1].write_bytes(data)
        with console_of(Path(folder), images) as url:
            use(browser, lambda page: ConsoleFlows(page, url, NAME), url, options, files, ours)
        with label_studio(executable, Path(folder) / "studio") as studio:
            prepare(Studio(studio.url), images)
            use(
                browser,
                lambda page: signed_in(page, studio.url),
                studio.url,
                options,
                files,
                theirs,
            )
    print(f"\n{cpu()}, {os.cpu_count()} cores; Label Studio {VERSION}; medians of {options.rounds}")
    print("| flow | console: clicks, keys, s | Label Studio: clicks, keys, s |")
    print("|---|---|---|")
    for name in FLOWS:
        print(f"| {name} | {shown(ours[name])} | {shown(theirs[name])} |")


def use(
    browser: Browser,
    flows_of: Callable[[Page], Any],
    url: str,
    options: Any,
    files: list[Path],
    found: Flows,
) -> None:
    """Go through the five flows, `options.rounds` times, each in a new page."""
    for _ in range(options.rounds):
        context = browser.new_context(viewport={"width": 1400, "height": 900}, locale="en-GB")
        page = context.new_page()
        page.set_default_timeout(90_000)
        flows = flows_of(page)
        for name in FLOWS:
            found[name].append(turn(flows, name, files))
            print(f"{url} {name}: {shown(found[name][-1:])}", flush=True)
        context.close()


def turn(flows: Any, name: str, files: list[Path]) -> Effort:
    """One of the flows; correcting moves the first of the three boxes."""
    if name == FLOWS[0]:
        return flows.upload(files, "\n".join(LABELS))
    if name == FLOWS[1]:
        return flows.accept(ACCEPTED)
    if name == FLOWS[2]:
        middle = (LEFT_EDGES[0] + WIDTH / 2, TOP + HEIGHT / 2)
        return flows.correct((middle[0] / 100 * SIZE[0], middle[1] / 100 * SIZE[1]))
    return flows.draw() if name == FLOWS[3] else flows.export()


@contextmanager
def console_of(folder: Path, images: list[bytes]) -> Iterator[str]:
    """Our server's address, with a dataset whose images have three boxes of a model each."""
    from formats.annotations import Annotation
    from inference.images import decode
    from tests.support.prelabelled import prelabelled

    home = folder / "ours"
    env = {
        "VISIONLOOP_HOME": str(home / "home"),
        "BENTOML_HOME": str(home / "bento"),
        "BENTOML_DO_NOT_TRACK": "true",
        "VISIONLOOP_DEVICE": "cpu",
        "VISIONLOOP_ALLOW_DOWNLOAD": "never",
    }
    boxes = tuple(
        Annotation(
            LABELS[0],
            box=(
                left / 100 * SIZE[0],
                TOP / 100 * SIZE[1],
                (left + WIDTH) / 100 * SIZE[0],
                (TOP + HEIGHT) / 100 * SIZE[1],
            ),
            score=0.8,
        )
        for left in LEFT_EDGES
    )
    port = free_port()
    command = [PYTHON, "-m", "bentoml", "serve", "service:VisionLoop", "--port", str(port)]
    with serving(command, port, folder / "log", "/readyz", env) as server:
        named = [
            (f"{number:04}.jpg", decode(data, MAX_PIXELS)) for number, data in enumerate(images)
        ]
        prelabelled(home, NAME, "detect", named, boxes)
        assert httpx.get(f"{server.url}/api/datasets").json()["datasets"]
        yield server.url


def prepare(studio: Studio, images: list[bytes]) -> None:
    """A project of Label Studio with the same images and boxes."""
    labels = "".join(f'<Label value="{label}"/>' for label in LABELS)
    project = studio.project(NAME, BOXES.format(labels=labels))
    for task in studio.upload(project, images):
        regions = [
            {
                "from_name": "sign",
                "to_name": "photo",
                "type": "rectanglelabels",
                "original_width": SIZE[0],
                "original_height": SIZE[1],
                "value": {
                    "x": left,
                    "y": TOP,
                    "width": WIDTH,
                    "height": HEIGHT,
                    "rotation": 0,
                    "rectanglelabels": [LABELS[0]],
                },
            }
            for left in LEFT_EDGES
        ]
        body = {"task": task, "model_version": "drawn", "score": 0.8, "result": regions}
        studio.post("/api/predictions", body)
    shown_first = {"model_version": "drawn", "show_collab_predictions": True}
    studio.patch(f"/api/projects/{project}/", shown_first)


def signed_in(page: Page, url: str) -> LabelStudioFlows:
    page.goto(f"{url}/user/login/")
    page.fill("input[name=email]", USER["email"])
    page.fill("input[name=password]", USER["password"])
    page.click("button[type=submit]")
    page.wait_for_url(lambda address: "/login" not in address)
    return LabelStudioFlows(page, url, NAME)


def shown(efforts: list[Effort]) -> str:
    """Clicks and keys, and the median of the seconds."""
    seconds = statistics.median(one.seconds for one in efforts)
    return f"{efforts[-1].clicks}, {efforts[-1].keys}, {seconds:.1f}"


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
