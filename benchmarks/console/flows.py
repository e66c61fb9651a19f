"""Flows of those who train and promote, each as a script of a person in our console."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.console.person import Person

if TYPE_CHECKING:
    from playwright.sync_api import Page


def upload_a_dataset(person: Person, file: Path) -> None:
    """From the list of datasets until the report of the upload is read."""
    page = person.page
    person.click(page.get_by_role("link", name="Upload", exact=True))
    with page.expect_file_chooser() as chooser:
        person.click(page.get_by_role("button", name="Choose files"))
    chooser.value.set_files(file)  # the operating system's dialog is not counted
    page.get_by_role("link", name="Open the dataset").wait_for()


def start_a_training(person: Person, dataset: str) -> None:
    """From the list of jobs until the page of the new one is there."""
    page = person.page
    person.click(page.get_by_role("link", name="New training").first)
    person.click(page.get_by_role("link", name=re.compile("^Regular")))
    person.choose(page.get_by_label("Dataset"), dataset)
    person.click(page.get_by_role("button", name="Start training"))
    page.get_by_role("button", name="Cancel").wait_for()


def cancel_the_training(person: Person) -> None:
    """From the job's page until it has ended."""
    page = person.page
    person.click(page.get_by_role("button", name="Cancel"))
    person.click(page.get_by_role("button", name="Cancel the job"))
    page.locator(".state.stopped").wait_for()


def promote_a_model(person: Person, model_id: str) -> None:
    """From the list of models: the version's name, its button, and the gate's verdict confirmed."""
    page = person.page
    name, _, version = model_id.partition(":")
    person.click(page.get_by_role("link", name=name, exact=True))
    row = page.get_by_role("row").filter(has_text=version)
    person.click(row.get_by_role("button", name="Promote"))
    dialog = page.get_by_role("dialog")
    person.click(dialog.get_by_role("button", name=re.compile("^Promote")))
    page.get_by_text(f"{model_id} is promoted.").wait_for()


def opened(page: Page, url: str, path: str) -> None:
    page.goto(f"{url}/{path}")
    page.locator("main .loading").first.wait_for(state="hidden")
