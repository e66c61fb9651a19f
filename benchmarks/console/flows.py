"""The flows that people use most, each as a script of a hand in our console."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.console.hand import Hand

if TYPE_CHECKING:
    from playwright.sync_api import Page


def upload_a_dataset(hand: Hand, file: Path) -> None:
    """From the list of datasets until the report of the upload is read."""
    page = hand.page
    hand.click(page.get_by_role("link", name="Upload", exact=True))
    with page.expect_file_chooser() as chooser:
        hand.click(page.get_by_role("button", name="Choose files"))
    chooser.value.set_files(file)  # the operating system's dialog is not counted
    page.get_by_role("link", name="Open the dataset").wait_for()


def start_a_training(hand: Hand, dataset: str) -> None:
    """From the list of jobs until the page of the new one is there."""
    page = hand.page
    hand.click(page.get_by_role("link", name="New training").first)
    hand.click(page.get_by_role("link", name=re.compile("^Regular")))
    hand.choose(page.get_by_label("Dataset"), dataset)
    hand.click(page.get_by_role("button", name="Start training"))
    page.get_by_role("button", name="Cancel").wait_for()


def cancel_the_training(hand: Hand) -> None:
    """From the job's page until it has ended."""
    page = hand.page
    hand.click(page.get_by_role("button", name="Cancel"))
    hand.click(page.get_by_role("button", name="Cancel the job"))
    page.locator(".state.stopped").wait_for()


def promote_a_model(hand: Hand, model_id: str) -> None:
    """From the list of models: the version's name, its button, and the gate's verdict confirmed."""
    page = hand.page
    name, _, version = model_id.partition(":")
    hand.click(page.get_by_role("link", name=name, exact=True))
    row = page.get_by_role("row").filter(has_text=version)
    hand.click(row.get_by_role("button", name="Promote"))
    dialog = page.get_by_role("dialog")
    hand.click(dialog.get_by_role("button", name=re.compile("^Promote")))
    page.get_by_text(f"{model_id} is promoted.").wait_for()


def opened(page: Page, url: str, path: str) -> None:
    page.goto(f"{url}/{path}")
    page.locator("main .loading").first.wait_for(state="hidden")
