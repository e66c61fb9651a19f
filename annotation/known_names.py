"""Class names as people and tools write them, and the names that a data set has."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from formats.annotations import Annotations


def tidy(name: str) -> str:
    """Without spaces around it, accents in one form: what nobody sees tells no classes apart."""
    return unicodedata.normalize("NFC", name).strip()


def with_known_names(found: Annotations, names: Sequence[str]) -> Annotations:
    """With the data set's names where they differ in what nobody sees; others are made tidy."""
    known = {tidy(name): name for name in reversed(names)}
    objects = tuple(
        thing
        if thing.label in names
        else replace(thing, label=known.get(tidy(thing.label), tidy(thing.label)))
        for thing in found.objects
    )
    return replace(found, objects=objects)
