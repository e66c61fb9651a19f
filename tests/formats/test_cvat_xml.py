"""CVAT's XML for images, as its exports look."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import ValidationFailed
from formats.annotations import NO_AREA, Annotation, Annotations, Keypoint
from formats.cvat_xml import from_cvat_xml
from formats.cvat_xml_writer import to_cvat_xml
from formats.geometry import area, as_outlines, fill_parts
from formats.xml_documents import xml_format
from tests.support.annotated_images import NAMES, POINTS, kept_by_cvat, pictures, same
from tests.support.examples import EXAMPLES

META = (
    "<version>1.1</version><meta><task><labels>"
    "<label><name>dog</name><type>any</type></label>"
    "<label><name>person</name><type>skeleton</type></label>"
    "<label><name>nose</name><type>points</type><parent>person</parent></label>"
    "<label><name>tail</name><type>points</type><parent>person</parent></label>"
    "</labels></task></meta>"
)


def document(shapes: str, image: str = 'id="7" name="a/b 1.jpg" width="100" height="80"') -> str:
    return f"<annotations>{META}<image {image}>{shapes}</image></annotations>"


def read(shapes: str) -> tuple[Annotation, ...]:
    (image,) = from_cvat_xml(document(shapes))
    return image.objects


@pytest.mark.properties
@given(found=st.lists(pictures(), max_size=3))
@settings(max_examples=EXAMPLES, deadline=None)
def test_what_cvat_can_hold_comes_back(found: list[Annotations]) -> None:
    kept = [kept_by_cvat(one) for one in found]
    again = from_cvat_xml(to_cvat_xml(kept, NAMES, POINTS, ["train"] * len(kept)))
    assert len(again) == len(kept)
    for one, other in zip(again, kept, strict=True):
        same(one, other)


def test_names_come_back_whatever_is_in_them() -> None:
    name = " a <b> & 'c' \"d\"\r\n\t 街 é.jpg "
    found = Annotations(name, 9, 9, (Annotation(' <dog> & "cat" ', box=(0, 0, 1.25, 9)),))
    text = to_cvat_xml([found], [' <dog> & "cat" '])
    assert from_cvat_xml(text) == from_cvat_xml(text.encode()) == [found]
    assert xml_format(text) == "cvat_xml"


def test_boxes_polygons_tags_and_empty_images_are_read() -> None:
    shapes = (
        '<box label="dog" source="manual" occluded="1" xtl="1.5" ytl="2" xbr="30" ybr="40" '
        'z_order="3"><attribute name="age">3</attribute></box>'
        '<polygon label="dog" occluded="0" points="1,1;9,1;9,9" z_order="0"/>'
        '<tag label="night" source="manual"/>'
    )
    box, shape, night = read(shapes)
    assert box == Annotation("dog", box=(1.5, 2, 30, 40))
    assert shape.parts[0].outline == ((1, 1), (9, 1), (9, 9))
    assert night == Annotation("night")
    (image,) = from_cvat_xml(document(""))
    assert (image.image, image.width, image.height, len(image)) == ("a/b 1.jpg", 100, 80, 0)
    assert from_cvat_xml("<annotations><version>1.1</version></annotations>") == []


def test_images_of_one_name_in_two_subsets_are_told_apart() -> None:
    head = 'width="9" height="9" id="1" name'
    text = (
        f'<annotations><image {head}="a.jpg" subset="train"/><image {head}="a.jpg" subset="val"/>'
        f'<image {head}="b.jpg" subset="val"/><image {head}="c.jpg"/></annotations>'
    )
    names = [one.image for one in from_cvat_xml(text)]
    assert names == ["train/a.jpg", "val/a.jpg", "b.jpg", "c.jpg"]


def test_a_turned_box_is_turned_clockwise_around_its_middle() -> None:
    (found,) = read('<box label="dog" xtl="40" ytl="35" xbr="60" ybr="45" rotation="30"/>')
    upper_left = found.parts[0].outline[0]
    turn = math.radians(30)
    wanted = (
        50 - 10 * math.cos(turn) + 5 * math.sin(turn),
        40 - 10 * math.sin(turn) - 5 * math.cos(turn),
    )
    assert upper_left == pytest.approx(wanted)


def test_an_ellipse_is_a_polygon_of_its_area_and_box() -> None:
    (found,) = read('<ellipse label="dog" cx="50" cy="40" rx="20" ry="10" rotation="90.0"/>')
    assert found.bounds == pytest.approx((40, 20, 60, 60))
    (outline,) = as_outlines(found.parts)
    assert abs(area(outline.outer)) == pytest.approx(math.pi * 200, rel=2e-3)


def test_masks_are_rows_of_runs_within_their_own_box() -> None:
    # . # #
    # # . #
    (found,) = read(
        '<mask label="dog" occluded="0" rle="1, 3, 1, 1" left="10" top="20" width="3" height="2"/>'
    )
    mask = fill_parts(as_outlines(found.parts), 100, 80)
    assert {(int(x), int(y)) for y, x in zip(*mask.nonzero(), strict=True)} == {
        (11, 20), (12, 20), (10, 21), (12, 21)
    }  # fmt: skip


def test_a_skeleton_has_the_points_of_its_label_in_order() -> None:
    shapes = (
        '<skeleton label="person" source="manual" z_order="0">'
        '<points label="tail" occluded="1" outside="0" points="5.00,6.00"/>'
        '<points label="nose" occluded="0" outside="1" points="1.00,1.00"/>'
        '<attribute name="a">b</attribute></skeleton>'
    )
    (found,) = read(shapes)
    assert found == Annotation(
        "person", keypoints=(Keypoint("nose", visibility=0), Keypoint("tail", 5, 6, 1))
    )


def test_a_skeleton_joins_the_only_shape_of_its_group_and_label() -> None:
    point = '<points label="nose" outside="0" occluded="0" points="5,6"/>'
    box = '<box label="person" xtl="1" ytl="2" xbr="3" ybr="4" group_id="{}"/>'
    skeleton = f'<skeleton label="person" group_id="{{}}">{point}</skeleton>'
    (whole,) = read(box.format(1) + skeleton.format(1))
    assert (whole.box, len(whole.keypoints)) == ((1, 2, 3, 4), 2)
    assert len(read(box.format(1) + box.format(1) + skeleton.format(1))) == 3
    assert len(read(box.format(0) + skeleton.format(0))) == 2
    assert len(read(box.format(1) + skeleton.format(2))) == 2
    two = read('<polygon label="dog" group_id="4" points="1,1;9,1;9,9"/>' * 2)
    assert len(two) == 2  # a group of dogs is no dog


def test_what_is_passed_over_is_counted() -> None:
    shapes = (
        '<polyline label="dog" points="1,1;2,2"/><points label="dog" points="1,1"/>'
        '<cuboid label="dog" xtl1="1"/><points label="dog" points="1,1;3,3"/>'
        '<mask label="dog" rle="4" left="0" top="0" width="2" height="2"/>'
        '<skeleton label="person"><points label="nose" outside="1" points="0,0"/></skeleton>'
        '<box label="dog" xtl="1" ytl="1" xbr="1" ybr="9"/>'
    )
    skipped: Counter[str] = Counter()
    (image,) = from_cvat_xml(document(shapes), skipped=skipped)
    assert not image.objects
    assert skipped == {
        "CVAT polylines": 1,
        "CVAT points without a skeleton": 2,
        "CVAT cuboids": 1,
        "empty CVAT masks": 1,
        "CVAT skeletons without a point inside the image": 1,
        NO_AREA: 1,
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<annotations><track id='0' label='x'/></annotations>", 'Export the task as "CVAT for'),
        ("<annotations><images/></annotations>", "unknown element <images>"),
        ("<annotation/>", "begins with <annotations>"),
        (document("", 'id="7" width="1" height="1"'), "Image 7 ('') has no name"),
        (document("", 'id="7" name="a" width="-1"'), "'width' must be a whole number"),
        (document("<star label='x'/>"), "Image 7 ('a/b 1.jpg'): shape 1 is a <star>"),
        (document("<box xtl='1' ytl='1' xbr='2' ybr='2'/>"), "shape 1 (box) has no label"),
        (document("<box label='x' xtl='1' ytl='1' xbr='2'/>"), "'ybr' must be a number"),
        (
            document("<box label='x' xtl='3' ytl='1' xbr='2' ybr='2'/>"),
            "corners in the wrong order",
        ),
        (document("<polygon label='x' points='1,1;2,2'/>"), "2 corners"),
        (document("<polygon label='x' points='1,1;2'/>"), "its points must be"),
        (document("<polygon label='x' points='1,1;2,inf;3,3'/>"), "its points must be"),
        (document("<ellipse label='x' cx='1' cy='1' rx='0' ry='1'/>"), "the radii 0 and 1"),
        (
            document("<mask label='x' rle='1, 2' left='0' top='0' width='2' height='2'/>"),
            "add up to its 2 × 2",
        ),
        (
            document("<mask label='x' rle='1' left='0.5' top='0' width='1' height='1'/>"),
            "'left' must be a whole number",
        ),
        (document("<skeleton label='x'><box/></skeleton>"), "element 1 must be <points>"),
        (
            document("<skeleton label='x'><points label='a' points='1,1;2,2'/></skeleton>"),
            "must be one point; got 2",
        ),
        ('<!DOCTYPE a [<!ENTITY b "b">]><annotations>&b;</annotations>', "DOCTYPE"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValidationFailed) as raised:
        from_cvat_xml(text)
    assert told in raised.value.message
