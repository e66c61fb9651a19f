"""Operate: the service in figures that are really drawn; the jobs drawer; tokens and audit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect
from sqlalchemy import delete

from database import Database
from jobs.job import Job
from jobs.store import JobStore
from settings import Settings
from tests.console.conftest import OpenConsole
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import Server

Picture = Callable[..., bytes]
MANY = 1000  # jobs that wait

DRAWN = """element => {
  const canvas = element.querySelector('canvas');
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  const colours = new Set();
  for (let i = 0; i < pixels.length; i += 4)
    if (pixels[i + 3] > 200 && Math.max(pixels[i], pixels[i + 1], pixels[i + 2])
        - Math.min(pixels[i], pixels[i + 1], pixels[i + 2]) > 60) colours.add(i);
  return colours.size;
}"""
"""The number of coloured pixels of a chart: axes and grid are grey."""


@pytest.fixture
def traffic(live: Server, picture: Picture) -> None:
    """Predictions and errors in at least two steps of the statistics."""

    def busy() -> bool:
        for seed in range(2):
            files = {"image": picture(seed=seed)}
            httpx.post(f"{live.url}/infer", files=files, timeout=PATIENCE).raise_for_status()
        httpx.post(f"{live.url}/infer", files={"image": b"no image"}, timeout=PATIENCE)
        steps = httpx.get(f"{live.url}/stats", timeout=PATIENCE).json()["steps"]
        return sum(step["p50_ms"] is not None for step in steps) >= 2

    wait_until(busy, pause=1.0)


@pytest.fixture
def jobs(live: Server) -> Iterator[JobStore]:
    """The jobs of the server, as another process has them."""
    database = Database(Settings(home=live.home / "home"))
    yield JobStore(database)
    database.close()


def drawn(chart: Locator) -> bool:
    """Whether a chart shows more than its axes."""
    return bool(chart.evaluate(DRAWN) > 40)


def test_charts_are_drawn_from_real_traffic(console: OpenConsole, traffic: None) -> None:
    page = console().open("#/operate")
    for name in (
        "Images and requests a second",
        "Latency of predictions",
        "Batches and queue",
        "Error responses a minute",
    ):
        chart = page.get_by_role("img", name=name)
        expect(chart).to_be_visible()
        wait_until(partial(drawn, chart))
    errors = page.locator("section", has=page.get_by_role("heading", name="Errors by code"))
    expect(errors).to_contain_text("INVALID_IMAGE")
    tiles = page.locator(".operate-tiles")
    expect(tiles).to_contain_text(re.compile(r"Latency, median\s*[\d.]+ (ms|s)"))
    expect(page.locator(".operate-panels")).to_contain_text("gateway")
    expect(page.locator(".operate-panels")).to_contain_text("onnxruntime")


def test_figures_renew_themselves(console: OpenConsole) -> None:
    page = console().open("#/operate")
    with page.expect_response(re.compile("/stats$")):
        pass
    expect(page.locator(".operate-tiles")).to_contain_text("Memory")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_accessible_with_figures(
    console: OpenConsole, traffic: None, theme: str, language: str
) -> None:
    shown = console(theme=theme, language=language)
    shown.open("#/operate")
    expect(shown.page.locator(".operate-charts canvas").first).to_be_visible()
    assert shown.violations() == []
    shown.open("#/operate?jobs=open")
    expect(shown.page.get_by_role("dialog")).to_be_visible()
    assert shown.violations() == []


def test_nothing_scrolls_sideways_on_a_phone(console: OpenConsole, traffic: None) -> None:
    shown = console(width=360, height=740)
    for place in ("#/operate", "#/operate/tokens", "#/operate/audit", "#/operate?jobs=open"):
        shown.open(place)
        assert shown.too_wide() == []


def test_administrators_see_tokens_and_the_trail(console: OpenConsole, live: Server) -> None:
    choice = {"model_id": "traffic_signs_yolov8n"}
    httpx.post(f"{live.url}/models/active", json=choice, timeout=PATIENCE).raise_for_status()
    page = console().open("#/operate")
    page.get_by_role("link", name="Tokens").click()
    expect(page.get_by_role("main")).to_contain_text("visionloop tokens create")
    page.get_by_role("link", name="Audit trail").click()
    expect(page.get_by_role("table")).to_contain_text("activated traffic_signs_yolov8n")
    page.get_by_label("Search in the trail").fill("no such thing")
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_contain_text("No entry matches.")


def drawer(page: Page) -> None:
    page.get_by_role("button", name=re.compile("^Jobs: ")).click()


def test_the_drawer_tells_how_far_jobs_are_and_a_cancel_is_true(
    console: OpenConsole, jobs: JobStore
) -> None:
    """What another process does to the job appears without a reload."""
    shown = console()
    shown.expects |= {409}  # the job may fail by itself before the click
    page = shown.open("#/models")
    drawer(page)
    dialog = page.get_by_role("dialog", name="Jobs")
    expect(dialog).to_be_visible()
    job = jobs.create("export", config={}, recipe={}, model_name="drawn-name")
    row = dialog.get_by_role("listitem").filter(has_text="drawn-name")
    expect(row).to_be_visible()
    if row.get_by_role("button", name="Cancel the job of drawn-name").count():
        row.get_by_role("button", name="Cancel the job of drawn-name").click()
        page.get_by_role("dialog", name="Cancel this job?").get_by_role(
            "button", name="Cancel the job"
        ).click()
    expect(row.locator(".state")).to_have_text(re.compile("cancelled|failed"))
    assert jobs.get(job.id).is_final
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page).to_have_url(re.compile("#/models$"))


@pytest.fixture
def many(jobs: JobStore) -> Iterator[None]:
    """A thousand jobs that wait; of a kind that runs last, one after the other."""
    rows = [
        Job(id=f"{i:032x}", kind="engine", model_name=f"wait-{i}", config={}, recipe={})
        for i in range(MANY)
    ]
    ids = [row.id for row in rows]
    with jobs.database.write() as session:
        session.add_all(rows)
    yield
    with jobs.database.write() as session:
        session.execute(delete(Job).where(Job.id.in_(ids), Job.status == "queued"))


def test_a_thousand_waiting_jobs_are_listed_in_parts(console: OpenConsole, many: None) -> None:
    page = console().open("#/try")
    drawer(page)
    dialog = page.get_by_role("dialog", name="Jobs")
    expect(dialog.locator(".jobs-row").first).to_be_visible()
    expect(page.get_by_role("button", name="Jobs: 1,000 running or waiting")).to_be_attached()
    assert dialog.locator(".jobs-row").count() <= 320  # a hundred of each list
    dialog.get_by_role("button", name="Show more that wait").click()
    expect(dialog.locator(".jobs-row").nth(150)).to_be_attached()
    last = dialog.locator(".jobs-row").nth(150)
    last.scroll_into_view_if_needed()  # benchmarks.console measures how smoothly
    expect(last).to_be_visible()
