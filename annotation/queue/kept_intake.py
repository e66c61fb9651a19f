"""Takes kept images of live traffic into datasets, so that they can be annotated there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from annotation.datasets import AnnotatedDatasets
from annotation.entries import image_entry
from annotation.history import is_upload
from annotation.image_records import ORIGINAL, PRELABEL_RANK
from annotation.originals import NOT_ANNOTATED, adopt
from annotation.prelabels import PrelabelStore
from annotation.tables import AnnotatedDataset
from dataset.store import DatasetStore
from errors import NotFound
from formats.annotation_tools import TOOL_OF
from formats.annotations import Annotation, AnnotationPart, Annotations, Keypoint
from inference.images import check_header
from monitoring.kept_images import KeptImages


@dataclass(frozen=True)
class KeptIntake:
    """Copies kept images into datasets. Reads and writes files: call it off the event loop.

    Attributes:
        kept: The kept images.
        datasets, annotated: The stores of the datasets and their annotations.
        prelabels: Keeps what the model answered, as the image's suggestions.
    """

    kept: KeptImages
    datasets: DatasetStore
    annotated: AnnotatedDatasets
    prelabels: PrelabelStore

    def take(self, image_id: str, dataset_id: str) -> dict[str, Any]:
        """Copy a kept image into a dataset; it waits for annotation there.

        It is in the dataset's next revision. The kept image stays until it is cleaned up.

        Returns:
            The dataset, `content` and whether it is new there.

        Raises:
            NotFound, DatasetNotFound: There is no such kept image or dataset.
            InvalidImage: Trainers do not read the image's format.
        """
        card = self.datasets.get(dataset_id)
        data = self.kept.open(image_id)
        image = next((one for one in self.kept.list() if one.id == image_id), None)
        if image is None:
            raise NotFound(f"The kept image {image_id[:80]!r} was deleted just now.")
        dataset = self._growing(dataset_id)
        entries = self.annotated.entries
        size = check_header(data, entries.max_pixels)
        content, suffix = entries.keep(dataset_id, data)
        name = f"live/{image_id}{suffix}"
        entry = image_entry(
            "original",
            content,
            suffix,
            Annotations(name, *size),
            rank=PRELABEL_RANK,
            document={"by": ORIGINAL, "name": name, "split": "", **NOT_ANNOTATED},
        )
        known = content in entries.contents(dataset.id)
        if not known:
            entries.add_images(dataset.id, [entry])
        found = _annotations(image.answer, name, size)
        self.prelabels.add(data, found, TOOL_OF[card["task"]].value, image.model_id)
        return {"dataset_id": dataset_id, "content": content, "name": name, "new": not known}

    def _growing(self, dataset_id: str) -> AnnotatedDataset:
        if is_upload(self.datasets, dataset_id):
            return adopt(self.annotated, self.datasets, dataset_id)
        return self.annotated.get(dataset_id)


def _annotations(answer: Mapping[str, Any], name: str, size: tuple[int, int]) -> Annotations:
    """The objects in an answer of `/infer`."""
    objects = []
    for row in answer.get("predictions", ()):
        box, outline = row.get("bounding_box"), row.get("polygon")
        points = row.get("keypoints") or ()
        objects.append(
            Annotation(
                label=str(row["label"]),
                box=(box["x1"], box["y1"], box["x2"], box["y2"]) if box else None,
                parts=(AnnotationPart(tuple((x, y) for x, y in outline)),) if outline else (),
                keypoints=tuple(
                    Keypoint(p["name"], p["x"], p["y"], score=p.get("confidence")) for p in points
                ),
                score=float(row["confidence"]),
            )
        )
    return Annotations(name, *size, tuple(objects))
