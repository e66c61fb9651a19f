"""The health of a revision: balance of classes and splits, and histograms of sizes and counts."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dataset.browse.index import IndexedImage

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)  # of the image's side
SIDES = (0, 160, 320, 640, 1280, 1920, 2560, 3840)  # pixels of the longer side
BOX_SIDES = (0, 8, 16, 32, 64, 128, 256, 512, 1024)  # pixels
OBJECTS = (0, 1, 2, 3, 5, 10, 20, 50, 100)  # of an image
SIZES_SHOWN = 10  # most frequent image sizes


@dataclass
class Histogram:
    """Counts values in bins.

    Attributes:
        edges: Smallest value of each bin; the last bin has no largest one.
    """

    edges: Sequence[float]
    counts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = [0] * len(self.edges)

    def update(self, value: float) -> None:
        self.counts[max(0, bisect_right(self.edges, value) - 1)] += 1

    def to_json(self) -> dict[str, Any]:
        return {"edges": list(self.edges), "counts": self.counts}


class Health:
    """Collects the health of a revision, image by image."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._objects: dict[str, Counter[str]] = {}  # split → class → objects
        self._images: dict[str, Counter[str]] = {}  # split → class → images with it
        self._splits: dict[str, Counter[str]] = {}  # split → state → images
        self._of_split: Counter[str] = Counter()  # objects
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._shares = Histogram(SHARES[:-1])
        self._box_sides = Histogram(BOX_SIDES)
        self._sides = Histogram(SIDES)
        self._counts = Histogram(OBJECTS)

    def update(self, image: IndexedImage) -> None:
        """Add an image."""
        self._splits.setdefault(image.split, Counter())[image.state] += 1
        self._of_split[image.split] += image.objects
        self._objects.setdefault(image.split, Counter()).update(image.classes)
        self._images.setdefault(image.split, Counter()).update(dict.fromkeys(image.classes, 1))
        if image.state == "unreadable":
            return
        if image.state != "unlabelled":
            self._counts.update(image.objects)
        self._sizes[image.width, image.height] += 1
        self._sides.update(max(image.width, image.height))
        for _, x1, y1, x2, y2 in image.boxes:
            area = max(0.0, x2 - x1) * max(0.0, y2 - y1)
            self._shares.update(math.sqrt(area))
            self._box_sides.update(math.sqrt(area * image.width * image.height))

    def to_json(self) -> dict[str, Any]:
        """The splits, classes and histograms."""
        seen = {name for counts in self._objects.values() for name in counts}
        names = [*self._names, *sorted(seen - set(self._names))]
        splits = [split for split in ("train", "val", "test", "") if split in self._splits]
        return {
            "splits": [
                {
                    "split": split,
                    "images": self._splits[split].total(),
                    "objects": self._of_split[split],
                    "states": dict(self._splits[split]),
                }
                for split in splits
            ],
            "classes": [
                {
                    "name": name,
                    "objects": {split or "none": self._objects[split][name] for split in splits},
                    "images": {split or "none": self._images[split][name] for split in splits},
                }
                for name in names
            ],
            "box_shares": self._shares.to_json(),
            "box_sides": self._box_sides.to_json(),
            "image_sides": self._sides.to_json(),
            "objects_per_image": self._counts.to_json(),
            "image_sizes": [
                {"width": width, "height": height, "images": count}
                for (width, height), count in self._sizes.most_common(SIZES_SHOWN)
            ],
        }
