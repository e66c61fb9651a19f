"""The screen Train: a training is started, watched, cancelled; another ends; what prevents one."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page
from playwright.sync_api import expect as expected

from tests.console.conftest import OpenConsole
from tests.support.browsing import WAIT, Console
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import Server
from tests.support.shapes import write_shapes

LONG = 6 * PATIENCE  # seconds; a quiet machine needs half a minute
QUICK = {"workers": 0, "optimizer": "AdamW", "lr0": 2e-3, "warmup_epochs": 1}
FINAL = ("completed", "failed", "stopped")
DRAWN = """canvas => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const [red, green, blue] = [0x24, 0x56, 0xd6];
  let seen = 0;
  for (let at = 0; at < data.length; at += 4) {
    const off = Math.abs(data[at] - red) + Math.abs(data[at + 1] - green);
    if (data[at + 3] > 128 && off + Math.abs(data[at + 2] - blue) < 40) seen += 1;
  }
  return seen;
}"""  # pixels in the colour of a chart's first line, in the light theme


def expect(place: Locator | Page) -> Any:
    """Playwright's, which waits as long as a busy machine needs."""
    expected.set_options(timeout=WAIT)
    return expected(place)


@pytest.fixture(scope="module")
def api(live: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def data(api: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Ids of uploaded datasets: two that can be trained on, one that cannot."""
    folder = tmp_path_factory.mktemp("drawn")
    write_shapes(folder / "shapes", "detect", 24, 8, 64)
    write_shapes(folder / "kinds", "classify", 24, 8, 64)
    ids = {}
    for name in ("shapes", "kinds"):
        answer = api.post("/api/datasets", files={"file": (f"{name}.zip", zipped(folder / name))})
        ids[name] = answer.raise_for_status().json()["id"]
    images = sorted((folder / "shapes").rglob("*.jpg"))[:3]
    files = [("file", (image.name, image.read_bytes(), "image/jpeg")) for image in images]
    fields = {"name": "unlabelled", "classes": "circle, square", "task": "detect"}
    answer = api.post("/api/datasets", files=files, data=fields).raise_for_status()
    assert not answer.json()["usable"]
    return ids | {"unlabelled": answer.json()["id"]}


@pytest.fixture(scope="module")
def trained(api: httpx.Client, data: dict[str, str]) -> list[str]:
    """Two short trainings that have ended; the second learned less."""
    ids = []
    for epochs in (3, 2):
        body: dict[str, Any] = {"task": "classify", "model_type": "n", "name": "kinds"}
        body |= {"data_path": data["kinds"], "epochs": epochs, "imgsz": 64, "batch": 8}
        body["hyper"] = QUICK
        answer = api.post("/api/training/regular", json=body).raise_for_status()
        ids.append(answer.json()["task_id"])
    for job_id in ids:
        assert ended(api, job_id)["status"] == "completed"
    return ids


def zipped(folder: Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return content.getvalue()


def ended(api: httpx.Client, job_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = api.get(f"/jobs/{job_id}").json()
        return job if job["status"] in FINAL else None

    return wait_until(look, 0.3, LONG)


def drawn(chart: Locator) -> bool:
    """Whether a chart's canvas really has its first line."""
    return bool(chart.locator("canvas").first.evaluate(DRAWN) > 100)


def choose(page: Page, dataset: str) -> None:
    page.get_by_label("Dataset").select_option(dataset)


def test_a_training_is_started_in_four_clicks_watched_and_cancelled(
    console: OpenConsole, api: httpx.Client, data: dict[str, str]
) -> None:
    page = console().open("#/train")
    page.get_by_role("link", name="New training").first.click()
    page.get_by_role("link", name=re.compile("^Regular")).click()
    start = page.get_by_role("button", name="Start training")
    expect(start).to_have_attribute("aria-disabled", "true")
    expect(page.get_by_text("Choose a dataset first.").last).to_be_visible()
    choose(page, data["shapes"])  # the third click; the last one starts
    expect(page.get_by_label("Task")).to_have_value("detect")
    expect(page.get_by_text("24 images to train on, 3 classes. Ready.")).to_be_visible()
    expect(start).not_to_have_attribute("aria-disabled", "true")

    page.get_by_label("Start from").select_option("n")
    page.get_by_label("Epochs", exact=True).fill("300")
    page.get_by_label("Name").fill("watched")
    page.get_by_text("Advanced").click()
    page.get_by_label("Image size").fill("64")
    page.get_by_label("workers").fill("0")
    start.click()
    expect(page.get_by_role("heading", name="watched")).to_be_visible()
    job_id = page.url.rpartition("/")[2]
    job = api.get(f"/jobs/{job_id}").json()
    asked = {"epochs": 300, "imgsz": 64, "model_type": "n", "hyper": {"workers": 0}}
    assert {name: job["config"][name] for name in asked} == asked

    losses = page.get_by_role("img", name="Losses of watched by epoch")
    expect(losses).to_be_visible(timeout=LONG * 1000)
    wait_until(lambda: len(epochs(api, job_id)) >= 3, 0.3, LONG)
    wait_until(lambda: drawn(losses), patience=60)
    expect(
        page.get_by_text(re.compile(r"Epoch \d+ of 300 · batch \d of 3 · about"))
    ).to_be_visible()
    page.get_by_role("link", name="Log").click()
    log = page.get_by_label("Log of the job").last
    expect(log).to_contain_text("Training from the start to epoch 300")
    shown = log.inner_text().count("Epoch ")
    wait_until(lambda: log.inner_text().count("Epoch ") > shown)  # it follows
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert "Epoch 1/300" in Path(download.value.path()).read_text()

    page.goto(page.url.partition("#")[0] + "#/train")
    running = page.get_by_role("region", name="Running")
    curve = running.get_by_role("img", name="Losses of watched by epoch")
    expect(curve).to_be_visible()
    wait_until(lambda: drawn(curve), patience=60)
    running.get_by_role("link", name="watched").click()

    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.locator(".state.stopped")).to_be_visible()
    assert api.get(f"/jobs/{job_id}").json()["status"] == "stopped"
    page.get_by_role("link", name="Start again with these settings").click()
    expect(page.get_by_label("Epochs", exact=True)).to_have_value("300")
    expect(page.get_by_label("Name")).to_have_value("watched")
    page.go_back()
    page.get_by_role("link", name="Go on from its best weights").click()
    expect(page.get_by_text("It starts from the best weights of job")).to_be_visible()


def epochs(api: httpx.Client, job_id: str) -> list[Any]:
    found: list[Any] = api.get(f"/jobs/{job_id}/metrics/history").json()["epochs"]
    return found


def test_a_finished_training_shows_its_curves_its_model_and_other_runs(
    console: OpenConsole, api: httpx.Client, trained: list[str]
) -> None:
    first, second = trained
    shown = console()
    page = shown.open(f"#/train/{first}")
    model = api.get(f"/jobs/{first}").json()["model_id"]
    expect(page.get_by_role("region", name="Result")).to_contain_text(model)
    for name in ("Losses of kinds by epoch", "Quality of kinds by epoch"):
        chart = page.get_by_role("img", name=name)
        expect(chart).to_be_visible()
        wait_until(partial(drawn, chart), patience=60)
    report = page.get_by_role("link", name="Evaluation report").get_attribute("href")
    assert api.get(str(report)).status_code == 200
    weights = page.get_by_role("link", name="Download weights").get_attribute("href")
    assert api.get(str(weights)).status_code == 200

    page.get_by_label("Compare with another run").select_option(second)
    chart = page.get_by_role("img", name="accuracy of several runs by epoch")
    expect(chart).to_be_visible()
    expect(chart).to_contain_text(second[:4])
    wait_until(lambda: drawn(chart), patience=60)
    assert f"with={second}" in page.url
    page.get_by_role("link", name="Settings", exact=True).click()
    expect(page.get_by_text("hyper.optimizer").first).to_be_visible()
    expect(page.get_by_label("The same by curl")).to_contain_text('"epochs":3')


def test_a_dataset_with_a_fatal_problem_keeps_start_off_and_says_why(
    console: OpenConsole, data: dict[str, str]
) -> None:
    page = console().open("#/train/new/regular")
    choose(page, data["unlabelled"])
    start = page.get_by_role("button", name="Start training")
    expect(start).to_have_attribute("aria-disabled", "true")
    expect(start).to_have_accessible_description(
        re.compile("This dataset cannot be trained on: None of the 3 images is annotated")
    )
    start.click(force=True)
    assert page.url.endswith("#/train/new/regular")
    choose(page, data["shapes"])
    expect(start).not_to_have_attribute("aria-disabled", "true")
    page.get_by_label("Task").select_option("segment")
    expect(start).to_have_accessible_description(re.compile("labelled for detect, not for segment"))


def test_an_error_of_the_api_stands_at_its_field(
    console: OpenConsole, data: dict[str, str]
) -> None:
    shown = console()
    shown.expects.add(400)
    page = shown.open(f"#/train/new/regular?dataset={data['shapes']}")
    page.get_by_text("Advanced").click()
    page.get_by_label("Image size").fill("8")
    page.get_by_label("lr0").fill("7")
    page.get_by_role("button", name="Start training").click()
    size = page.get_by_label("Image size")
    expect(size).to_have_attribute("aria-invalid", "true")
    expect(size).to_have_accessible_description(re.compile("from 32 to 4096"))
    expect(size).to_be_focused()
    size.fill("64")
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_label("lr0")).to_have_accessible_description(re.compile("lr0 is '?7"))


