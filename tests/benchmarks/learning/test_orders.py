from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.learning.orders import class_order, read_steps, split_order, tuned_on

NAMES = tuple("abcdefgh")


def test_an_order_is_random_and_the_same_each_time() -> None:
    orders = [class_order(NAMES, number) for number in range(5)]
    assert orders == [class_order(reversed(NAMES), number) for number in range(5)]  # type: ignore[arg-type]
    assert len(set(orders)) == 5
    assert all(sorted(order) == list(NAMES) for order in orders)


def test_each_step_gets_its_classes() -> None:
    assert split_order(NAMES, (3, 2, 2)) == (("a", "b", "c"), ("d", "e"), ("f", "g"))


@pytest.mark.parametrize(
    ("text", "classes", "steps"),
    [("15+5", 20, (15, 5)), ("2+1+1", 5, (2, 1, 1)), ("", 20, (15, 5)), ("", 3, (2, 1)),
     ("", 2, (1, 1))],
)  # fmt: skip
def test_steps_are_read(text: str, classes: int, steps: tuple[int, ...]) -> None:
    assert read_steps(text, classes) == steps


@pytest.mark.parametrize(
    ("text", "words"), [("15", "15\\+5"), ("15+x", "15\\+5"), ("2+0", "15\\+5"), ("3+2", "has 4")]
)
def test_other_steps_are_refused(text: str, words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        read_steps(text, 4)


def test_a_comparison_keeps_the_number_of_its_tuning_orders(tmp_path: Path) -> None:
    folder = tmp_path / "set-15+5"
    tuned_on(folder, 2)
    tuned_on(folder, 2)
    with pytest.raises(SystemExit, match="made with --tuning-orders 2"):
        tuned_on(folder, 1)
