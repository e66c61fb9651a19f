from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.label_files import ABSENT, BadLine, LabelFormat, LabelRow, as_text, parse, parse_line
from models_store.description import Task

BOX = LabelFormat("detect", 3)
POLYGON = LabelFormat("segment", 3)
POSE = LabelFormat("pose", 1, (2, 3))
FLAT = LabelFormat("pose", 1, (2, 2))


@pytest.mark.parametrize(
    ("line", "label_format", "values", "kinds"),
    [
        ("1 .5 .5 .2 .4", BOX, (0.5, 0.5, 0.2, 0.4), []),
        ("  1.0\t.5 .5 .2 .4  \r", BOX, (0.5, 0.5, 0.2, 0.4), []),
        ("1 .5 .5 .2 .4 .93", BOX, (0.5, 0.5, 0.2, 0.4), ["confidence"]),
        ("1 .9 .5 .4 .4", BOX, (0.85, 0.5, 0.3, 0.4), ["clipped"]),
        ("1 .1 .1 .5 .1 .5 .3", BOX, (0.3, 0.2, 0.4, 0.2), ["polygon_as_box"]),
        ("1 .1 .1 .5 .1 .5 .3", POLYGON, (0.1, 0.1, 0.5, 0.1, 0.5, 0.3), []),
        ("1 -.1 .1 .5 .1 .5 .3", POLYGON, (0.0, 0.1, 0.5, 0.1, 0.5, 0.3), ["clipped"]),
        (
            "1 .5 .5 .2 .4",
            POLYGON,
            (0.4, 0.3, 0.6, 0.3, 0.6, 0.7, 0.4, 0.7),
            ["box_as_polygon"],
        ),
        (
            "0 .5 .5 .2 .4 .5 .5 2 7 7 0",
            POSE,
            (0.5, 0.5, 0.2, 0.4, 0.5, 0.5, 2, 0, 0, 0),
            [],
        ),
        (
            "0 .5 .5 .2 .4 .5 .5 -1 -1",
            FLAT,
            (0.5, 0.5, 0.2, 0.4, 0.5, 0.5, ABSENT, ABSENT),
            [],
        ),
        (
            "0 .5 .5 .2 .4 .5 .5 2 .6 .6 1",
            LabelFormat("detect", 1, (2, 3)),
            (0.5, 0.5, 0.2, 0.4),
            ["pose_as_box"],
        ),
    ],
)
def test_a_line_means_what_its_task_says(
    line: str, label_format: LabelFormat, values: tuple[float, ...], kinds: list[str]
) -> None:
    row, _, notes = parse_line(line, label_format)
    assert row.values == pytest.approx(values)
    assert [kind for kind, _ in notes] == kinds


@pytest.mark.parametrize(
    ("line", "label_format", "kind", "said"),
    [
        ("stop .5 .5 .2 .4", BOX, "malformed_line", "not consist of numbers only"),
        ("1 .5 .5 .2 nan", BOX, "malformed_line", "not consist of numbers only"),
        ("1 .5 .5 .2 inf", BOX, "malformed_line", "not consist of numbers only"),
        ("1,.5,.5,.2,.4", BOX, "malformed_line", "not consist of numbers only"),
        ("1 .5 .5", BOX, "malformed_line", "3 columns"),
        ("1 .5 .5 .2 .4 .5 .5 .5", BOX, "malformed_line", "8 columns"),
        ("0.5 .5 .5 .2 .4", BOX, "malformed_line", "not a whole number"),
        ("3 .5 .5 .2 .4", BOX, "class_id", "class id 3, but the ids are 0 to 2"),
        ("-1 .5 .5 .2 .4", BOX, "class_id", "class id -1"),
        ("1e300 .5 .5 .2 .4", BOX, "class_id", "class id"),
        ("1 320 240 64 48", BOX, "outside", "not 0 to 1"),
        ("1 1.2 .5 .1 .1", BOX, "outside", "1.2"),
        ("1 .5 .5 0 .4", BOX, "degenerate", "0 × 0.4"),
        ("1 .5 .5 -.2 .4", BOX, "degenerate", "-0.2"),
        ("1 .1 .1 .5 .1 .9 .1", POLYGON, "degenerate", "polygon"),
        ("0 .5 .5 .2 .4", POSE, "wrong_form", "2 keypoints need 11"),
        ("0 .5 .5 .2 .4 .5 .5 2 .6 .6 9", POSE, "malformed_line", "visibility 9"),
        (
            "0 .5 .5 .2 .4 .5 .5 2 .6 .6 1",
            LabelFormat("segment", 1, (2, 3)),
            "wrong_form",
            "polygon",
        ),
    ],
)
def test_a_bad_line_is_told_apart(
    line: str, label_format: LabelFormat, kind: str, said: str
) -> None:
    with pytest.raises(BadLine, match=said) as caught:
        parse_line(line, label_format)
    assert caught.value.kind == kind


