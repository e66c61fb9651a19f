"""The annotator: what is corrected and drawn, by mouse, by keys alone and by touch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.support.annotator import OpenAnnotator, Point, box_of, outline_of

if TYPE_CHECKING:
    pass


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
