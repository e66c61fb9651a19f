"""The assignment of models to the controls of a Label Studio project, and what they write."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from annotation.preannotation import NONE_FITS, Preannotation, near, plan
from formats.annotations import Annotation, AnnotationPart, Annotations, Keypoint
from formats.label_studio_config import LabelConfig, parse_label_config
from models_store.description import Task
from models_store.versions import ModelVersion


def model(
    name: str,
    task: Task,
    classes: str,
    *,
    active: bool = False,
    points: tuple[str, ...] | None = None,
    shape: tuple[int, int] | None = None,
) -> ModelVersion:
    names = tuple(classes.split())
    about = SimpleNamespace(
        task=task, names=names, keypoint_names=points, keypoint_shape=shape or (3, 3)
    )
    found: Any = SimpleNamespace(id=f"{name}:1", name=name, description=about, active=active)
    return cast("ModelVersion", found)


def config(*controls: str) -> LabelConfig:
    tags = {"r": "RectangleLabels", "p": "PolygonLabels", "k": "KeyPointLabels", "c": "Choices"}
    text = ""
    for control in controls:
        kind, _, labels = control.partition(":")
        child = "Choice" if kind == "c" else "Label"
        inside = "".join(f'<{child} value="{label}"/>' for label in labels.split())
        text += f'<{tags[kind]} name="{kind}" toName="i">{inside}</{tags[kind]}>'
    return parse_label_config(f'<View><Image name="i" value="$image"/>{text}</View>')


D = model("d", "detect", "car bus", active=True)
D2 = model("d2", "detect", "car bus tram")
S = model("s", "segment", "car tree")
P = model("p", "pose", "person", points=("nose", "left", "right"))
C = model("c", "classify", "day night")
EVERY = (D, D2, S, P, C)


def filled(found: Preannotation) -> dict[str, tuple[str, dict[str, str], dict[str, str]]]:
    return {s.model.name: (s.kind, dict(s.labels), dict(s.points)) for s in found.shares}


@pytest.mark.parametrize(
    ("controls", "expected"),
    [
        (("r:Car",), {"d": ("rectanglelabels", {"car": "Car"}, {})}),
        (  # another model for what the active one does not know
            ("r:car tram",),
            {
                "d": ("rectanglelabels", {"car": "car"}, {}),
                "d2": ("rectanglelabels", {"tram": "tram"}, {}),
            },
        ),
        (("p:car tree",), {"s": ("polygonlabels", {"car": "car", "tree": "tree"}, {})}),
        (("r:tree",), {"s": ("rectanglelabels", {"tree": "tree"}, {})}),
        (  # one label is filled once, though both controls have it
            ("r:car", "p:car"),
            {"d": ("rectanglelabels", {"car": "car"}, {})},
        ),
        (
            ("r:person", "k:nose left"),
            {"p": ("rectanglelabels", {"person": "person"}, {"nose": "nose", "left": "left"})},
        ),
        (("k:nose",), {"p": ("rectanglelabels", {}, {"nose": "nose"})}),
        (
            ("r:car", "c:night day"),
            {
                "d": ("rectanglelabels", {"car": "car"}, {}),
                "c": ("choices", {"day": "day", "night": "night"}, {}),
            },
        ),
    ],
)
def test_models_fill_controls(controls: tuple[str, ...], expected: dict[str, Any]) -> None:
    found = plan(config(*controls), EVERY)
    assert filled(found) == expected
    assert found.reasons == ()
    assert found.version == "+".join(sorted(f"{name}:1" for name in expected))


def test_the_one_that_is_asked_for_goes_first() -> None:
    assert set(filled(plan(config("r:car"), EVERY, "d2"))) == {"d2"}
    assert set(filled(plan(config("r:car"), EVERY, "d2:1"))) == {"d2"}
    tag = '<RectangleLabels name="r" toName="i" model="s"><Label value="car"/></RectangleLabels>'
    named = parse_label_config(f'<View><Image name="i" value="$image"/>{tag}</View>')
    assert set(filled(plan(named, EVERY))) == {"s"}


@pytest.mark.parametrize(
    ("controls", "models", "reason"),
    [
        (
            ("r:Automobile",),
            (D,),
            "Automobile.* is a class .*d:1 has car, bus.*predicted",
        ),
        (("p:car",), (D,), "no segmentation model is active or promoted"),
        (("k:elbow",), (P,), "model_index"),
        ((), (D,), "no control for its image that can be predicted"),
        (("r:car", "c:night"), (D,), "no classification model"),
    ],
)
def test_it_says_why_a_control_stays_empty(
    controls: tuple[str, ...], models: tuple[ModelVersion, ...], reason: str
) -> None:
    found = plan(config(*controls), models)
    assert len(found.reasons) == 1
    assert re.search(reason, found.reasons[0])
    if not found.shares:
        assert found.version == NONE_FITS


def test_points_without_names_are_told_by_their_numbers() -> None:
    plain = model("p", "pose", "arrow", shape=(2, 3))
    text = (
        '<View><Image name="i" value="$image"/><KeyPointLabels name="k" toName="i">'
        '<Label value="Tip" model_index="1"/></KeyPointLabels></View>'
    )
    assert filled(plan(parse_label_config(text), [plain]))["p"][2] == {"1": "Tip"}


FOUND = Annotations(
    "x.jpg",
    200,
    100,
    (
        Annotation("car", box=(20, 10, 60, 30), score=0.9),
        Annotation("bus", box=(100, 50, 200, 100), score=0.8),
        Annotation("boat", box=(0, 0, 5, 5), score=0.7),
    ),
)


def test_regions_carry_the_names_of_the_configuration() -> None:
    project = plan(config("r:Car Bus"), EVERY)
    regions = project.regions(project.shares[0], FOUND)
    assert [region["value"]["rectanglelabels"] for region in regions] == [["Car"], ["Bus"]]
    first = regions[0]
    assert (first["from_name"], first["to_name"], first["type"]) == ("r", "i", "rectanglelabels")
    assert (first["original_width"], first["original_height"]) == (200, 100)
    value = first["value"]
    assert (value["x"], value["y"], value["width"], value["height"]) == (10, 10, 20, 20)
    again = project.regions(project.shares[0], FOUND)
    assert not {r["id"] for r in regions} & {r["id"] for r in again}  # they may meet in an editor


def test_key_points_name_their_rectangle_as_parent() -> None:
    thing = Annotation(
        "person",
        box=(20, 10, 60, 30),
        keypoints=(
            Keypoint("nose", 30, 20),
            Keypoint("left", visibility=0),
            Keypoint("right", 1, 2),
        ),
        score=0.9,
    )
    found = Annotations("x", 200, 100, (thing,))
    project = plan(config("r:person", "k:nose left"), EVERY)
    box, nose = project.regions(project.shares[0], found)
    assert nose["parentID"] == box["id"]
    assert (nose["type"], nose["from_name"]) == ("keypointlabels", "k")
    alone = plan(config("k:nose"), EVERY)
    (nose,) = alone.regions(alone.shares[0], found)
    assert "parentID" not in nose


def test_polygons_stay_polygons() -> None:
    ring = ((0.0, 0.0), (100.0, 0.0), (100.0, 50.0))
    found = Annotations(
        "x", 200, 100, (Annotation("tree", parts=(AnnotationPart(ring),), score=0.5),)
    )
    project = plan(config("p:tree"), EVERY)
    (region,) = project.regions(project.shares[0], found)
    assert region["value"]["points"] == [[0, 0], [50, 0], [50, 50]]


@pytest.mark.parametrize(
    ("drawn", "labels"),
    [
        ([], ["car", "bus", "boat"]),
        ([{"type": "keypointlabels", "value": {"x": 15, "y": 15, "width": 1}}], ["car"]),
        ([{"type": "rectanglelabels", "value": {"x": 40, "y": 40, "width": 60, "height": 60}}],
         ["bus"]),
        ([{"type": "polygonlabels", "value": {"points": [[0, 0], [5, 0], [5, 8]]}}], ["boat"]),
        ([{"type": "keypointlabels", "value": {"x": 99, "y": 1, "width": 1}}], []),
        ([{"type": "brush", "value": {"rle": []}}], ["car", "bus", "boat"]),
    ],
)  # fmt: skip
def test_a_drawn_region_asks_for_what_lies_there(
    drawn: list[dict[str, Any]], labels: list[str]
) -> None:
    assert [thing.label for thing in near(FOUND, drawn).objects] == labels
