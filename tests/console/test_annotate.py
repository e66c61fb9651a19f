"""The annotator: what is accepted, corrected and drawn, by mouse, by keys alone and by touch."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.sync_api import expect

from models_store.description import Task
from tests.console.conftest import OpenConsole
from tests.support.browsing import WAIT, Console
from tests.support.prelabelled import SIZE, drawn_images, prelabelled
from tests.support.serving import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

MARGIN = 16  # pixels around a fitted image
Point = tuple[float, float]


@dataclass(frozen=True)
class Annotator:
    """The annotator on a dataset of its own: images with a model's predictions."""

    shown: Console
    server: Server
    dataset: str

    @property
    def page(self) -> Page:
        return self.shown.page

    @property
    def content(self) -> str:
        """SHA-256 of the open image."""
        return self.page.url.rpartition("/")[2]

    def at(self, x: float, y: float) -> Point:
        """Where a point of the fitted image is on the page."""
        box = self.page.locator(".annotate-stage").bounding_box()
        assert box is not None
        room = (box["width"] - 2 * MARGIN, box["height"] - 2 * MARGIN)
        scale = min(room[0] / SIZE[0], room[1] / SIZE[1], 8)
        left = box["x"] + (box["width"] - SIZE[0] * scale) / 2
        top = box["y"] + (box["height"] - SIZE[1] * scale) / 2
        return left + x * scale, top + y * scale

    def click(self, x: float, y: float) -> None:
        self.page.mouse.click(*self.at(x, y))

    def drag(self, start: Point, end: Point) -> None:
        self.page.mouse.move(*self.at(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*end), steps=4)
        self.page.mouse.up()

    def keys(self, *names: str) -> None:
        for name in names:
            self.page.keyboard.press(name)

    def says(self, pattern: str) -> None:
        """Wait until the live region says it."""
        expect(self.page.locator(".annotate-said")).to_have_text(re.compile(pattern))

    def labels(self) -> list[str]:
        return self.page.locator(".annotate-row .grow").all_text_contents()

    def draft(self, fits: Callable[[dict[str, Any]], bool], content: str = "") -> dict[str, Any]:
        """The draft on the server, once it is as expected."""
        dataset = f"{self.server.url}/api/datasets/{self.dataset}"
        content = content or self.content
        deadline = time.monotonic() + WAIT / 1000
        found: Any = None
        while time.monotonic() < deadline:
            listed = httpx.get(f"{dataset}/drafts", params={"content": content}, timeout=60).json()
            for row in listed["drafts"]:
                of = {"of": row["author"]}
                found = httpx.get(f"{dataset}/images/{content}/draft", params=of, timeout=60).json()
                if fits(found):
                    return dict(found)
            time.sleep(0.1)
        raise AssertionError(f"the draft stayed {found}")

    def next_is_open(self, content: str) -> None:
        """Wait until another image than this one is open."""
        expect(self.page).not_to_have_url(re.compile(content))
        self.says("objects")


OpenAnnotator = Callable[..., Annotator]


@pytest.fixture
def annotator(console: OpenConsole, live: Server) -> OpenAnnotator:
    """Opens the annotator on the queue of a new dataset."""

    def make(task: Task = "detect", images: int = 3, **options: Any) -> Annotator:
        objects = options.pop("objects", None)
        dataset = prelabelled(live.home, task, task, drawn_images(images), objects)
        shown = console(**options)
        shown.open(f"#/annotate/{dataset}")
        found = Annotator(shown, live, dataset)
        found.page.locator(".annotate-stage").wait_for()
        return found

    return make


def box_of(draft: dict[str, Any], index: int = 0) -> list[int]:
    return [round(value) for value in draft["objects"][index]["box"]]


def outline_of(draft: dict[str, Any]) -> list[tuple[int, int]]:
    return [(round(x), round(y)) for x, y in draft["objects"][0]["parts"][0]["outline"]]


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


def test_a_box_is_corrected_by_mouse(annotator: OpenAnnotator) -> None:
    opened = annotator()
    opened.click(160, 130)
    opened.says("1 of 3: car, box, suggested with 91 %")
    opened.drag((220, 180), (260, 210))
    opened.says("car resized to 160 × 130")
    opened.drag((180, 150), (200, 160))
    opened.says("car moved to 120, 90")
    draft = opened.draft(lambda found: box_of(found)[0] != 100)
    assert box_of(draft) == pytest.approx([120, 90, 280, 220], abs=1)
    opened.keys("b")
    opened.drag((20, 300), (90, 360))
    opened.says("car: box drawn")
    assert box_of(opened.draft(lambda found: len(found["objects"]) == 2), 1) == pytest.approx(
        [20, 300, 90, 360], abs=1
    )


