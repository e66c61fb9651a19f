"""Marks that are taken, and of which people should hear."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from formats.annotations import Annotation, Annotations
from formats.coordinates import over_the_edge

EDGE = 0.01  # of a side: less over the edge is nothing worth telling


@dataclass
class Oddities:
    """Counted over all images of a correction, the first of each with its place."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def look(self, sent: Annotations, taken: Annotations, where: str) -> None:
        """At the objects of one image, as they came and as they are stored."""
        width, height = taken.width, taken.height
        for thing in sent.objects:
            bounds = thing.bounds
            if bounds is not None and over_the_edge(bounds, (width, height)) > EDGE:
                x1, y1, x2, y2 = bounds
                pixels = max(-x1, -y1, x2 - width, y2 - height)
                self._add("cut", f"{thing.label[:60]!r} of {where[:100]}, by {pixels:.0f} pixels")
        seen: set[Annotation] = set()
        for thing in taken.objects:
            plain = replace(thing, id="", score=None)
            if plain in seen:
                self._add("twice", f"{thing.label[:60]!r} of {where[:100]}")
            seen.add(plain)

    def notes(self) -> list[str]:
        """A sentence for each kind."""
        said = {
            "cut": "over the edge of the image, where they were cut",
            "twice": "standing twice in the image, which trains as one",
        }
        return [
            f"{count} object{'' if count == 1 else 's'} {said[kind]}; the first: "
            f"{self.first[kind]}."
            for kind, count in sorted(self.counts.items())
        ]

    def _add(self, kind: str, where: str) -> None:
        self.counts[kind] += 1
        self.first.setdefault(kind, where)
