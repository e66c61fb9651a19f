"""Signing in: a closed server, a token that ends in the midst of the work, signing out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from access.tokens import TokenStore
from database import Database
from settings import Settings
from tests.console.conftest import OpenConsole
from tests.support.serving import Server


@pytest.fixture(scope="module")
def home(new_home: Callable[[], Path]) -> Path:
    return new_home()


@pytest.fixture(scope="module")
def live(home: Path, browser: Browser) -> Iterator[Server]:
    """A server under a prefix that needs a token."""
    running = Server(home, VISIONLOOP_TOKEN="of the environment", VISIONLOOP_ROOT_PATH="/vision")
    try:
        running.start()
        running.url += "/vision"
        yield running
    finally:
        running.stop()


@pytest.fixture
def tokens(home: Path, live: Server) -> Iterator[TokenStore]:
    database = Database(Settings(home=home / "home"))
    yield TokenStore(database)
    database.close()


def sign_in(page: Page, token: str) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Token").fill(token)
    dialog.get_by_role("button", name="Sign in").click()


@pytest.mark.smoke
def test_a_closed_server_asks_for_a_token_and_a_wrong_one_is_said(console: OpenConsole) -> None:
    shown = console()
    shown.expects.add(401)
    page = shown.open("#/models")
    expect(page.get_by_role("dialog")).to_contain_text("This server needs a token")
    assert shown.violations() == []
    sign_in(page, "wrong")
    expect(page.get_by_role("alert")).to_contain_text("This token is unknown")
    sign_in(page, "of the environment")
    expect(page.get_by_role("article").first).to_be_visible()
    cookies = shown.context.cookies()
    assert [(one["httpOnly"], one["sameSite"], one["path"]) for one in cookies] == [
        (True, "Strict", "/vision")
    ]
    page.reload()  # the session stays
    expect(page.get_by_role("article").first).to_be_visible()


def test_what_a_token_does_not_allow_is_shown_with_the_reason(
    console: OpenConsole, tokens: TokenStore
) -> None:
    shown = console()
    page = shown.open("#/models")
    sign_in(page, tokens.create("reader", "use", "tests")[1])
    button = page.get_by_role("button", name="Import a model")
    expect(button).to_have_attribute("aria-disabled", "true")
    expect(button).to_have_accessible_description(re.compile("needs the scope 'admin'"))


def test_a_token_that_ends_in_the_midst_is_asked_for_again_and_work_goes_on(
    console: OpenConsole, tokens: TokenStore
) -> None:
    shown = console()
    shown.expects.add(401)
    page = shown.open("#/models/traffic_signs_yolov8n")
    sign_in(page, tokens.create("anna", "admin", "tests")[1])
    expect(page.get_by_role("heading", level=1, name="traffic_signs_yolov8n")).to_be_visible()
    tokens.revoke("anna", "tests")
    page.get_by_role("link", name="All models").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This server needs a token")
    sign_in(page, tokens.create("anna", "admin", "tests")[1])
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("article").first).to_be_visible()


def test_signing_out(console: OpenConsole) -> None:
    shown = console()
    shown.expects.add(401)
    page = shown.open("#/models")
    sign_in(page, "of the environment")
    expect(page.get_by_role("article").first).to_be_visible()
    page.get_by_role("button", name="Access").click()
    expect(page.get_by_role("dialog")).to_contain_text("Signed in as environment token")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("dialog")).to_contain_text("This server needs a token")
    assert shown.context.cookies() == []