def test_a_box_is_corrected_and_drawn_by_keys_alone(annotator: OpenAnnotator) -> None:
    opened = annotator()
    opened.keys("j", "ArrowRight", "Shift+ArrowDown", "Alt+ArrowRight", "Alt+Shift+ArrowDown")
    opened.says("car resized to 121 × 110")
    opened.keys("v", "ArrowLeft")
    opened.says("Corner of the box at 100, 90")
    draft = opened.draft(lambda found: box_of(found) == [100, 90, 222, 200])
    assert draft["objects"][0]["source"] == "person"
    opened.keys("Escape", "Escape", "b", "b", "2", "Shift+ArrowLeft")
    opened.says("person moved")
    draft = opened.draft(lambda found: len(found["objects"]) == 2)
    assert opened.draft(lambda found: found["objects"][1]["label"] == "person")


def test_corners_of_a_polygon_are_moved_inserted_and_deleted_by_mouse(
    annotator: OpenAnnotator,
) -> None:
    opened = annotator("segment")
    opened.click(215, 115)
    opened.drag((320, 220), (350, 250))
    opened.says("Corner 3 of 4 at 350, 250")
    opened.drag((260, 100), (260, 60))  # the middle of an edge
    opened.says("Corner 2 of 5 at 260, 60")
    opened.drag((240, 140), (230, 130))  # of the hole
    opened.says("Hole, corner 1 of 4 at 230, 130")
    draft = opened.draft(lambda found: len(outline_of(found)) == 5)
    assert outline_of(draft) == [(200, 100), (260, 60), (320, 100), (350, 250), (200, 220)]
    opened.page.keyboard.down("Alt")
    opened.click(260, 60)
    opened.page.keyboard.up("Alt")
    opened.says("Corner deleted; 4 are left")
    draft = opened.draft(lambda found: len(outline_of(found)) == 4)
    hole = draft["objects"][0]["parts"][0]["holes"][0]
    assert [round(value) for value in hole[0]] == pytest.approx([230, 130], abs=1)


def test_corners_of_a_polygon_are_moved_inserted_and_deleted_by_keys_alone(
    annotator: OpenAnnotator,
) -> None:
    opened = annotator("segment")
    opened.keys("j", "v", "Shift+ArrowLeft")
    opened.says("Corner 1 of 4 at 190, 100")
    opened.keys("i")
    opened.says("Corner 2 inserted; 5 corners")
    opened.keys("Shift+ArrowUp")
    opened.says("Corner 2 of 5 at 255, 90")
    draft = opened.draft(lambda found: len(found["objects"]) == 1 and len(outline_of(found)) == 5)
    opened.keys("Delete")
    opened.says("Corner deleted; 4 are left")
    draft = opened.draft(lambda found: len(outline_of(found)) == 4)
    assert outline_of(draft) == [(190, 100), (320, 100), (320, 220), (200, 220)]


def test_a_polygon_is_drawn_by_clicks_and_by_keys_alone(annotator: OpenAnnotator) -> None:
    opened = annotator("segment", objects=[])
    opened.keys("p")
    for place in ((50, 50), (150, 50), (150, 150)):
        opened.click(*place)
    opened.says("3 corners")
    opened.click(50, 50)  # closes it
    opened.says("car: polygon drawn")
    opened.keys("p", "i", "Shift+ArrowRight", "i", "Shift+ArrowDown", "Space")
    opened.says("3 corners")
    opened.keys("Enter")
    opened.says("car: polygon drawn")
    draft = opened.draft(lambda found: len(found["objects"]) == 2)
    assert outline_of(draft) == [(50, 50), (150, 50), (150, 150)]
    corners = draft["objects"][1]["parts"][0]["outline"]
    (x, y), *rest = corners
    assert rest == [[x + 10, y], [x + 10, y + 10]]


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


