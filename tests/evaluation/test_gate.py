"""What passes the gate, what is refused, and what is said about it."""

from __future__ import annotations

from typing import Any

import pytest

from errors import Conflict, ValidationFailed
from evaluation.gate import Gate, decide, default_gate
from settings import Settings
from tests.support.made_reports import report

BEFORE = {"stop": 0.9, "yield": 0.8, "merge": 0.7}  # mAP50_95 of the promoted version's classes


def changed(**classes: float) -> dict[str, Any]:
    return report("signs:b", BEFORE | classes)


@pytest.mark.parametrize(
    ("candidate", "gate", "promote", "sentences"),
    [
        (changed(stop=0.95), {}, True, ["+0.017", "No class regressed, of 3 that have objects."]),
        (changed(), {}, True, ["+0.000; no loss allowed"]),
        (changed(stop=0.89), {}, False, ["from 0.800 to 0.797", "no loss"]),
        (changed(stop=0.89, merge=0.8), {}, True, ["'stop' regressed most, by 0.010"]),
        (changed(stop=0.89), {"min_gain": -0.01}, True, ["at least -0.01"]),
        (changed(stop=0.92), {"min_gain": 0.01}, False, ["at least +0.01 is required"]),
        (changed(stop=0.93), {"min_gain": 0.01}, True, ["+0.010"]),
        (
            changed(stop=0.6, merge=1.0),
            {"min_gain": -1},
            False,
            [
                "'stop' regressed from 0.900 to 0.600 in mAP50_95 "
                "(−0.300; 0.05 is allowed; 10 objects)."
            ],
        ),
        (changed(stop=0.7, merge=1.0), {"max_class_drop": 0.2}, True, ["'stop' regressed most"]),
        (changed(stop=0.7, merge=1.0), {"max_class_drop": 0.19}, False, ["'stop' regressed from"]),
        (changed(stop=0.0), {"metric": "mAP50", "min_gain": -1}, False, ["in mAP50 (−"]),
        (changed(stop=0.0), {"metric": "recall", "min_gain": -1}, False, ["in recall (−"]),
    ],
)
def test_the_gate(
    candidate: dict[str, Any], gate: dict[str, Any], promote: bool, sentences: list[str]
) -> None:
    decision = decide(candidate, report("signs:a", BEFORE), Gate.model_validate(gate))
    assert decision.promote is promote
    text = " ".join(decision.reasons)
    assert all(sentence in text for sentence in sentences), text
    assert decision.comparison is not None
    assert decision.comparison["a"]["model_id"] == "signs:a"


def test_the_first_version_is_promoted_without_a_comparison() -> None:
    decision = decide(changed(), None, Gate())
    assert decision.promote
    assert decision.reasons == ("No version of 'signs' is promoted yet: nothing was compared.",)
    assert decision.comparison is None


def test_a_class_that_only_the_promoted_version_knows_has_regressed_to_nothing() -> None:
    lost = report("signs:b", {"stop": 1.0, "yield": 1.0})
    decision = decide(lost, report("signs:a", BEFORE), Gate())
    assert decision.reasons == (
        "'merge' regressed from 0.700 to 0.000 in mAP50_95 (−0.700; 0.05 is allowed; 10 objects).",
    )


def test_a_new_class_is_a_gain() -> None:
    assert decide(changed(tram=0.8), report("signs:a", BEFORE), Gate()).promote


def test_a_class_that_does_not_occur_in_the_split_says_nothing() -> None:
    candidate = changed(stop=0.0)
    promoted = report("signs:a", BEFORE)
    for made in (candidate, promoted):
        made["classes"][0]["instances"] = 0
    assert decide(candidate, promoted, Gate(min_gain=-1)).promote


@pytest.mark.parametrize("allowed", [False, True])
def test_a_class_without_objects_in_the_data_is_named_and_has_to_be_allowed(allowed: bool) -> None:
    known = ("Stop", "yield", "merge", "tram", "bus")
    better, gate = changed(stop=0.95), Gate(allow_unmeasured=allowed)
    decision = decide(better, report("signs:a", BEFORE), gate, known)
    assert decision.promote is allowed
    assert (
        "Not measured, because the dataset has no object of these classes: tram, bus."
        in decision.reasons[-1]
    )
    assert ("allow_unmeasured" in decision.reasons[-1]) is not allowed
    assert decide(better, report("signs:a", BEFORE), gate, known[:3]).promote


