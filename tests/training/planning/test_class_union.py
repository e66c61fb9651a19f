from __future__ import annotations

import pytest

from errors import ValidationFailed
from training.planning.class_union import (
    ClassUnion,
    notes_on_added,
    notes_on_merged,
    notes_on_old_data,
    unite,
)

OLD = ("stop", "yield")


@pytest.mark.parametrize(
    ("new", "objects", "asked", "expected"),
    [
        (("tram",), {0: 5}, (), ("stop", "yield", "tram")),
        (("tram", "YIELD ", "bus"), {0: 5, 1: 2, 2: 1}, (), ("stop", "yield", "tram", "bus")),
        (("bus", "tram"), {0: 1, 1: 1}, ("Tram", "bus"), ("stop", "yield", "Tram", "bus")),
        (("yield", "tram"), {0: 3}, (), OLD),  # nothing of the tram is there to learn
        (("yield",), {0: 3}, ("Stop",), OLD),  # known already: nothing to add
        (("tram", " tram "), {0: 1, 1: 1}, (), ("stop", "yield", "tram")),  # one class
        (("A", "a"), {0: 1, 1: 1}, (), ("stop", "yield", "A", "a")),  # letters
        (("e\u0301", "\u00e9"), {0: 1, 1: 1}, (), ("stop", "yield", "\u00e9")),  # one letter
        (("Stop", "s top"), {0: 1, 1: 1}, (), OLD),  # two spellings of what is known
        (("stop", "Stop"), {0: 1, 1: 1}, (), ("stop", "yield", "Stop")),  # the exact one is known
        (("tram",), {0: 1}, ("Tram", "TRAM"), ("stop", "yield", "Tram")),
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


@pytest.mark.parametrize(
    ("names", "data", "expected"),
    [
        (("a", "b", "c"), ("C", " b", "x", "a"), (2, 1, None, 0)),
        (("A", "a", "b"), ("A", "a", "b"), (0, 1, 2)),  # the letters of an alphabet
        (("A", "a", "b"), ("b", "a", "A"), (2, 1, 0)),
        (("traffic light",), ("TrafficLight",), (0,)),
        (("A", "a"), ("a ", "B"), (1, None)),
    ],
)
def test_names_find_their_ids(
    names: tuple[str, ...], data: tuple[str, ...], expected: tuple[int | None, ...]
) -> None:
    assert ClassUnion(names, len(names)).ids(data) == expected


@pytest.mark.parametrize(
    ("names", "objects", "words"),
    [
        (("Stop", "yield", "tram"), {0: 3, 1: 2, 2: 9}, ()),
        (("yield",), {0: 3}, ("no objects of 'stop', which signs:1 knows",)),
        (("stop", "yield"), {0: 3, 1: 0}, ("no objects of 'yield'",)),  # named, but not labelled
        (("stop", "yield", "bus"), {0: 3, 1: 1, 2: 4}, ("objects of 'bus', which neither",)),
        (("stop", "yield", "bus"), {0: 3, 1: 1}, ()),
        (("stop", "bus"), {0: 3, 1: 4}, ("no objects of 'yield'", "objects of 'bus'")),
    ],
)
def test_old_data_may_lack_classes_or_have_others(
    names: tuple[str, ...], objects: dict[int, int], words: tuple[str, ...]
) -> None:
    union = ClassUnion(("stop", "yield", "tram"), old=2)
    notes = notes_on_old_data(union, names, objects, "signs:1")
    assert len(notes) == len(words)
    assert all(word in note for word, note in zip(words, notes, strict=True))


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ("stop_sign", "'stop_sign' is nearly named as 'Stop sign', which signs:1 knows"),
        ("STOP-SIGN", "'STOP-SIGN' is nearly named as 'Stop sign'"),
        ("stop signal", ""),
        ("c", ""),
        ("-", ""),
    ],
)
def test_a_new_class_that_is_nearly_named_as_an_old_one_is_told(added: str, words: str) -> None:
    union = ClassUnion(("Stop sign", "C#", "_", added), old=3)
    notes = notes_on_added(union, "signs:1")
    assert bool(notes) is bool(words)
    assert words in " ".join(notes)


@pytest.mark.parametrize(
    ("names", "objects", "words"),
    [
        (("Stop", "s top", "tram"), {0: 3, 1: 1, 2: 1}, "'Stop', 's top' of data_path are trained"),
        (("Stop", "s top"), {0: 3, 1: 0}, ""),
        (("stop", "Stop"), {0: 3, 1: 1}, ""),  # the second one is not known
    ],
)
def test_spellings_that_become_one_class_are_told(
    names: tuple[str, ...], objects: dict[int, int], words: str
) -> None:
    union = ClassUnion(("stop", "yield", "tram"), old=2)
    notes = notes_on_merged(union, names, objects, "data_path")
    assert bool(notes) is bool(words)
    assert words in " ".join(notes)
