"""The screen Try: an image, one model or two, and where it goes from there."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import OpenConsole
from tests.support.serving import ROOT, Server

IMAGE = ROOT / "docs" / "street_scene.jpg"


def choose(page: Page) -> None:
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name=re.compile("Choose an image|选择图片")).click()
    chosen.value.set_files(IMAGE)


def inferences(page: Page) -> list[str]:
    """The requests to `/infer` from now on."""
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url) if one.url.endswith("/infer") else None)
    return asked


@pytest.mark.smoke
def test_two_models_on_an_image_in_three_clicks(console: OpenConsole) -> None:
    page = console().open("#/try")
    choose(page)  # the first click
    expect(page.locator(".try-result")).to_have_count(1)
    page.get_by_label("Compare with").select_option(index=1)  # the others: open it, choose
    results = page.locator(".try-result")
    expect(results).to_have_count(2)
    for at, name in enumerate(("A", "B")):
        shown = results.nth(at)
        expect(shown.get_by_role("list", name=f"What model {name} found")).to_be_visible()
        expect(shown.get_by_text("ms in all")).to_be_visible()
    expect(results.nth(0).get_by_role("img", name="street_scene.jpg")).to_be_visible()
    assert re.search(r"#/try\?.*b=", page.url)


def test_the_threshold_asks_nothing_of_the_server(console: OpenConsole) -> None:
    page = console().open("#/try")
    choose(page)
    count = page.locator(".try-count")
    expect(count).to_have_text(re.compile(r"^\d+ of \d+ found$"))
    before = count.inner_text()
    asked = inferences(page)
    slider = page.get_by_label("Confidence at least")
    slider.focus()
    slider.press("Home")
    expect(count).to_have_text(re.compile(r"^\d+ found$"))
    slider.press("End")
    expect(page.get_by_text("Nothing is above this confidence")).to_be_visible()
    assert before != count.inner_text()
    assert "confidence=1" in page.url
    assert asked == []


def test_a_class_is_seen_alone_and_can_be_kept_so(console: OpenConsole) -> None:
    page = console().open("#/try")
    choose(page)
    rows = page.get_by_role("list", name="What model").get_by_role("listitem")
    expect(rows.nth(1)).to_be_visible()
    classes = page.get_by_role("list", name="Classes").get_by_role("button")
    first = classes.first
    label = first.locator("span").nth(1).inner_text()
    first.focus()  # by keyboard as by mouse
    expect(rows).to_have_count(int(first.locator(".count").inner_text()))
    expect(rows.first).to_contain_text(label)
    first.press("Enter")
    expect(first).to_have_attribute("aria-pressed", "true")
    page.get_by_role("heading", level=1).click()
    expect(rows.first).to_contain_text(label)
    first.press("Enter")
    page.get_by_label("Compare with").focus()
    expect(rows.nth(1)).to_be_visible()


def test_an_image_is_pasted(console: OpenConsole) -> None:
    page = console().open("#/try")
    text = base64.b64encode(IMAGE.read_bytes()).decode()
    page.evaluate(
        """(text) => {
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "pasted.jpg", { type: "image/jpeg" }));
            dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
        }""",
        text,
    )
    expect(page.locator(".try-count")).to_contain_text("found")


def drop(page: Page, name: str, kind: str, content: bytes) -> None:
    data = page.evaluate_handle(
        """([name, kind, text]) => {
            const data = new DataTransfer();
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            data.items.add(new File([bytes], name, { type: kind }));
            return data;
        }""",
        [name, kind, base64.b64encode(content).decode()],
    )
    page.dispatch_event(".try-drop", "drop", {"dataTransfer": data})


def test_a_dropped_file_that_is_no_image_is_refused_with_the_remedy(console: OpenConsole) -> None:
    shown = console()
    page = shown.open("#/try")
    drop(page, "notes.txt", "text/plain", b"hello")
    expect(page.get_by_text("notes.txt is no image. Choose a JPEG")).to_be_visible()
    shown.expects.add(400)
    drop(page, "broken.jpg", "image/jpeg", IMAGE.read_bytes()[:2000])
    expect(page.get_by_role("alert")).to_contain_text("image")


def test_the_commands_are_those_of_what_is_shown(console: OpenConsole, live: Server) -> None:
    page = console().open("#/try?confidence=0.4")
    choose(page)
    command = page.get_by_label("Shell", exact=True)
    expect(command).to_contain_text(f"{live.url}/infer")
    expect(command).to_contain_text("confidence=0.4")
    expect(page.get_by_label("Python (pip install httpx)")).to_contain_text("httpx.post(")


def test_an_image_is_sent_to_annotation(console: OpenConsole, live: Server) -> None:
    shown = console()
    page = shown.open("#/try")
    choose(page)
    page.get_by_role("button", name="Send to annotation").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("from the street")
    dialog.get_by_label("Classes").fill("")
    dialog.get_by_role("button", name="Send", exact=True).click()
    expect(dialog.get_by_text("Name one class at least.")).to_be_visible()
    assert shown.violations() == []
    dialog.get_by_label("Classes").fill("stop\nyield")
    dialog.get_by_role("button", name="Send", exact=True).click()
    expect(dialog.get_by_text("waits to be annotated")).to_be_visible()
    expect(dialog.get_by_role("link", name="Annotate it now")).to_be_visible()
    (made,) = [one for one in datasets(page, live) if one["name"] == "from the street"]
    assert made["classes"] == ["stop", "yield"]
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Send to annotation").click()
    dialog.get_by_label("Dataset").select_option(made["id"])
    dialog.get_by_role("button", name="Send", exact=True).click()
    expect(dialog.get_by_text("has this image already")).to_be_visible()


def datasets(page: Page, live: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.request.get(f"{live.url}/api/datasets").json()["datasets"]
    return found


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_accessible_with_results_and_fits_a_phone(
    console: OpenConsole, theme: str, language: str
) -> None:
    shown = console(theme=theme, language=language, width=360, height=740)
    page = shown.open("#/try")
    choose(page)
    page.locator("select").nth(1).select_option(index=1)
    expect(page.locator(".try-count")).to_have_count(2)
    assert shown.violations() == []
    assert shown.too_wide() == []


def test_a_model_that_is_gone_is_named(console: OpenConsole) -> None:
    shown = console()
    shown.expects.add(404)
    page = shown.open("#/try?a=gone:1")
    choose(page)
    expect(page.get_by_role("alert")).to_contain_text("No model 'gone:1'")
