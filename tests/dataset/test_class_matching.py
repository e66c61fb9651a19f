from __future__ import annotations

import pytest

from dataset.class_matching import JoinedClasses, matched, paired


@pytest.mark.parametrize(
    ("model", "dataset", "ids", "unknown", "absent"),
    [
        (["a", "b"], ["b", "a"], [1, 0], (), ()),
        (["Stop", "give way"], ["stop ", "GiveWay"], [0, 1], (), ()),
        (["a"], ["tram", "a", "bus"], [1, 0, 2], ("tram", "bus"), ()),
        (["a", "b", "c"], ["c"], [2], (), ("a", "b")),
        (["stop", "Stop"], ["Stop", "stop"], [1, 0], (), ()),  # the exact name first
        (["stop"], ["Stop", "STOP"], [0, 0], (), ()),
        (["a"], ["New", "new"], [1, 2], ("New", "new"), ("a",)),
        (["stop"], ["Stop", "stop"], [1, 0], ("Stop",), ()),  # the exact one takes it
    ],
)
def test_classes_are_joined_by_name(
    model: list[str],
    dataset: list[str],
    ids: list[int],
    unknown: tuple[str, ...],
    absent: tuple[str, ...],
) -> None:
    found = JoinedClasses.of(model, dataset)
    assert found.names[: len(model)] == tuple(model)
    assert found.from_dataset.tolist() == ids
    assert (found.unknown, found.absent) == (unknown, absent)


@pytest.mark.parametrize(
    ("known", "names", "expected"),
    [
        (["A", "a", "b"], ["A", "a", "b"], (0, 1, 2)),
        (["A", "a"], ["a ", " A"], (1, 0)),
        (["stop"], ["STOP", "s top"], (0, 0)),
        (["stop"], ["Stop", "stop"], (None, 0)),
        (["stop", "Stop"], ["STOP"], (None,)),  # which of both?
        (["traffic light"], ["TrafficLight"], (0,)),
        (["Caf\u00e9"], ["Cafe\u0301"], (0,)),  # macOS decomposes accents
        (["Caf\u00e9", "CAFE\u0301"], ["CAF\u00c9", "Cafe\u0301 "], (1, 0)),
        (["caf\u00e9"], ["CAFE\u0301"], (0,)),
        (["Stra\u00dfe"], ["STRASSE"], (0,)),
    ],
)
def test_the_exact_name_decides_first(
    known: list[str], names: list[str], expected: tuple[int | None, ...]
) -> None:
    assert matched(known, names) == expected


def test_two_models_are_paired_one_to_one() -> None:
    assert paired(["Stop", "A", "a"], ["stop", "a", "A"]) == {"stop": "Stop", "a": "a", "A": "A"}
    assert paired(["stop"], ["Stop", "STOP"]) == {}
