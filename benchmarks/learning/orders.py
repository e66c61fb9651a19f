"""Class orders of the incremental benchmark: which classes are learned at which step.

Settings are chosen on the first orders (`tuning`), and measured on the others (`reported`), so that
no figure comes from classes in the order that a setting was chosen on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path


def class_order(names: Sequence[str], number: int) -> tuple[str, ...]:
    """The classes in a random order. The same number gives the same order."""
    order = sorted(names)
    random.Random(number).shuffle(order)
    return tuple(order)


def split_order(order: Sequence[str], steps: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """The classes of each step: those of the base model, then those of each further training.

    Examples:
        >>> split_order("abcde", (2, 1, 2))
        (('a', 'b'), ('c',), ('d', 'e'))
    """
    bounds = [sum(steps[:i]) for i in range(len(steps) + 1)]
    return tuple(tuple(order[begin:end]) for begin, end in pairwise(bounds))


def read_steps(text: str, classes: int) -> tuple[int, ...]:
    """The numbers of classes of a text such as `15+5`; empty: three quarters, then the rest.

    Raises:
        SystemExit: The text is no such list, or the dataset has fewer classes.
    """
    if not text:
        first = max(1, round(0.75 * classes))
        first -= first == classes
        return first, classes - first
    parts = text.split("+")
    if len(parts) < 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise SystemExit(f"--steps is {text!r}: give numbers of classes such as 15+5 or 10+5+5.")
    steps = tuple(map(int, parts))
    if sum(steps) > classes:
        raise SystemExit(f"--steps {text} needs {sum(steps)} classes; the dataset has {classes}.")
    return steps


def tuned_on(folder: Path, orders: int) -> None:
    """Note the number of orders on which settings are chosen, at the first call for a folder.

    Raises:
        SystemExit: The runs in the folder were made with another number.
    """
    file = folder / "tuning-orders"
    if file.is_file() and file.read_text() != str(orders):
        raise SystemExit(
            f"The runs in {folder} were made with --tuning-orders {file.read_text()}. Give the "
            "same number, or another --name: an order that settings were chosen on is not reported."
        )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(str(orders))


def shown_orders(numbers: Sequence[int]) -> str:
    """The numbers of class orders.

    Examples:
        >>> shown_orders([2, 4])
        'Orders 2, 4'
    """
    return f"Order{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
