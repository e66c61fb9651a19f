from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training.incremental.forgetting import Forgetting, compare
from training.incremental.forgetting_plot import write_plot


def report(**classes: tuple[int, float | None]) -> dict[str, Any]:
    """Class name → objects, and what the metric is."""
    rows = [
        {"class_id": i, "name": name, "instances": objects, "accuracy": value}
        for i, (name, (objects, value)) in enumerate(classes.items())
    ]
    return {"classes": rows}


def compared() -> Forgetting:
    return compare(
        "classify",
        ("Stop", "yield", "tram"),
        before={
            "old": report(Stop=(9, 0.9), **{"yield": (9, 0.8)}),
            "new": report(Stop=(2, 0.5), bus=(5, 0.0)),
        },
        after={
            "old": report(Stop=(9, 0.7), **{"yield": (9, 0.9)}),
            "new": report(stop=(2, 0.6), bus=(5, 0.75)),
        },
        base="signs:1",
        model="signs:2",
    )


def test_each_class_is_shown_before_and_after() -> None:
    found = compared()
    rows = {
        row["name"]: (row["kind"], row["on"], row["before"], row["after"]) for row in found.classes
    }
    assert rows == {
        "Stop": ("old", "old", 0.9, 0.7),
        "yield": ("old", "old", 0.8, 0.9),
        "bus": ("new", "new", None, 0.75),
    }
    assert found.unmeasured == ("tram",)
    assert found.regressed == ()
    assert found.figures == pytest.approx(
        {"old_classes_before": 0.85, "old_classes": 0.8, "forgotten": 0.05, "new_classes": 0.75}
    )
    assert found.sentence.startswith(
        "Old classes: 0.850 before, 0.800 after, forgotten 0.050 ('Stop' regressed most, from "
        "0.900 to 0.700); new classes: 0.750; each a mean accuracy; "
    )
    assert "1 old classes could not be measured" in found.sentence
    shown = found.to_json()
    assert shown["base"] == "signs:1"
    assert shown["added"] == ["bus"]
    assert shown["summary"] == found.sentence


def test_without_old_data_the_new_pictures_tell_what_they_can() -> None:
    before = {"new": report(Stop=(2, 0.5), bus=(5, 0.0))}
    after = {"new": report(Stop=(2, 0.6), bus=(5, 0.75))}
    found = compare("classify", ("stop", "yield"), before, after)
    assert [(row["name"], row["on"]) for row in found.classes] == [("stop", "new"), ("bus", "new")]
    assert found.unmeasured == ("yield",)
    nothing = compare("classify", ("yield",), {"new": report()}, {"new": report(bus=(5, 0.7))})
    assert nothing.figures == {"new_classes": 0.7}
    assert "give old_data_path" in nothing.sentence


def test_nothing_fell_most_where_nothing_fell() -> None:
    before, after = ({"old": report(stop=(2, value))} for value in (0.5, 0.6))
    found = compare("classify", ("stop",), before, after)
    assert found.figures["forgotten"] == pytest.approx(-0.1)
    assert "regressed most" not in found.sentence
    assert "0.500 before, 0.600 after, gained 0.100; new classes: none, because" in found.sentence
    assert found.to_json()["new_classes"] is None
    assert found.to_json()["added"] == []


def test_a_new_class_without_a_val_object_is_not_called_none() -> None:
    before, after = ({"old": report(stop=(2, value))} for value in (0.5, 0.6))
    found = compare("classify", ("stop",), before, after, added=("bus",))
    assert "new classes: not measured; " in found.sentence
    assert found.to_json()["added"] == ["bus"]


def test_letters_are_not_mixed_up() -> None:
    before, after = ({"old": report(A=(2, a), a=(2, b))} for a, b in ((0.9, 0.1), (0.8, 0.2)))
    found = compare("classify", ("A", "a"), before, after)
    rows = {row["name"]: (row["before"], row["after"]) for row in found.classes}
    assert rows == {"A": (0.9, 0.8), "a": (0.1, 0.2)}


@pytest.mark.parametrize(("size", "said"), [(320, True), (640, False)])
def test_another_resolution_is_told_from_forgetting(size: int, said: bool) -> None:
    before = {"old": report(stop=(2, 0.5)) | {"imgsz": 640}}
    after = {"old": report(stop=(2, 0.4)) | {"imgsz": size}}
    found = compare("classify", ("stop",), before, after)
    assert found.to_json()["imgsz"] == {"before": 640, "after": size}
    assert ("measured at 640 pixels before and 320 after" in found.sentence) == said


def test_the_report_is_drawn(tmp_path: Path) -> None:
    write_plot(compared(), tmp_path / "plots" / "forgetting.png")
    assert (tmp_path / "plots" / "forgetting.png").stat().st_size > 5000
    many = {f"class {i}": (3, i / 80) for i in range(80)}
    found = compare("classify", tuple(many), {"old": report(**many)}, {"old": report(**many)})
    write_plot(found, tmp_path / "many.png")


@pytest.mark.parametrize(
    ("allowed", "regressed"),
    [(0.05, ["yield", "Stop"]), (0.2, ["yield"]), (0.3, []), (1.0, [])],
)
def test_classes_that_dropped_by_more_than_the_gate_allows_are_named(
    allowed: float, regressed: list[str]
) -> None:
    found = compare(
        "classify",
        ("Stop", "yield", "tram"),
        before={"old": report(Stop=(9, 0.9), tram=(1, 0.5), **{"yield": (1, 0.8)})},
        after={"old": report(Stop=(9, 0.75), tram=(1, 0.5), **{"yield": (1, 0.5)})},
        base="signs:1",
        model="signs:2",
        allowed_drop=allowed,
    )
    assert [row["name"] for row in found.regressed] == regressed
    shown = found.to_json()
    assert (shown["regressed"], shown["allowed_drop"]) == (regressed, allowed)
    assert bool(found.warning) is bool(regressed)
    assert found.warning in shown["summary"]
    if regressed:
        assert f"forgotten more than the gate allows ({allowed:g} of accuracy)" in found.warning
        assert "'yield' from 0.800 to 0.500 (1 object)" in found.warning
