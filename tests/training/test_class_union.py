from __future__ import annotations

import pytest

from errors import ValidationFailed
from training.class_union import ClassUnion, unite

OLD = ("stop", "yield")


@pytest.mark.parametrize(
    ("new", "objects", "asked", "expected"),
    [
        (("tram",), {0: 5}, (), ("stop", "yield", "tram")),
        (("tram", "YIELD ", "bus"), {0: 5, 1: 2, 2: 1}, (), ("stop", "yield", "tram", "bus")),
        (("bus", "tram"), {0: 1, 1: 1}, ("Tram", "bus"), ("stop", "yield", "Tram", "bus")),
        (("yield", "tram"), {0: 3}, (), OLD),  # nothing of the tram is there to learn
        (("yield",), {0: 3}, ("Stop",), OLD),  # known already: nothing to add
        (("Tram", "tram "), {0: 1, 1: 1}, (), ("stop", "yield", "tram")),  # one class
    ],
)
def test_old_ids_stay_and_new_names_follow(
    new: tuple[str, ...], objects: dict[int, int], asked: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    union = unite(OLD, new, objects, asked)
    assert union.names == expected
    assert union.old == 2
    assert union.added == expected[2:]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("trum",), "new_classes has 'trum'"),
        (("tram",), "data_path has objects of 'bus'"),
    ],
)
def test_new_classes_must_agree_with_the_data(asked: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValidationFailed, match=words):
        unite(OLD, ("tram", "bus"), {0: 1, 1: 1}, asked)


def test_reordered_names_find_their_ids() -> None:
    assert ClassUnion(("a", "b", "c"), 2).ids(("C", " b", "x", "a")) == (2, 1, None, 0)