def test_keypoints_are_moved_placed_and_made_absent(annotator: OpenAnnotator) -> None:
    opened = annotator("pose")
    opened.click(205, 250)
    opened.drag((250, 300), (260, 320))
    opened.says("hand, visible, at 260, 320")
    opened.keys("o")
    opened.says("hand, occluded")
    opened.keys("o")
    opened.says("hand: absent")
    opened.keys("m")
    expect(opened.page.get_by_text("Click to place: hand")).to_be_visible()
    opened.click(240, 310)
    opened.says("hand, visible, at 240, 310")
    draft = opened.draft(lambda found: round(found["objects"][0]["keypoints"][1]["x"]) == 240)
    points = draft["objects"][0]["keypoints"]
    assert [(p["name"], p["visibility"]) for p in points] == [("nose", 2), ("hand", 2), ("foot", 2)]


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


def test_two_fingers_zoom_and_one_pans(annotator: OpenAnnotator) -> None:
    opened = annotator(has_touch=True)
    session = opened.page.context.new_cdp_session(opened.page)
    x, y = opened.at(320, 240)

    def touch(kind: str, *points: Point) -> None:
        places = [{"x": px, "y": py, "id": number} for number, (px, py) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    zoom = opened.page.locator(".annotate-zoom .button:not(.alone)")
    before = int(str(zoom.text_content()).split()[0])
    touch("touchStart", (x - 50, y), (x + 50, y))
    for spread in (70, 90, 110, 130, 150):
        touch("touchMove", (x - spread, y), (x + spread, y))
    touch("touchEnd")
    expect(zoom).not_to_have_text(f"{before} %")
    assert int(str(zoom.text_content()).split()[0]) == pytest.approx(3 * before, rel=0.1)
    assert opened.labels() == ["car", "dog", "dog"]
    image = opened.page.locator(".annotate-image img")
    placed = image.evaluate("image => image.style.transform")
    touch("touchStart", (x, y))
    touch("touchMove", (x + 30, y + 30))
    touch("touchMove", (x + 60, y + 60))
    touch("touchEnd")
    assert image.evaluate("image => image.style.transform") != placed


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


def test_the_view_is_zoomed_about_the_cursor_and_panned_with_space(
    annotator: OpenAnnotator,
) -> None:
    opened = annotator()
    page = opened.page
    zoom = page.locator(".annotate-zoom .button:not(.alone)")
    fitted = str(zoom.text_content())
    page.mouse.move(*opened.at(160, 130))
    page.mouse.wheel(0, -300)
    expect(zoom).not_to_have_text(fitted)
    page.mouse.down()  # the box is still under the cursor
    page.mouse.up()
    opened.says("1 of 3: car, box")
    image = page.locator(".annotate-image img")
    placed = image.evaluate("image => image.style.transform")
    page.keyboard.down("Space")
    opened.drag((300, 200), (340, 220))
    page.keyboard.up("Space")
    assert image.evaluate("image => image.style.transform") != placed
    opened.says("1 of 3: car, box")  # nothing was moved
    opened.keys("Shift+F")
    expect(zoom).to_have_text("100 %")
    opened.keys("f")
    expect(zoom).to_have_text(fitted)


def test_edges_take_corners_by_double_click_and_polygons_are_drawn_freehand(
    annotator: OpenAnnotator,
) -> None:
    opened = annotator("segment")
    opened.click(215, 115)
    opened.page.mouse.dblclick(*opened.at(200, 130))
    opened.says("Corner 5 inserted; 5 corners|Corner 1 inserted; 5 corners")
    opened.keys("p")
    page = opened.page
    page.mouse.move(*opened.at(400, 300))
    page.mouse.down()
    for x, y in ((400, 300), (440, 300), (480, 320), (480, 360), (440, 380), (402, 302)):
        page.mouse.move(*opened.at(x, y), steps=3)
    page.mouse.up()
    opened.says("car: polygon drawn")
    draft = opened.draft(lambda found: len(found["objects"]) == 2)
    assert len(draft["objects"][1]["parts"][0]["outline"]) > 5


def test_several_objects_are_selected_moved_and_deleted_together(annotator: OpenAnnotator) -> None:
    opened = annotator()
    opened.click(160, 130)
    opened.page.keyboard.down("Shift")
    opened.click(420, 320)
    opened.page.keyboard.up("Shift")
    opened.says("2 selected")
    opened.keys("Shift+ArrowLeft")
    draft = opened.draft(lambda found: len(found["objects"]) == 2)
    assert [box_of(draft, index)[0] for index in (0, 1)] == [90, 350]
    opened.keys("Control+a", "Delete")
    opened.says("3 deleted")
    opened.draft(lambda found: found["objects"] == [])


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
