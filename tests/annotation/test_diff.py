"""Changes of prelabels: every kind of change, and the metrics from them."""

from __future__ import annotations

import pytest

from annotation.confidence_bands import Band, Bands
from annotation.diff import CorrectionCounts, compare_annotations
from formats.annotations import Annotation, AnnotationPart, Annotations, Keypoint

BANDS = Bands(accept=0.7, review=0.3)


def box(label: str, x: float, y: float = 0, side: float = 10, score: float | None = None):  # type: ignore[no-untyped-def]
    return Annotation(label, box=(x, y, x + side, y + side), score=score)


def square(label: str, x: float, hole: bool = False) -> Annotation:
    ring = ((x, 0.0), (x + 20, 0.0), (x + 20, 20.0), (x, 20.0))
    inner = ((x + 2, 2.0), (x + 18, 2.0), (x + 18, 18.0), (x + 2, 18.0))
    return Annotation(label, parts=(AnnotationPart(ring, (inner,) if hole else ()),))


def pose(x: float, visibility: int = 2) -> Annotation:
    points = (Keypoint("nose", x, 5.0, visibility), Keypoint("tail", 9.0, 9.0))
    return Annotation("dog", box=(0, 0, 10, 10), keypoints=points)


def picture(*objects: Annotation) -> Annotations:
    return Annotations("a.jpg", 100, 100, objects)


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        ([], [], []),
        ([box("a", 0)], [box("a", 0)], ["accepted"]),
        ([box("a", 0)], [box("a", 0.4)], ["accepted"]),  # IoU 0.92
        ([box("a", 0)], [box("a", 2)], ["moved"]),  # 0.67
        ([box("a", 0)], [box("a", 5)], ["removed", "added"]),  # 0.33
        ([box("a", 0)], [box("b", 0)], ["relabelled"]),
        ([box("a", 0)], [box("b", 2)], ["relabelled"]),
        ([box("a", 0)], [], ["removed"]),
        ([], [box("a", 0)], ["added"]),
        # the same class goes first, though the other overlaps more
        ([box("a", 0)], [box("b", 0), box("a", 2)], ["moved", "added"]),
        # two prelabels of one object: the nearer one is right
        ([box("a", 1), box("a", 0)], [box("a", 0)], ["accepted", "removed"]),
        ([Annotation("cat")], [Annotation("cat")], ["accepted"]),
        ([Annotation("cat")], [Annotation("dog")], ["relabelled"]),
        ([Annotation("cat")], [], ["removed"]),
        # masks: the same box, but a hole in it
        ([square("a", 0)], [square("a", 0)], ["accepted"]),
        ([square("a", 0)], [square("a", 0, hole=True)], ["removed", "added"]),
        ([square("a", 0)], [square("a", 2)], ["moved"]),
        # keypoints, of which one was moved, or said to be absent
        ([pose(5)], [pose(5)], ["accepted"]),
        ([pose(5)], [pose(1)], ["moved"]),
        ([pose(5)], [pose(5, visibility=0)], ["moved"]),
    ],
)
def test_every_kind_of_change(
    before: list[Annotation], after: list[Annotation], kinds: list[str]
) -> None:
    changes = compare_annotations(picture(*before), picture(*after))
    assert [change.kind for change in changes] == kinds


def test_how_far_is_moved_can_be_said() -> None:
    before, after = picture(box("a", 0)), picture(box("a", 2))
    assert compare_annotations(before, after, accepted=0.6)[0].kind == "accepted"


def test_precision_and_recall_as_annotators_see_them() -> None:
    tally = CorrectionCounts()
    before = picture(
        box("a", 0, score=0.9),
        box("a", 20, score=0.8),  # moved
        box("a", 40, score=0.5),  # a b in truth
        box("b", 60, score=0.4),  # nothing
    )
    after = picture(box("a", 0), box("a", 22), box("b", 40), box("b", 80))
    tally.update(compare_annotations(before, after))
    tally.update(compare_annotations(picture(box("b", 0, score=0.6)), picture(box("b", 0))))
    found = tally.to_json(BANDS)
    assert (found["pictures"], found["untouched"]) == (2, 1)
    assert [found[k] for k in ("accepted", "moved", "relabelled", "added", "removed")] == [
        2, 1, 1, 1, 1,
    ]  # fmt: skip
    assert found["precision"] == 0.6  # 3 of 5 said
    assert found["recall"] == 0.6  # 3 of 5 there
    a, b = found["classes"]
    assert (a["name"], a["precision"], a["recall"]) == ("a", 0.6667, 1.0)
    assert (b["name"], b["precision"], b["recall"]) == ("b", 0.5, 0.3333)
    assert found["relabelled_pairs"] == [{"from": "a", "to": "b", "count": 1}]
    assert found["bands"] == [
        {"band": "accept", "shown": 2, "right": 2, "precision": 1.0},
        {"band": "review", "shown": 3, "right": 1, "precision": 0.3333},
    ]
    twice = CorrectionCounts.sum([tally.to_json(), tally.to_json()]).to_json()
    assert (twice["pictures"], twice["accepted"], twice["recall"]) == (4, 4, 0.6)
    assert twice["classes"][0]["precision"] == 0.6667


def test_without_a_pre_label_there_is_no_precision() -> None:
    tally = CorrectionCounts()
    tally.update(compare_annotations(picture(), picture(box("a", 0))))
    assert tally.to_json()["precision"] is None
    assert tally.to_json()["recall"] == 0.0


@pytest.mark.parametrize(
    ("score", "band"),
    [(0.7, "accept"), (0.69, "review"), (0.3, "review"), (0.29, "discard"), (None, "accept")],
)
def test_bands_begin_at_their_thresholds(score: float | None, band: Band) -> None:
    assert BANDS.of(score) == band


@pytest.mark.parametrize(
    ("scores", "band"),
    [((0.9, 0.8), "accept"), ((0.9, 0.5), "review"), ((), "review"), ((0.9, 0.1), "accept")],
)
def test_a_image_is_as_sure_as_its_least_sure_object(scores: tuple[float, ...], band: Band) -> None:
    assert BANDS.of_image(scores) == band


def test_review_cannot_begin_above_accept() -> None:
    with pytest.raises(ValueError, match="must not be above"):
        Bands(accept=0.2, review=0.5)
