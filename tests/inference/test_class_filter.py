"""Which classes a request means."""

from __future__ import annotations

import re

import pytest

from errors import ValidationFailed
from inference.class_filter import class_ids

NAMES = ("stop", "give way", "cup, mug", "7", "speed limit 30", "speed limit 50")


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (["stop"], (0,)),
        (["give way", "stop"], (0, 1)),
        ([" stop , give way,"], (0, 1)),
        ([1, "stop", "0"], (0, 1)),
        (["cup, mug"], (2,)),
        (["cup, mug", "stop"], (0, 2)),
        (["7"], (3,)),  # a name goes before an id
        (["5"], (5,)),
        ([5, 5], (5,)),
        (["stop", ""], (0,)),
    ],
)
def test_names_and_ids(wanted: list[int | str], ids: tuple[int, ...]) -> None:
    assert class_ids(wanted, NAMES) == ids


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (["Stop"], "no class 'Stop'. Did you mean 'stop'?"),
        (["stopp"], "no class 'stopp'. Did you mean 'stop'?"),
        (["stop,speed limit 3"], "Did you mean 'speed limit 30' or 'speed limit 50'?"),
        (["limit"], "Did you mean"),
        (["horse"], "no class 'horse'. Known: stop, give way, cup, mug, 7, "),
        ([6], "no class 6; its ids are 0 to 5."),
        (["6"], "no class 6; its ids are 0 to 5."),
        ([-1], "no class -1; its ids are 0 to 5."),
        (["-1"], "no class '-1'."),
        (["²"], "no class '²'."),
        (["9" * 5000], "no class '999"),
        ([","], "'classes' names no class. Known: stop"),
    ],
)
def test_an_unknown_class_is_refused_with_the_near_names(
    wanted: list[int | str], sentence: str
) -> None:
    with pytest.raises(ValidationFailed, match=re.escape(sentence)) as caught:
        class_ids(wanted, NAMES)
    assert len(caught.value.message) < 400


def test_of_many_classes_some_are_listed() -> None:
    with pytest.raises(ValidationFailed, match=r"c29, … \(1000 in all\)\."):
        class_ids(["zzz"], [f"c{number}" for number in range(1000)])
