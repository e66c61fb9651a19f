"""Maps class names as people and tools write them to the class names of a dataset."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from formats.annotations import Annotations


def tidy(name: str) -> str:
    """A class name without surrounding spaces, in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", name).strip()


def with_known_names(found: Annotations, names: Sequence[str]) -> Annotations:
    """The annotations with class names spelled as in the dataset; `tidy` is applied to new names.

    Names that are equal after `tidy` are one class, because users cannot see their difference.
    """
    known = {tidy(name): name for name in reversed(names)}
    objects = tuple(
        thing
        if thing.label in names
        else replace(thing, label=known.get(tidy(thing.label), tidy(thing.label)))
        for thing in found.objects
    )
    return replace(found, objects=objects)