def test_a_file_is_read_line_by_line_and_says_where() -> None:
    parsed = parse(b"0 .5 .5 .2 .4\n\nx\n9 .5 .5 .2 .4\n0 .5 .5 .2 .4\n", BOX)
    assert [row.cls for row in parsed.rows] == [0]
    assert [(issue.line, issue.kind) for issue in parsed.issues] == [
        (3, "malformed_line"),
        (4, "class_id"),
        (0, "repeated_line"),
    ]
    assert parsed.rewritten


@pytest.mark.parametrize(
    ("data", "rewritten"),
    [
        (b"", False),
        (b"1 .5 .5 .2 .4\n", False),
        (b"1 .5 .5 .2 .4\r\n", True),
        (b"\xef\xbb\xbf1 .5 .5 .2 .4\n", True),
        (b"\xff\xfe1\x00", True),
        (b"1 .1 .1 .5 .1 .5 .3\n", True),
    ],
)
def test_what_trainers_would_read_otherwise_is_rewritten(data: bytes, rewritten: bool) -> None:
    assert parse(data, BOX).rewritten is rewritten


@given(
    st.binary(max_size=300),
    st.sampled_from([BOX, POLYGON, POSE, FLAT]),
)
def test_any_bytes_are_read_without_an_exception(data: bytes, label_format: LabelFormat) -> None:
    assert_sound(parse(data, label_format).rows, label_format)


numbers = st.floats(-3, 3, allow_nan=False).map(lambda value: f"{value:.5f}")


@given(
    st.lists(st.tuples(st.integers(-1, 4), st.lists(numbers, max_size=14)), max_size=6),
    st.sampled_from([BOX, POLYGON, POSE, FLAT]),
)
def test_whatever_is_kept_is_sound_and_survives_writing(
    lines: list[tuple[int, list[str]]], label_format: LabelFormat
) -> None:
    text = "\n".join(f"{cls} {' '.join(values)}" for cls, values in lines)
    parsed = parse(text.encode(), label_format)
    assert_sound(parsed.rows, label_format)
    again = parse(as_text(parsed.rows).encode(), label_format)
    assert {issue.kind for issue in again.issues} <= {"degenerate", "outside", "repeated_line"}
    for row, same in zip(parsed.rows, again.rows, strict=False):
        if len(again.rows) == len(parsed.rows):
            assert row.cls == same.cls
            assert same.values == pytest.approx(row.values, abs=1e-6)


def assert_sound(rows: tuple[LabelRow, ...], label_format: LabelFormat) -> None:
    """What Ultralytics demands (data/utils.py: verify_image_label)."""
    lengths: dict[Task, int] = {"detect": 4}
    if label_format.keypoints:
        lengths["pose"] = 4 + label_format.keypoints[0] * label_format.keypoints[1]
    for row in rows:
        assert 0 <= row.cls < label_format.classes
        assert all(map(math.isfinite, row.values))
        assert len(row.values) == lengths.get(label_format.task, len(row.values))
        if label_format.task == "segment":
            assert len(row.values) >= 6
            assert len(row.values) % 2 == 0
            assert min(row.values) >= 0
            assert max(row.values) <= 1
        else:
            assert min(row.values[:4]) >= 0
            assert max(row.values[:4]) <= 1
            assert min(row.values) >= -0.01
