"""The report of a dataset check: counts, image sizes and findings as JSON."""

from __future__ import annotations

from itertools import islice
from typing import Any

from dataset.dataset import Dataset
from dataset.label_scan import shown

NAMED = 1000  # maximum number of images with refused lines that the report lists


def report(dataset: Dataset) -> dict[str, Any]:
    """The report of a dataset. Scans every image, so call it off the event loop."""
    scanned = dataset.scan()
    readable = [image for image in scanned.images.values() if not image.problem]
    widths, heights = [image.width for image in readable], [image.height for image in readable]
    splits = {split: _split(dataset, split) for split in dataset.splits}
    images = sum(counts["images"] for counts in splits.values())
    unlabelled = sum(counts["unlabelled"] for counts in splits.values())
    fatal = [finding for finding in dataset.findings if finding.fatal]
    return {
        "task": dataset.task,
        "usable": not fatal,
        "classes": list(dataset.names),
        "splits": splits,
        "class_counts": [
            {"id": i, "name": name} | {split: dataset.counts[split][i] for split in dataset.splits}
            for i, name in enumerate(dataset.names)
        ],
        "image_size": {
            "min_width": min(widths),
            "max_width": max(widths),
            "min_height": min(heights),
            "max_height": max(heights),
        }
        if readable
        else None,
        "unlabelled_share": round(unlabelled / images, 4) if images else 0.0,
        "keypoints": list(dataset.keypoints.shape) if dataset.keypoints else None,
        "refused_images": len(dataset.refused),
        "refused_lines": [
            {"image": shown(image, dataset.root), "lines": list(lines)}
            for image, lines in islice(dataset.refused.items(), NAMED)
        ],
        "fingerprint": dataset.fingerprint,
        "problems": [finding.to_json() for finding in dataset.findings],
    }


def _split(dataset: Dataset, split: str) -> dict[str, int]:
    images = dataset.splits[split]
    unlabelled = 0
    if dataset.task != "classify":
        unlabelled = sum(dataset.labels.get(image) not in dataset.labelled for image in images)
    return {
        "images": len(images),
        "usable": len(dataset.scan().splits[split]),
        "objects": sum(dataset.counts[split].values()),
        "unlabelled": unlabelled,
    }
