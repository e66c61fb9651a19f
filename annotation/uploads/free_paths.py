"""Paths of an upload's images in the dataset that is made of them."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from annotation.uploads.intake import Intake
from dataset.documents.class_folder_annotations import names_no_class
from dataset.documents.image_names import comparable, without_suffix
from dataset.stated_splits import split_word


class FreePaths:
    """Gives each image a path of its own: that of the zip, without folders that only say what
    they hold, such as `images` or `train`."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, folder: str, name: str, intake: Intake) -> str:
        """A free path for an image of the zip.

        Args:
            folder: Of the dataset, in which the path is.
            name: The image's path in the zip.
            intake: Where an image is noted that cannot keep its name.
        """
        parts = [
            part
            for part in PurePosixPath(name).parts[:-1]
            if not names_no_class(part) and not split_word(part)
        ]
        last = PurePosixPath(name).name
        stem, suffix = without_suffix(last), os.path.splitext(last)[1]
        path, number = PurePosixPath(folder, *parts, last), 1
        while _key(path) in self._taken:
            number += 1
            path = path.with_name(f"{stem}-{number}{suffix}")
        self._taken.add(_key(path))
        if path.name != last:
            intake.renamed[name] = str(path)
        return str(path)


def _key(path: PurePosixPath) -> str:
    """Equal for paths whose label files some file systems cannot tell apart."""
    return comparable(without_suffix(str(path)))