def test_spellings_that_are_classes_of_their_own_are_measured_one_by_one() -> None:
    letters = {"A": 0.9, "a": 0.5}
    candidate = report("signs:b", {"A": 0.1, "a": 1.0})
    decision = decide(candidate, report("signs:a", letters), Gate(min_gain=-1), ("A", "a"))
    assert [reason.split(" in ")[0] for reason in decision.reasons] == [
        "'A' regressed from 0.900 to 0.100"
    ]
    one = report("signs:a", {"A": 0.9})
    assert not decide(one, one, Gate(), ("A", "a")).promote


@pytest.mark.parametrize(
    ("old", "promote", "sentence"),
    [
        ({"stop": 0.9, "merge": 0.7}, True, "On the old data mAP50-95 went from 0.800 to 0.800"),
        ({"stop": 0.88, "merge": 0.7}, True, "a loss of 0.05 is allowed"),
        ({"stop": 0.9, "merge": 0.5}, False, "'merge' regressed from 0.700 to 0.500"),
        ({"stop": 0.0, "merge": 0.0}, False, "On the old data mAP50-95 went from 0.800 to 0.000"),
        ({"stop": 0.85, "merge": 0.64}, False, "'merge' regressed from 0.700 to 0.640"),
    ],
)
def test_what_was_learned_before_must_not_be_lost(
    old: dict[str, float], promote: bool, sentence: str
) -> None:
    """On the new data alone, a model that has forgotten all else is a great gain."""
    learned = report("signs:b", {"tram": 0.8}), report("signs:a", {"tram": 0.0})
    kept = report("signs:b", old), report("signs:a", {"stop": 0.9, "merge": 0.7})
    decision = decide(*learned, Gate(), ("stop", "merge"), kept)
    assert decision.promote is promote, decision.reasons
    assert sentence in " ".join(decision.reasons)
    assert decision.comparison is not None
    assert decision.comparison["old_data"]["figures"]["mAP50_95"]["a"] == pytest.approx(0.8)
    alone = decide(*learned, Gate(), ("stop", "merge"))
    assert not alone.promote
    assert (
        "Not measured, because the dataset has no object of these classes: stop, merge."
        in alone.reasons[0]
    )


@pytest.mark.parametrize(("sent", "split"), [(" VAL ", "val"), ("", None), (None, None)])
def test_a_split_is_written_in_many_ways(sent: str | None, split: str | None) -> None:
    assert Gate.model_validate({"split": sent}).split == split


def test_the_worst_classes_are_named_and_the_rest_counted() -> None:
    names = [f"sign {i}" for i in range(9)]
    promoted = report("signs:a", dict.fromkeys(names, 0.9))
    candidate = report("signs:b", {name: 0.1 * i for i, name in enumerate(names)})
    reasons = decide(candidate, promoted, Gate(min_gain=-1)).reasons
    assert [reason.split("'")[1] for reason in reasons[:5]] == names[:5]
    assert reasons[5] == "4 more classes regressed by more than is allowed."


def test_a_classifier_is_judged_by_its_accuracy() -> None:
    promoted = report("signs:a", {"stop": 0.9, "yield": 0.9}, kind="classification")
    candidate = report("signs:b", {"stop": 1.0, "yield": 0.5}, kind="classification")
    reasons = decide(candidate, promoted, Gate()).reasons
    assert reasons[0].startswith("accuracy went from 0.900 to 0.750 (-0.150")
    assert reasons[1].startswith("'yield' regressed from 0.900 to 0.500 in accuracy")


@pytest.mark.parametrize("metric", ["mask_mAP50", "speed", "inference_time"])
def test_a_figure_that_is_not_there_is_refused_with_those_that_are(metric: str) -> None:
    with pytest.raises(ValidationFailed, match=rf"{metric}.*use one of .*mAP50, mAP50_95"):
        decide(changed(), report("signs:a", BEFORE), Gate(metric=metric))


def test_different_data_cannot_be_compared() -> None:
    promoted = report("signs:a", BEFORE)
    promoted["dataset"]["fingerprint"] = "other"
    with pytest.raises(Conflict, match="different data"):
        decide(changed(), promoted, Gate())


def test_the_settings_have_a_gate() -> None:
    given = {"metric": "recall", "min_gain": 0.1, "max_class_drop": 0.2, "allow_unmeasured": True}
    settings = Settings.model_validate({f"gate_{name}": value for name, value in given.items()})
    expected = Gate.model_validate(given)
    assert default_gate(settings) == expected
