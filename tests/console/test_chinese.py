"""A reader of Chinese reads what the server says in Chinese."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.console.conftest import OpenConsole


@pytest.mark.smoke
def test_the_servers_sentences_are_in_chinese(console: OpenConsole) -> None:
    shown = console(language="zh")
    shown.expects.add(404)
    scripts: list[str] = []
    shown.page.on("request", lambda sent: scripts.append(sent.url.rpartition("/")[2]))
    page = shown.open("#/data/no-such")
    expect(page.get_by_role("alert")).to_contain_text(re.compile("没有数据集“no-such”。已有："))
    assert "zh.js" in scripts


def test_a_reader_of_english_loads_no_chinese(console: OpenConsole) -> None:
    shown = console()
    shown.expects.add(404)
    scripts: list[str] = []
    shown.page.on("request", lambda sent: scripts.append(sent.url.rpartition("/")[2]))
    page = shown.open("#/data/no-such")
    expect(page.get_by_role("alert")).to_contain_text("No dataset 'no-such'.")
    assert "zh.js" not in scripts
