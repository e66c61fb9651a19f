"""Chooses unique paths for the images of an upload in its dataset."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from annotation.uploads.intake import Intake
from dataset.documents.class_folder_annotations import names_no_class
from dataset.documents.image_names import comparable, without_suffix
from dataset.splits import split_word


class FreePaths:
    """Gives each image a unique path.

    It is the path in the zip without folders that belong to a dataset's layout, such as `images`
    or `train`.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, folder: str, name: str, intake: Intake) -> str:
        """An unused path for an image of the zip.

        Args:
            folder: Folder of the dataset in which to store the image.
            name: The image's path in the zip.
            intake: Records the image as renamed if its name is already used.
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
    """A key that is equal for paths whose label files have the same name on some file systems."""
    return comparable(without_suffix(str(path)))
