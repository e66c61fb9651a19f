"""The metrics and labels that a PromQL expression names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

SELECTOR = re.compile(r"\b(visionloop_\w+)\s*(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")


class Selector(NamedTuple):
    """A series as an expression names it; `matchers` are label, operator and value."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]


def selectors(expression: str) -> Iterator[Selector]:
    """Our series in the expression, in its order."""
    for found in SELECTOR.finditer(expression):
        yield Selector(found[1], tuple(MATCHER.findall(found[2] or "")))


def grouped(expression: str) -> set[str]:
    """The labels by which the expression groups or matches."""
    lists = GROUPING.findall(expression)
    return {name.strip() for names in lists for name in names.split(",") if name.strip()}
