"""Loop: what happened to a model name, each entry one click from its report."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from database import Database
from models_store.decision_log import DecisionReason
from models_store.registry import Registry
from models_store.store import ModelStore
from settings import Settings
from tests.console.conftest import OpenConsole
from tests.support.histories import BETTER, GOOD, WORSE, History
from tests.support.serving import Server

LOOP = "#/loop?name=signs"


@pytest.fixture(scope="module")
def told(live: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """A name with a promoted, a refused and a rolled-back version, made by another process."""
    database = Database(Settings(home=live.home / "home"))
    registry = Registry(database, ModelStore(live.home / "bento"))
    history = History(registry, tmp_path_factory.mktemp("history"))
    first = history.publish(promote=True, file="signs.pt")
    rows = [history.evaluate(first, GOOD)]
    better = history.publish(kind="train", mode="regular", dataset="street-1")
    rows.append(history.evaluate(better, BETTER))
    assert history.judge(rows[1], rows[0], "API, token alice")
    worse = history.publish(kind="train", mode="incremental", dataset="street-1")
    rows.append(history.evaluate(worse, WORSE))
    assert not history.judge(rows[2], rows[1], "API, token alice")
    registry.rollback("signs", DecisionReason("API, token bob"))
    counts = {"accepted": 5, "moved": 2, "relabelled": 0, "added": 1, "removed": 0}
    history.revise("street-1", 3, "2026-01-01T10:00:00.000+00:00", {first.id: counts})
    yield history
    database.close()


@pytest.mark.smoke
def test_decisions_say_why_and_open_their_reports(console: OpenConsole, told: History) -> None:
    shown = console()
    page = shown.open(LOOP)
    entries = page.locator(".loop-entry")
    rolled, refused, promoted = (
        entries.filter(has=page.locator("strong", has_text=re.compile(f"^{kind}$")))
        .filter(has_text=f"by {who}")
        .first
        for kind, who in (("Rolled back", "bob"), ("Refused", "alice"), ("Promoted", "alice"))
    )
    expect(rolled).to_contain_text("'signs' went back to")
    expect(rolled).to_contain_text("by bob")
    expect(refused).to_contain_text("Regressed:")
    expect(refused.locator(".badge")).to_have_text(["round"])
    expect(refused).to_contain_text("'round' regressed from 0.900 to 0.500")
    expect(promoted).to_contain_text("instead of")
    for entry in (refused, promoted):
        with shown.context.expect_page() as opened:
            entry.locator(".loop-text a").click()
        report = opened.value
        expect(report.locator("h1")).to_contain_text("signs:")
        assert "report.html?evaluation=" in report.url
        report.close()


def test_the_kinds_filter_and_have_an_address(console: OpenConsole, told: History) -> None:
    page = console().open(LOOP)
    kinds = page.get_by_role("group", name="Show only")
    kinds.get_by_role("button", name="Corrections").click()
    expect(page).to_have_url(re.compile("kind=corrections"))
    expect(page.locator(".loop-entry")).to_have_count(1)
    entry = page.locator(".loop-entry")
    expect(entry).to_contain_text("revision 3 of street-1")
    expect(entry).to_contain_text("5 accepted, 2 moved, 1 added")
    page.reload()
    expect(page.locator(".loop-entry")).to_have_count(1)
    kinds.get_by_role("button", name="Drift").click()
    expect(page.get_by_role("main")).to_contain_text("Nothing of this kind has happened.")
    page.get_by_role("button", name="Show everything").click()
    expect(page.locator(".loop-entry").first).to_be_visible()


def test_what_happens_now_appears_by_itself(console: OpenConsole, told: History) -> None:
    page = console().open(LOOP)
    expect(page.locator(".loop-entry").first).to_be_visible()
    before = page.locator(".loop-promoted").count()
    model = told.registry.candidate("signs")
    told.registry.promote(model.id, DecisionReason("API, token carol"))
    expect(page.locator(".loop-promoted")).to_have_count(before + 1)
    expect(page.locator(".loop-promoted").first).to_contain_text("by carol")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_accessible(console: OpenConsole, told: History, theme: str, language: str) -> None:
    shown = console(theme=theme, language=language)
    shown.open(LOOP)
    expect(shown.page.locator(".loop-entry").first).to_be_visible()
    assert shown.violations() == []


def test_nothing_scrolls_sideways_on_a_phone(console: OpenConsole, told: History) -> None:
    shown = console(width=360, height=740)
    shown.open(LOOP)
    expect(shown.page.locator(".loop-entry").first).to_be_visible()
    assert shown.too_wide() == []
