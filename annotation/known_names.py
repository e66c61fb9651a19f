"""Class names as people and tools write them, mapped to the names that a dataset has."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from formats.annotations import Annotations


def tidy(name: str) -> str:
    """A class name without spaces around it, in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", name).strip()


def with_known_names(found: Annotations, names: Sequence[str]) -> Annotations:
    """Annotations with the dataset's own spelling of class names; other names are made tidy.

    Names that differ only in what `tidy` removes are one class: nobody can see a difference.
    """
    known = {tidy(name): name for name in reversed(names)}
    objects = tuple(
        thing
        if thing.label in names
        else replace(thing, label=known.get(tidy(thing.label), tidy(thing.label)))
        for thing in found.objects
    )
    return replace(found, objects=objects)
