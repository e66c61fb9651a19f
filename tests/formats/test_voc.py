"""Pascal VOC as its tools write it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings

from errors import ValidationFailed
from formats.annotations import NO_AREA, Annotation, Annotations, Keypoint
from formats.voc import BODY_PARTS, from_voc, to_voc
from formats.xml_documents import xml_format
from tests.support.annotated_images import kept_by_voc, pictures, same
from tests.support.examples import EXAMPLES

BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30.5</xmax><ymax>40</ymax></bndbox>"


def document(inside: str = "", source: str = "Unknown", head: str = "") -> str:
    return (
        f"{head}<annotation><folder>x</folder><filename>a.jpg</filename><path>C:\\x\\a.jpg</path>"
        f"<source><database>{source}</database></source>"
        "<size><width>100</width><height>80</height><depth>3</depth></size>"
        f"<segmented>0</segmented>{inside}</annotation>"
    )


def thing(inside: str, name: str = "dog") -> str:
    return f"<object><name>{name}</name><pose>Left</pose><difficult>1</difficult>{inside}</object>"


@pytest.mark.properties
@given(found=pictures())
@settings(max_examples=EXAMPLES, deadline=None)
def test_what_voc_can_hold_comes_back(found: Annotations) -> None:
    kept = kept_by_voc(found)
    same(from_voc(to_voc(kept)), kept)


def test_names_come_back_whatever_is_in_them() -> None:
    name = " a <b> & 'c' \"d\"\r\n\t 街 é.jpg "
    found = Annotations(name, 9, 9, (Annotation("<dog> & ]]>", box=(0, 0, 1.25, 9)),))
    assert from_voc(to_voc(found)) == found
    assert from_voc(to_voc(found).encode()) == found


def test_edges_count_from_zero_as_annotation_tools_write_them() -> None:
    (found,) = from_voc(document(thing(BOX))).objects
    assert found == Annotation("dog", box=(1, 2, 30.5, 40))


@pytest.mark.parametrize("source", ["PASCAL VOC2007", "roboflow.ai"])
def test_the_challenge_and_roboflow_count_pixels_from_one(source: str) -> None:
    polygon = "<polygon><x1>1</x1><y1>1</y1><x2>9</x2><y2>1</y2><x3>9</x3><y3>9</y3></polygon>"
    box, shape = from_voc(document(thing(BOX) + thing(BOX + polygon), source)).objects
    assert box.box == (0, 1, 30.5, 40)
    assert shape.box is None
    assert shape.parts[0].outline == ((0, 0), (8, 0), (8, 8))


def test_a_number_below_one_shows_that_a_document_counts_from_zero() -> None:
    zero = BOX.replace("<xmin>1<", "<xmin>0<")
    one, other = from_voc(document(thing(BOX) + thing(zero), "PASCAL VOC2012")).objects
    assert (one.box, other.box) == ((1, 2, 30.5, 40), (0, 2, 30.5, 40))


def test_polygons_of_the_web_tool_and_turned_boxes_are_read() -> None:
    points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((1, 1), (9, 1), (9, 9), (1, 9)))
    web = f"<deleted>0</deleted><polygon><username>me</username>{points}</polygon>"
    turned = "<robndbox><cx>50</cx><cy>40</cy><w>20</w><h>10</h><angle>1.5707963</angle></robndbox>"
    quad = "".join(
        f"<x{i}>{x}</x{i}><y{i}>{y}</y{i}>"
        for i, (x, y) in enumerate([(5, 0), (9, 5), (5, 9), (0, 5)], 1)
    )
    inside = (
        thing(web)
        + thing(f"<type>bounding_box</type>{web}")
        + thing(turned)
        + thing(f"<bndbox>{quad}</bndbox>")
    )
    shape, box, upright, corners = from_voc(document(inside)).objects
    assert shape.parts[0].outline == ((1, 1), (9, 1), (9, 9), (1, 9))
    assert box == Annotation("dog", box=(1, 1, 9, 9))
    assert upright.bounds == pytest.approx((45, 30, 55, 50), abs=1e-4)
    assert corners.parts[0].outline == ((5, 0), (9, 5), (5, 9), (0, 5))


def test_a_turned_box_goes_clockwise() -> None:
    quarter = math.pi / 6
    box = f"<robndbox><cx>50</cx><cy>40</cy><w>20</w><h>0.02</h><angle>{quarter}</angle></robndbox>"
    (found,) = from_voc(document(thing(box))).objects
    x, y = found.parts[0].outline[1]  # what was its right end
    assert (x, y) == pytest.approx((50 + 10 * math.cos(quarter), 40 + 5), abs=0.02)


def test_what_is_passed_over_is_counted() -> None:
    part = f"<part><name>head</name>{BOX}</part>"
    deleted = thing(f"<deleted>1</deleted>{BOX}")
    skipped: Counter[str] = Counter()
    flat = thing(BOX.replace("30.5", "1"))
    found = from_voc(document(thing(BOX + part + part) + deleted + flat), skipped=skipped)
    assert len(found) == 1
    assert skipped == {BODY_PARTS: 2, "objects marked as deleted": 1, NO_AREA: 1}


def test_a_size_that_is_not_there_is_zero() -> None:
    plain = document().replace("<width>100</width><height>80</height>", "")
    assert (from_voc(plain).width, from_voc(plain).height) == (0, 0)
    zero = document().replace("100", "0").replace("80", "0")
    assert (from_voc(zero).width, from_voc(zero).height) == (0, 0)
    web = plain.replace(
        "<size>", "<imagesize><nrows>80</nrows><ncols>100</ncols></imagesize><size>"
    )
    assert (from_voc(web).width, from_voc(web).height) == (100, 80)


def test_the_path_names_the_image_where_filename_does_not() -> None:
    assert from_voc(document().replace("<filename>a.jpg</filename>", "")).image == "a.jpg"
    assert from_voc(document().replace("<filename>a.jpg<", "<filename>a<")).image == "a.jpg"
    assert from_voc(document().replace("<filename>a.jpg<", "<filename>b.png<")).image == "b.png"
    itself = document().replace("<filename>a.jpg<", "<filename>a<").replace("x\\a.jpg", "x\\a.xml")
    assert from_voc(itself).image == "a"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gbk", "shift-jis"])
def test_documents_in_the_encoding_that_they_declare(encoding: str) -> None:
    declared = {"utf-8-sig": "utf-8"}.get(encoding, encoding)
    text = document(thing(BOX, "犬"), head=f'<?xml version="1.0" encoding="{declared}"?>')
    data = text.encode(encoding)
    assert xml_format(data) == "voc"
    assert from_voc(data).objects[0].label == "犬"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (document(thing("")), "Object 1 ('dog') has no shape"),
        (document(thing("<part><name>x</name>" + BOX + "</part>")), "has no shape"),
        (document("<object>" + BOX + "</object>"), "has no class"),
        (document(thing(BOX.replace("30.5", "0"))), "corners in the wrong order"),
        (document(thing(BOX.replace("30.5", "nan"))), "<xmax> of its <bndbox> must be a number"),
        (document(thing("<bndbox><x>1</x><y>2</y></bndbox>")), "<xmin> of its <bndbox>"),
        (document(thing("<polygon><x1>1</x1><y1>2</y1></polygon>")), "1 corners"),
        (document(thing("<polygon><a/><b/></polygon>")), "<x1> of its <polygon>"),
        (document().replace("100", "1e2.5"), "whole numbers of pixels"),
        ("<annotations/>", "begins with <annotation>"),
        ("{}", "not valid XML"),
        ("<annotation><object></annotation>", "not valid XML"),
        ("<annotation>" + "<a>" * 101, "levels of nested values"),
        ('<!DOCTYPE a [<!ENTITY b "b">]><annotation>&b;</annotation>', "DOCTYPE"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "DOCTYPE"),
        (" " * (64 * 2**20 + 1), "64 MiB"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValidationFailed) as raised:
        from_voc(text)
    assert told in raised.value.message


@pytest.mark.parametrize("encoding", ["none-such", "hex", "undefined"])
def test_an_encoding_that_is_none_of_texts_is_refused(encoding: str) -> None:
    data = document(thing(BOX), head=f'<?xml version="1.0" encoding="{encoding}"?>').encode()
    assert xml_format(data) == "voc"
    with pytest.raises(ValidationFailed, match="does not have the encoding that it declares"):
        from_voc(data)


def test_text_in_an_encoding_that_is_not_declared_is_refused() -> None:
    with pytest.raises(ValidationFailed, match="UTF-8"):
        from_voc(document(thing(BOX, "狗")).encode("gbk"))


def test_what_voc_cannot_hold_is_refused_with_the_formats_that_can() -> None:
    found = Annotations("a.jpg", 9, 9, (Annotation("night"),))
    posed = replace(found, objects=(Annotation("dog", keypoints=(Keypoint("nose", 1, 1),)),))
    for impossible, what in ((found, "class of an image"), (posed, "keypoints")):
        with pytest.raises(ValidationFailed, match=f"{what}.*label_studio.*cvat_xml"):
            to_voc(impossible)
    with pytest.raises(ValidationFailed, match="XML cannot represent the character"):
        to_voc(replace(found, image="a\x07.jpg", objects=()))
