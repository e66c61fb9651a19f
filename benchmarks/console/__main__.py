"""Measures the console in headless Chromium: bytes, first paint, frame times, and what flows take.

    python -m benchmarks.console
    python -m benchmarks.console --jobs 200 --images 500 --output console.json

It needs Chromium and the development requirements. The server runs on a home of its own, which is
deleted afterwards. A flow's seconds are those of the page and the server, not of a person. The
flows of annotators are in `benchmarks.console.beside_label_studio`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from benchmarks.console import flows, frames, stage
from benchmarks.console.person import Person
from benchmarks.server import free_port, serving
from settings import Settings
from shell import Parser
from tests.support.browsing import launched
from tests.support.serving import BENTOML, environment

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def main() -> None:
    parser = Parser(prog="python -m benchmarks.console", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="jobs in the list (1000)")
    parser.add_argument("--images", type=int, default=5000, help="images in the grid (5000)")
    parser.add_argument("--output", type=Path, help="file for the result as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="console-") as folder:
        result = run(Path(folder), options.jobs, options.images)
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def run(folder: Path, jobs: int, images: int) -> dict[str, Any]:
    env = environment(folder)
    stage.finished_jobs(Settings(home=folder / "home"), jobs)
    port = free_port()
    command = [*BENTOML, "serve", "service:VisionLoop", "--port", str(port)]
    with serving(command, port, folder / "log", "/readyz", env) as server, launched() as browser:
        tell("the server is ready")
        client = httpx.Client(base_url=server.url, timeout=stage.LONG)
        many = stage.uploaded(client, stage.many_images_zip(images), "many")
        tell(f"{images} images are uploaded")
        found: dict[str, Any] = {"bytes": frames.bytes_sent(server.url)}
        found["first_paint"] = frames.first_paint(browser, server.url)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        found["jobs"] = frames.jobs_listed(page, server.url, jobs)
        found["images"] = frames.images_listed(page, server.url, many, images)
        page.close()
        found["flows"] = all_flows(browser, server.url, client, folder)
    return found


def all_flows(browser: Browser, url: str, client: httpx.Client, folder: Path) -> dict[str, Any]:
    """What each flow takes, in the order in which people come to them."""
    archive = folder / "shapes.zip"
    archive.write_bytes(stage.shapes_zip(folder / "shapes"))
    found: dict[str, Any] = {}

    def do(name: str, path: str, flow: Callable[[Person], None]) -> None:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(stage.LONG * 1000)
        try:
            flows.opened(page, url, path)
            found[name] = effort(page, flow)
            tell(f"{name}: {found[name]}")
            if name == "start a training":
                found["cancel it"] = effort(page, flows.cancel_the_training)
        finally:
            page.close()

    do("upload a dataset", "#/data", partial(flows.upload_a_dataset, file=archive))
    dataset = client.get("/api/datasets").json()["datasets"][0]["id"]
    do("start a training", "#/train", partial(flows.start_a_training, dataset=dataset))
    version = another_version(client)
    do("promote a model", "#/models", partial(flows.promote_a_model, model_id=version))
    return found


def effort(page: Page, flow: Callable[[Person], None]) -> dict[str, float]:
    """What a flow takes; it begins on the page that is open."""
    person = Person(page)
    person.begin()
    flow(person)
    done = person.effort.done()
    return {"clicks": done.clicks, "keys": done.keys, "seconds": round(done.seconds, 2)}


def another_version(client: httpx.Client) -> str:
    """The id of a second version of a starter model, which is not promoted."""
    listed = client.get("/models").json()["models"]
    starter = next(one for one in listed if one["promoted"] and one["family"] == "yolo")
    weights = client.get(f"/models/{starter['id']}/download", params={"format": "pt"})
    files = {"file": ("again.pt", weights.raise_for_status().content)}
    added = client.post("/models/import", files=files, data={"name": starter["name"]})
    return str(added.raise_for_status().json()["id"])


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
