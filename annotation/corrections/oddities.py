"""Oddities: unusual objects of a correction, which are accepted but reported."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from formats.annotations import Annotation, Annotations
from formats.coordinates import over_the_edge

MIN_EXCESS = 0.01  # fraction of the image's side; smaller overhang is not reported


@dataclass
class Oddities:
    """Counts of unusual objects in a correction, with the position of the first of each kind."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, sent: Annotations, stored: Annotations, where: str) -> None:
        """Add the objects of one image, as submitted and as stored (clipped to the image)."""
        width, height = stored.width, stored.height
        for thing in sent.objects:
            bounds = thing.bounds
            if bounds is not None and over_the_edge(bounds, (width, height)) > MIN_EXCESS:
                x1, y1, x2, y2 = bounds
                pixels = max(-x1, -y1, x2 - width, y2 - height)
                self._count("cut", f"{thing.label[:60]!r} of {where[:100]}, by {pixels:.0f} pixels")
        seen: set[Annotation] = set()
        for thing in stored.objects:
            plain = replace(thing, id="", score=None)
            if plain in seen:
                self._count("twice", f"{thing.label[:60]!r} of {where[:100]}")
            seen.add(plain)

    def notes(self) -> list[str]:
        """One sentence per kind that occurs."""
        texts = {
            "cut": "extending over the edge of the image, clipped to the image",
            "twice": "annotated twice in one image, counted once in training",
        }
        return [
            f"{count} object{'' if count == 1 else 's'} {texts[kind]}; the first: "
            f"{self.first[kind]}."
            for kind, count in sorted(self.counts.items())
        ]

    def _count(self, kind: str, where: str) -> None:
        self.counts[kind] += 1
        self.first.setdefault(kind, where)
