from __future__ import annotations

import pytest

from training.joined_classes import JoinedClasses


@pytest.mark.parametrize(
    ("model", "dataset", "ids", "unknown", "absent"),
    [
        (["a", "b"], ["b", "a"], [1, 0], (), ()),
        (["Stop", "give way"], ["stop ", "GiveWay"], [0, 1], (), ()),
        (["a"], ["tram", "a", "bus"], [1, 0, 2], ("tram", "bus"), ()),
        (["a", "b", "c"], ["c"], [2], (), ("a", "b")),
        (["stop", "Stop"], ["Stop", "stop"], [1, 0], (), ()),  # the exact name first
        (["stop"], ["Stop", "STOP"], [0, 0], (), ()),
        (["a"], ["New", "new"], [1, 1], ("New",), ("a",)),
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