def test_only_what_fits_is_offered(
    console: OpenConsole, api: httpx.Client, data: dict[str, str]
) -> None:
    models = api.get("/models").json()["models"]
    page = console().open(f"#/train/new/incremental?dataset={data['shapes']}")
    start = page.get_by_role("button", name="Start training")
    expect(start).to_have_accessible_description("Choose: Base model.")
    options = page.get_by_label("Base model").locator("option").all_inner_texts()
    fitting = {model["id"] for model in models if model["type"] == "detection"}
    assert {option.removesuffix(" ✓") for option in options[1:]} == fitting
    page = console().open(f"#/train/new/regular?dataset={data['shapes']}")
    page.get_by_text("Advanced").click()
    expect(page.get_by_label("mosaic", exact=True)).to_be_visible()
    expect(page.get_by_label("auto_augment")).to_be_hidden()
    choose(page, data["kinds"])
    expect(page.get_by_label("auto_augment")).to_be_visible()
    expect(page.get_by_label("mosaic", exact=True)).to_be_hidden()


def test_jobs_are_filtered_by_link(console: OpenConsole, trained: list[str]) -> None:
    page = console().open("#/train?status=failed")
    expect(page.get_by_text("No job matches these filters.")).to_be_visible()
    page.get_by_label("Status").select_option("completed")
    page.get_by_label("Kind").select_option("training")
    expect(page).to_have_url(re.compile("status=completed&kind=training"))
    expect(page.get_by_role("row")).to_have_count(1 + len(trained))


