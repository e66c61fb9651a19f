"""Annotating outlives a killed server, a reload, a 401; people do not overwrite each other."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import OpenConsole
from tests.support.browsing import WAIT, Console
from tests.support.correction_app import drawn, packed
from tests.support.patience import PATIENCE
from tests.support.serving import Server

if TYPE_CHECKING:
    pass

TOKEN = "a-token-for-annotators"
ANN, BOB = "ann (unverified)", "bob (unverified)"
SIZE = (320, 240)
IMAGES = 8
seeds = count()


@pytest.fixture
def dataset(live: Server) -> str:
    """An upload of images alone, with two classes."""
    return made(live)


def made(server: Server, **headers: str) -> str:
    # an image that was annotated in another dataset is not in the queue
    images = {f"{n}.png": drawn(next(seeds), SIZE) for n in range(IMAGES)}
    files = {"file": ("images.zip", packed(images))}
    url, sent = f"{server.url}/api/datasets", {"classes": "car,dog"}
    answer = httpx.post(url, files=files, data=sent, headers=headers, timeout=PATIENCE)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def annotator(shown: Console, dataset: str, content: str = "", name: str = "ann") -> Page:
    """The annotator with an image, for a person of this name."""
    script = f"if (origin !== 'null') localStorage.setItem('visionloop.annotator', '{name}')"
    shown.context.add_init_script(script)
    page = shown.open(f"#/annotate/{dataset}{'/' + content if content else ''}")
    expect(state(page)).to_have_attribute("data-state", "saved")
    return page


def state(page: Page) -> Any:
    return page.locator(".annotate-saved")


def saved(page: Page) -> None:
    expect(state(page)).to_have_attribute("data-state", "saved")


def draw(page: Page, label: str = "1") -> None:
    """A box in the middle, by keys alone, with a class. Returns when it is shown."""
    before = objects(page).count()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")  # whatever was selected or begun
    page.keyboard.press("b")
    page.keyboard.press("b")
    page.keyboard.press(label)
    expect(objects(page)).to_have_count(before + 1)


def objects(page: Page) -> Any:
    return page.get_by_role("listbox", name="Objects").get_by_role("option")


def content_of(page: Page) -> str:
    return page.url.rpartition("/")[2]


def drafts(server: Server, dataset: str, **headers: str) -> dict[tuple[str, str], Any]:
    """Author and SHA-256 of an image → its draft, as the server has it."""
    url = f"{server.url}/api/datasets/{dataset}"
    listed = httpx.get(f"{url}/drafts", headers=headers, timeout=PATIENCE).json()["drafts"]
    found = {}
    for row in listed:
        draft = f"{url}/images/{row['content']}/draft"
        query = {"of": row["author"]}
        answer = httpx.get(draft, params=query, headers=headers, timeout=PATIENCE)
        found[row["author"], row["content"]] = answer.json()
    return found


def labels(draft: dict[str, Any]) -> list[str]:
    return [one["label"] for one in draft["objects"]]


@pytest.mark.smoke
def test_a_killed_gateway_loses_nothing(console: OpenConsole, live: Server, dataset: str) -> None:
    shown = console()
    shown.expects |= {0, 502, 503}
    page = annotator(shown, dataset)
    draw(page)
    saved(page)
    gateway = next(p for name, p in live.workers().items() if name == "VisionLoop")
    live.stop(signal.SIGKILL)
    assert not gateway.is_running()
    draw(page, "2")
    expect(state(page)).to_have_attribute("data-state", "offline")
    live.start()
    expect(state(page)).to_have_attribute("data-state", "saved", timeout=2 * WAIT)
    [draft] = drafts(live, dataset).values()
    assert labels(draft) == ["car", "dog"]


def test_a_page_that_is_left_while_the_server_is_away_loses_nothing(
    console: OpenConsole, live: Server, dataset: str
) -> None:
    shown = console()
    shown.expects |= {0, 502, 503}
    page = annotator(shown, dataset)
    live.stop(signal.SIGKILL)
    draw(page)
    expect(state(page)).to_have_attribute("data-state", "offline")
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto("about:blank")
    live.start()
    page = shown.open(f"#/annotate/{dataset}")
    expect(objects(page)).to_have_count(1)
    saved(page)
    [draft] = drafts(live, dataset).values()
    assert labels(draft) == ["car"]


def test_a_reload_shows_the_draft_with_all_its_objects(console: OpenConsole, dataset: str) -> None:
    page = annotator(console(), dataset)
    draw(page)
    draw(page, "2")
    saved(page)
    page.reload()
    expect(objects(page)).to_have_count(2)
    saved(page)


@pytest.fixture(scope="module")
def closed(new_home: Callable[[], Path]) -> Iterator[Server]:
    """A server that needs a token."""
    running = Server(new_home(), VISIONLOOP_TOKEN=TOKEN)
    try:
        yield running.start()
    finally:
        running.stop()


def sign_in(page: Page) -> None:
    page.get_by_role("textbox", name="Token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").last.click()


def test_work_outlives_a_401(console: OpenConsole, closed: Server) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    dataset = made(closed, **bearer)
    shown = console(url=closed.url)
    shown.expects |= {401}
    page = shown.page
    page.goto(f"{closed.url}/#/annotate/{dataset}")
    sign_in(page)
    saved(page)
    draw(page)
    saved(page)
    shown.context.clear_cookies()  # the session has expired
    draw(page, "2")
    expect(state(page)).to_have_attribute("data-state", "signed-out")
    sign_in(page)
    saved(page)
    expect(objects(page)).to_have_count(2)
    [draft] = drafts(closed, dataset, **bearer).values()
    assert labels(draft) == ["car", "dog"]


def test_two_windows_of_one_person_do_not_overwrite_each_other(
    console: OpenConsole, live: Server, dataset: str
) -> None:
    first, second = console(), console()
    second.expects |= {412}
    one = annotator(first, dataset)
    content = content_of(one)
    two = annotator(second, dataset, content)
    draw(one)
    saved(one)
    draw(two, "2")
    expect(state(two)).to_have_attribute("data-state", "conflict")
    dialog = two.get_by_role("dialog")
    expect(dialog).to_contain_text(ANN)
    assert labels(drafts(live, dataset)[ANN, content]) == ["car"]
    dialog.get_by_role("button", name="Take theirs").click()
    saved(two)
    expect(objects(two)).to_have_count(1)
    draw(two, "2")
    saved(two)
    assert labels(drafts(live, dataset)[ANN, content]) == ["car", "dog"]


def test_two_people_on_one_image_commit_and_the_second_is_asked(
    console: OpenConsole, live: Server, dataset: str
) -> None:
    first, second = console(), console()
    second.expects |= {409}
    one = annotator(first, dataset)
    content = content_of(one)
    two = annotator(second, dataset, content, "bob")
    draw(one)
    one.keyboard.press("Enter")
    draw(two, "2")
    two.keyboard.press("Enter")
    for page in (one, two):
        expect(page).not_to_have_url(content)
        saved(page)
    assert {author for author, _ in drafts(live, dataset)} == {ANN, BOB}
    commit(one, dataset)
    two.goto(f"{live.url}/#/data/{dataset}/queue")
    two.get_by_role("button", name="Commit… (1)").click()
    dialog = two.get_by_role("dialog")
    expect(dialog).to_contain_text(ANN)
    act = dialog.get_by_role("button", name="Commit", exact=True)
    expect(act).to_have_attribute("aria-disabled", "true")
    dialog.get_by_role("button", name="Mine replaces theirs").click()
    act.click()
    expect(dialog).to_contain_text("Revision 2 was made.")
    url = f"{live.url}/api/datasets/{dataset}/images/{content}/annotations"
    found = httpx.get(url, timeout=PATIENCE).json()
    assert (labels(found), found["by"]) == (["dog"], BOB)


def commit(page: Page, dataset: str) -> None:
    page.goto(f"{page.url.partition('#')[0]}#/data/{dataset}/queue")
    page.get_by_role("button", name="Commit… (").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("1 image becomes a revision")
    expect(dialog.get_by_role("row").nth(1)).to_contain_text(".png")
    dialog.get_by_role("button", name="Commit", exact=True).click()
    expect(dialog).to_contain_text("was made.")


def test_a_session_is_committed_and_its_difference_shown(
    console: OpenConsole, live: Server, dataset: str
) -> None:
    shown = console()
    page = annotator(shown, dataset)
    draw(page)
    page.keyboard.press("Enter")
    first = content_of(page)
    expect(objects(page)).to_have_count(0)
    page.keyboard.press("n")  # checked, nothing here
    expect(page).not_to_have_url(first)
    saved(page)
    page.keyboard.press("s")
    saved(page)
    page.goto(f"{live.url}/#/data/{dataset}/queue")
    expect(page.get_by_text("2 accepted, not committed")).to_be_visible()
    expect(page.get_by_text("1 skipped")).to_be_visible()
    assert shown.violations() == []
    page.get_by_role("button", name="Commit… (2)").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("2 images become one revision")
    expect(dialog).to_contain_text("nothing here")
    assert shown.violations() == []
    dialog.get_by_role("button", name="Commit", exact=True).click()
    dialog.get_by_role("link", name="Show what changed").click()
    expect(page.get_by_role("main")).to_contain_text(f"{dataset}@1")
    assert [draft["state"] for draft in drafts(live, dataset).values()] == ["skipped"]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_queue_is_accessible_and_fits_a_phone(
    console: OpenConsole, dataset: str, theme: str, language: str
) -> None:
    shown = console(theme=theme, language=language, width=360, height=740)
    shown.open(f"#/data/{dataset}/queue")
    expect(shown.page.locator(".queue-row")).to_have_count(IMAGES)
    assert shown.violations() == []
    assert shown.too_wide() == []
