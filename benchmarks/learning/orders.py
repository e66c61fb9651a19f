"""Class orders of the incremental benchmark: which classes are learned at which step.

Settings are chosen on the first orders (`tuning`), and measured on the others (`reported`), so that
no figure comes from classes in the order that a setting was chosen on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise


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