@pytest.mark.smoke
def test_an_empty_list_tells_the_next_step(console: OpenConsole) -> None:
    page = console().open("#/train?kind=")
    expect(page.get_by_role("link", name="New training").first).to_be_visible()
    for mode in ("Regular", "In stages", "Add classes", "Distil"):
        page.goto(page.url.partition("#")[0] + "#/train/new")
        page.get_by_role("link", name=re.compile(f"^{mode}")).click()
        expect(page.get_by_role("heading", name=f"New training: {mode}")).to_be_visible()
        expect(page.get_by_role("button", name="Start training")).to_be_visible()
        assert page.locator("form .columns > .field").count() == 5


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_accessible_and_narrow(
    console: OpenConsole, trained: list[str], data: dict[str, str], theme: str, language: str
) -> None:
    for width in (1280, 360):
        shown = console(theme=theme, language=language, width=width)
        for path in pages(trained[0], data["shapes"]):
            look(shown, path)


def pages(job: str, dataset: str) -> list[str]:
    job = f"#/train/{job}"
    new = [f"#/train/new/{mode}?dataset={dataset}" for mode in ("regular", "distillation")]
    return ["#/train", "#/train/new", *new, job, f"{job}?part=log", f"{job}?part=settings"]


def look(shown: Console, path: str) -> None:
    page = shown.open(path)
    for summary in page.locator("summary").all():
        summary.click()
    assert shown.too_wide() == [], path
    assert shown.violations() == [], path
