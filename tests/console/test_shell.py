"""What all screens share: language, theme, keyboard, narrow windows, and no such page."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.console.conftest import OpenConsole

SCREENS = ("try", "models", "train", "data", "loop", "operate")


@pytest.mark.smoke
def test_every_screen_opens_by_its_link(console: OpenConsole) -> None:
    page = console().open()
    for name in SCREENS:
        page.get_by_role("navigation", name="Screens").get_by_role(
            "link", name=name.capitalize()
        ).click()
        expect(page.get_by_role("main").get_by_role("heading", level=1)).to_be_visible()
        assert page.url.endswith(f"#/{name}")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_empty_screens_are_accessible(console: OpenConsole, theme: str, language: str) -> None:
    shown = console(theme=theme, language=language)
    for name in SCREENS:
        shown.open(f"#/{name}")
        assert shown.violations() == []


@pytest.mark.smoke
def test_no_screen_scrolls_sideways_on_a_phone(console: OpenConsole) -> None:
    shown = console(width=360, height=740)
    for name in SCREENS:
        shown.open(f"#/{name}")
        assert shown.too_wide() == []


def test_language_and_theme_are_remembered(console: OpenConsole) -> None:
    page = console().open()
    page.get_by_role("button", name="中文").click()
    page.get_by_role("button", name="深色主题").click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_an_unknown_page_leads_on(console: OpenConsole) -> None:
    page = console().open("#/nowhere/at%ll")
    page.get_by_role("link", name="Go to Try").click()
    expect(page).to_have_url(re.compile("#/try$"))
