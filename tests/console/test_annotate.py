"""The annotator: what is accepted, skipped, relabelled and undone, from the queue to its end."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import expect

from tests.support.annotator import OpenAnnotator, box_of
from tests.support.browsing import WAIT

if TYPE_CHECKING:
    pass


@pytest.mark.smoke
def test_enter_accepts_what_is_shown_and_goes_on(annotator: OpenAnnotator) -> None:
    opened = annotator()
    first = opened.content
    expect(opened.page.locator(".annotate-row")).to_have_count(3)
    opened.keys("Enter")
    opened.next_is_open(first)
    draft = opened.draft(lambda found: found["state"] == "accepted", first)
    assert [(o["label"], o["source"], o["score"]) for o in draft["objects"]] == [
        ("car", "person", None),
        ("dog", "person", None),
        ("dog", "person", None),
    ]


def test_suggestions_are_accepted_singly_or_from_a_score_and_hidden(
    annotator: OpenAnnotator,
) -> None:
    opened = annotator()
    opened.keys("j", "a")
    opened.says("Accepted")
    assert len(opened.draft(lambda found: len(found["objects"]) == 1)["objects"]) == 1
    opened.keys("t")
    slider = opened.page.get_by_role("slider", name="From score")
    expect(slider).to_be_focused()
    slider.fill("0.4")
    expect(opened.page.locator(".annotate-row")).to_have_count(2)
    opened.keys("h")
    expect(opened.page.locator(".annotate-row")).to_have_count(1)
    opened.keys("h", "Shift+A")
    opened.says("^Accepted$")
    opened.draft(lambda found: len(found["objects"]) == 2)


def test_skip_and_nothing_here_lead_on_to_the_end(annotator: OpenAnnotator) -> None:
    opened = annotator(images=2)
    first = opened.content
    opened.keys("s")
    opened.next_is_open(first)
    assert opened.draft(lambda found: found["state"] == "skipped", first)
    second = opened.content
    opened.keys("n")
    expect(opened.page.get_by_text("No image waits for you")).to_be_visible()
    draft = opened.draft(lambda found: found["state"] == "accepted", second)
    assert draft["objects"] == []
    assert opened.shown.violations() == []


@pytest.mark.smoke
def test_undo_leads_to_the_beginning_and_a_number_relabels(annotator: OpenAnnotator) -> None:
    opened = annotator()
    opened.keys("j", "2")
    opened.says("Class changed to person")
    assert opened.labels() == ["person", "dog", "dog"]
    opened.keys("Delete", "j", "Delete", "b", "b", "d")
    opened.draft(lambda found: len(found["objects"]) == 2)
    opened.keys(*["Control+z"] * 5)
    opened.says("Undone: change of class. 0 left")
    assert opened.labels() == ["car", "dog", "dog"]
    opened.keys("Control+z")
    opened.says("This is the beginning")
    opened.keys("Control+Shift+Z")
    opened.says("Redone: change of class")
    opened.draft(lambda found: [thing["label"] for thing in found["objects"]] == ["person"])


def test_work_survives_a_reload(annotator: OpenAnnotator) -> None:
    opened = annotator()
    opened.keys("j", "3", "Shift+ArrowRight")
    opened.says("dog moved to 110, 80")
    opened.draft(lambda found: len(found["objects"]) == 1 and box_of(found)[0] == 110)
    expect(opened.page.locator(".annotate-saved")).to_have_text("Saved")
    opened.page.reload()
    opened.says("1 objects, 3 predictions hidden")
    opened.keys("j")
    opened.says("1 of 1: dog, box$")
    opened.keys("h")
    expect(opened.page.locator(".annotate-row")).to_have_count(4)


def test_a_new_class_is_added_in_place(annotator: OpenAnnotator) -> None:
    opened = annotator()
    opened.keys("j", "c")
    field = opened.page.get_by_role("searchbox", name="Find or add a class")
    expect(field).to_be_focused()
    field.fill("lorry")
    opened.page.get_by_role("button", name="Add class “lorry”").click()
    opened.says("Class changed to lorry")
    assert opened.labels() == ["lorry", "dog", "dog"]
    opened.keys("c")
    field.fill("per")
    opened.keys("Enter")
    opened.says("Class changed to person")


def test_shapes_are_copied_to_the_next_image(annotator: OpenAnnotator) -> None:
    opened = annotator(objects=[])
    opened.keys("b", "b", "Control+c")
    opened.says("Copied")
    first = opened.content
    opened.keys("Enter")
    opened.next_is_open(first)
    opened.keys("Control+v")
    opened.says("Pasted")
    opened.draft(lambda found: len(found["objects"]) == 1)


def test_classes_of_an_image_are_chosen_by_keys(annotator: OpenAnnotator) -> None:
    opened = annotator("classify")
    expect(opened.page.locator(".annotate-chosen")).to_have_text("dog 70 %")
    opened.keys("1")
    opened.says("The image is: car")
    expect(opened.page.locator(".annotate-chosen")).to_have_text("car")
    first = opened.content
    opened.keys("Enter")
    opened.next_is_open(first)
    draft = opened.draft(lambda found: found["state"] == "accepted", first)
    assert [thing["label"] for thing in draft["objects"]] == ["car"]


def test_the_keys_are_listed_and_letters_can_be_switched_off(annotator: OpenAnnotator) -> None:
    opened = annotator()
    opened.keys("?")
    dialog = opened.page.get_by_role("dialog", name="Keys")
    expect(dialog.get_by_text("a box in the middle, then arrows")).to_be_visible()
    assert opened.shown.violations() == []
    dialog.get_by_role("switch", name="Keys without Ctrl").uncheck()
    opened.keys("Escape", "j")
    expect(opened.page.locator(".annotate-row[aria-selected=true]")).to_have_count(0)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_annotator_is_accessible(annotator: OpenAnnotator, theme: str, language: str) -> None:
    opened = annotator("pose", theme=theme, language=language)
    opened.keys("j", "v")
    assert opened.shown.violations() == []


@pytest.mark.smoke
def test_on_a_phone_the_panel_is_a_drawer(annotator: OpenAnnotator) -> None:
    opened = annotator(width=360, height=740)
    assert opened.shown.too_wide() == []
    panel = opened.page.get_by_role("complementary", name="Tools and objects")
    expect(panel).to_be_hidden()
    opened.page.get_by_role("button", name="Tools and objects", exact=True).click()
    expect(panel).to_be_visible()
    assert opened.shown.too_wide() == []
    assert opened.shown.violations() == []
    panel.get_by_role("button", name="Close tools and objects").click()
    expect(panel).to_be_hidden()


def test_two_windows_do_not_overwrite_each_other(annotator: OpenAnnotator) -> None:
    opened = annotator()
    opened.shown.expects.add(412)
    opened.keys("j", "a")
    first = opened.draft(lambda found: len(found["objects"]) == 1)
    thing = first["objects"][0] | {"label": "person"}
    sent = {"objects": [thing, thing | {"id": "other"}], "base": first["base"], "state": "draft"}
    answer = httpx.put(
        f"{opened.server.url}/api/datasets/{opened.dataset}/images/{opened.content}/draft",
        json=sent,
        headers={"If-Match": first["etag"], "X-Annotator": first["author"].split()[0]},
    )
    assert answer.status_code == 200, answer.text
    opened.keys("ArrowRight")
    dialog = opened.page.get_by_role("dialog", name="Someone else changed this image")
    expect(dialog).to_be_visible(timeout=WAIT)
    assert opened.shown.violations() == []
    dialog.get_by_role("button", name="Take theirs").click()
    opened.says("2 objects, 3 predictions hidden")
    assert opened.labels() == ["person", "person"]
    expect(opened.page.locator(".annotate-saved")).to_have_text("Saved")


def test_nothing_is_lost_while_the_server_is_away(annotator: OpenAnnotator) -> None:
    opened = annotator()
    opened.shown.expects.update({0, 502, 503})
    opened.server.stop(signal.SIGKILL)
    saved = opened.page.locator(".annotate-saved")
    opened.keys("j", "2", "Shift+ArrowRight")
    opened.says("person moved to 110, 80")
    expect(saved).to_have_text("Offline: kept in this browser", timeout=WAIT)
    first = opened.content
    opened.keys("Enter")  # the next image is already there
    opened.next_is_open(first)
    opened.keys("b", "b")
    opened.server.start()
    expect(saved).to_have_text("Saved", timeout=WAIT)
    draft = opened.draft(lambda found: found["state"] == "accepted", first)
    assert [thing["label"] for thing in draft["objects"]] == ["person", "dog", "dog"]
    assert box_of(draft)[0] == 110
    opened.draft(lambda found: len(found["objects"]) == 1)
