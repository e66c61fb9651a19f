"""The screen Models: what each name means, and the way of a version into service.

The models are the starter classifier, and copies of it, one of them blind to a class.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from database import Database
from models_store.registry import Registry
from models_store.store import ModelStore
from settings import Settings
from synthetic.scenes import write_classification_set
from synthetic.signs import CLASS_NAMES
from tests.console.conftest import OpenConsole
from tests.support.blinded_models import blinded
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import Server
from tests.support.small_models import checkpoint, network

STARTER, NAME = "traffic_signs_mobilenet_v2", "signs"


@dataclass
class Versions:
    """`good` is promoted, `worse` is blind to the class `hidden`, `equal` is as good as `good`."""

    good: str
    worse: str
    equal: str
    hidden: str


@pytest.fixture(scope="module")
def home(new_home: Callable[[], Path]) -> Path:
    return new_home()


@pytest.fixture(scope="module")
def live(home: Path, browser: Browser) -> Iterator[Server]:
    running = Server(home)
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def versions(
    home: Path, live: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Versions]:
    folder = tmp_path_factory.mktemp("made")
    data = write_classification_set(
        folder / "close-ups", 4 * len(CLASS_NAMES), 5, 64, lambda i: i >= 1
    )
    archive = shutil.make_archive(str(folder / "close-ups"), "zip", data)
    registry = Registry(Database(Settings(home=home / "home")), ModelStore(home / "bento"))
    source = registry.get(STARTER).path
    with httpx.Client(base_url=live.url, timeout=PATIENCE) as client:

        def ask(method: str, path: str, **options: Any) -> Any:
            answer = client.request(method, path, **options)
            assert answer.is_success, answer.text
            return answer.json()

        with open(archive, "rb") as file:
            options = {"files": {"file": ("close-ups.zip", file)}, "data": {"name": "close-ups"}}
            dataset = ask("POST", "/api/datasets", **options)

        def publish(*hidden: str) -> str:
            made = blinded(source, folder / str(len(list(folder.iterdir()))), hidden)
            model: str = registry.publish(made, NAME, {"kind": "import"}).id
            body = {"dataset_path": dataset["id"], "split": "val"}
            job = ask("POST", f"/metrics/{model}/evaluate", json=body)["job_id"]
            wait_until(lambda: ask("GET", f"/jobs/{job}")["finished_at"] is not None, 0.2)
            return model

        good = publish()
        ask("POST", f"/models/{good}/promote")
        report = ask("GET", f"/metrics/{good}/report")
        hidden = max(report["classes"], key=lambda row: row["accuracy"])["name"]
        yield Versions(good, publish(hidden), publish(), hidden)
    registry.database.close()


def row_of(page: Page, model: str) -> Locator:
    return page.get_by_role("row").filter(has_text=model.partition(":")[2])


@pytest.mark.smoke
def test_the_list_says_what_each_name_means(console: OpenConsole) -> None:
    page = console().open("#/models")
    card = page.get_by_role("article").filter(has_text=STARTER)
    expect(card).to_contain_text("promoted")
    expect(card).to_contain_text("classification")
    expect(card).to_contain_text("accuracy")
    card.get_by_role("link", name=STARTER).click()
    expect(page.get_by_role("heading", name=STARTER, level=1)).to_be_visible()


def test_two_versions_are_compared_with_the_class_that_regressed(
    console: OpenConsole, versions: Versions
) -> None:
    page = console().open("#/models")
    page.get_by_role("link", name=NAME, exact=True).click()
    row_of(page, versions.worse).get_by_role("link", name="Compare").click()
    expect(page.get_by_role("heading", name="1 class regressed")).to_be_visible()
    regressed = page.get_by_role("region", name="Classes").get_by_role("row").nth(1)
    expect(regressed).to_contain_text(versions.hidden)
    expect(regressed).to_contain_text("−")
    expect(
        page.get_by_text("could be chance").or_(page.get_by_text("B is worse")).first
    ).to_be_visible()
    page.get_by_role("button", name=f"See val/{versions.hidden}/").first.click()
    dialog = page.get_by_role("dialog")
    for name in ("Truth", f"A · {versions.good}", f"B · {versions.worse}"):
        picture = dialog.get_by_role("img", name=f"{name}: ")
        expect(picture).to_be_visible()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    expect(dialog.get_by_text(versions.hidden, exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Swap").click()
    expect(page.get_by_role("row").filter(has_text=versions.hidden)).to_contain_text("+")
    assert page.url.endswith(
        f"{versions.good.replace(':', '%3A')}/compare?a={versions.worse.replace(':', '%3A')}"
    )


def test_the_gate_refuses_a_version_and_names_the_class(
    console: OpenConsole, versions: Versions
) -> None:
    shown = console()
    page = shown.open(f"#/models/{versions.worse}")
    page.get_by_role("button", name="Promote", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("The gate refuses it", exact=True)).to_be_visible()
    expect(dialog).to_contain_text(f"'{versions.hidden}' regressed from")
    expect(dialog.get_by_role("region", name="Classes that regressed")).to_contain_text(
        versions.hidden
    )
    button = dialog.get_by_role("button", name="Promote", exact=True)
    expect(button).to_have_attribute("aria-disabled", "true")
    expect(button).to_have_accessible_description(re.compile("The gate refuses this version"))
    assert shown.violations() == []
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_promoted_through_the_gate_in_three_clicks_and_rolled_back_in_two(
    console: OpenConsole, versions: Versions
) -> None:
    page = console().open("#/models")
    page.get_by_role("link", name=NAME, exact=True).click()
    row_of(page, versions.equal).get_by_role("button", name="Promote").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("The gate would promote it")).to_be_visible()
    dialog.get_by_role("button", name="Promote", exact=True).click()
    expect(page.get_by_text(f"{versions.equal} is promoted.")).to_be_visible()
    expect(row_of(page, versions.equal).get_by_text("promoted", exact=True)).to_be_visible()
    decided = page.get_by_role("listitem").filter(has_text=versions.equal)
    expect(decided.first).to_contain_text("promoted")
    page.get_by_role("button", name="Roll back").click()
    expect(dialog).to_contain_text(versions.good)
    dialog.get_by_role("button", name="Roll back").click()
    expect(dialog).to_be_hidden()
    expect(row_of(page, versions.good).get_by_text("promoted", exact=True)).to_be_visible()
    expect(page.get_by_text("rolled back").first).to_be_visible()


def test_a_version_that_was_not_evaluated_is_evaluated_and_then_decided_on(
    console: OpenConsole, versions: Versions, live: Server, home: Path, tmp_path: Path
) -> None:
    registry = Registry(Database(Settings(home=home / "home")), ModelStore(home / "bento"))
    made = blinded(registry.get(STARTER).path, tmp_path / "made", (versions.hidden,))
    model = registry.publish(made, NAME, {"kind": "import"}).id
    registry.database.close()
    shown = console()
    shown.expects.add(400)  # nobody knows on which images to judge an imported file
    page = shown.open(f"#/models/{model}")
    expect(page.get_by_text("not evaluated").first).to_be_visible()
    page.get_by_role("button", name="Promote", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Judge on").select_option(index=1)
    expect(dialog.get_by_text("The gate cannot tell yet")).to_be_visible()
    dialog.get_by_role("button", name="Evaluate and decide").click()
    expect(dialog.get_by_text("The gate refuses it", exact=True)).to_be_visible(
        timeout=PATIENCE * 1000
    )
    expect(dialog).to_contain_text(f"'{versions.hidden}' regressed from")
    dialog.get_by_role("button", name="Close").last.click()
    page.get_by_role("link", name=NAME).first.click()
    expect(page.get_by_role("listitem").filter(has_text="refused").first).to_contain_text(model)
    httpx.delete(f"{live.url}/models/{model}", timeout=PATIENCE).raise_for_status()


def test_a_version_is_exported_and_downloaded(console: OpenConsole, versions: Versions) -> None:
    page = console().open(f"#/models/{versions.good}?tab=exports")
    page.get_by_role("button", name="Export", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Format").select_option("archive")
    dialog.get_by_role("button", name="Export", exact=True).click()
    link = page.get_by_role("link", name="Download").first
    expect(link).to_be_visible(timeout=PATIENCE * 1000)
    with page.expect_download() as download:
        link.click()
    assert Path(download.value.path()).read_bytes()[:2] == b"PK"
    page.get_by_role("button", name="Delete", exact=False).last.click()
    expect(page.get_by_text("Nothing was exported yet")).to_be_visible()


def test_a_file_is_imported_made_active_and_deleted(
    console: OpenConsole, live: Server, tmp_path: Path
) -> None:
    shown = console()
    path = checkpoint(tmp_path / "shapes.pt", network("detect"))
    page = shown.open("#/models")
    page.get_by_role("button", name="Import a model").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Import", exact=True).click()
    expect(dialog.get_by_text("Choose a file.")).to_be_visible()
    assert shown.violations() == []
    with page.expect_file_chooser() as chosen:
        dialog.get_by_role("button", name="File").click()
    chosen.value.set_files(path)
    dialog.get_by_label("Name", exact=True).fill("shapes")
    dialog.get_by_role("button", name="Import", exact=True).click()
    expect(dialog.get_by_role("progressbar")).to_be_visible()
    heading = page.get_by_role("heading", level=1, name=re.compile("^shapes:"))
    expect(heading).to_be_visible(timeout=PATIENCE * 1000)
    model = heading.inner_text()

    active = httpx.get(f"{live.url}/models/active", timeout=PATIENCE).json()["active_model"]["id"]
    page.get_by_role("button", name="Make active").click()
    dialog.get_by_role("button", name="Make active").click()
    expect(page.get_by_text(f"{model} is active.")).to_be_visible()
    delete = page.get_by_role("button", name="Delete", exact=True)
    expect(delete).to_have_accessible_description(re.compile("Make another one active first"))
    httpx.post(
        f"{live.url}/models/active", json={"model_id": active}, timeout=PATIENCE
    ).raise_for_status()
    expect(delete).not_to_have_attribute("aria-disabled", "true")
    delete.click()
    dialog.get_by_role("button", name="Delete", exact=True).click()
    expect(page).to_have_url(re.compile("#/models$"))
    expect(page.get_by_role("article").filter(has_text="shapes")).to_have_count(0)


def test_a_version_runs_as_a_shadow_until_it_is_stopped(
    console: OpenConsole, versions: Versions
) -> None:
    page = console().open(f"#/models/{versions.worse}")
    page.get_by_role("button", name="Start a shadow").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Compare with the traffic of")).to_have_value(NAME)
    dialog.get_by_role("button", name="Start a shadow").click()
    expect(page.get_by_text("Shadow: waiting for traffic")).to_be_visible()
    page.get_by_role("button", name="Stop the shadow").click()
    expect(page.get_by_role("button", name="Start a shadow")).to_be_visible()


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_accessible_and_fits_a_phone(
    console: OpenConsole, versions: Versions, theme: str, language: str
) -> None:
    shown = console(theme=theme, language=language, width=360, height=740)
    good = versions.good
    tabs = [f"{good}?tab={tab}" for tab in ("overview", "classes", "images", "exports")]
    for path in (NAME, *tabs, f"{versions.worse}/compare?a={good}"):
        page = shown.open(f"#/models/{path}")
        expect(page.locator("main .loading")).to_have_count(0)
        assert shown.violations() == [], path
        assert shown.too_wide() == [], path


def test_a_model_that_is_gone_leads_back(console: OpenConsole) -> None:
    shown = console()
    shown.expects.add(404)
    page = shown.open("#/models/gone:1")
    expect(page.get_by_text("No such model")).to_be_visible()
    page.get_by_role("link", name="All models").click()
    expect(page).to_have_url(re.compile("#/models$"))
