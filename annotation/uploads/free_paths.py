"""Paths of an upload's images in the data set that is made of them."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from annotation.uploads.intake import Intake
from dataset.documents.class_folder_annotations import names_no_class
from dataset.documents.image_names import comparable, without_suffix
from dataset.stated_splits import split_word


class FreePaths:
    """Paths below a folder that no other image has: those of the zip, without the folders that
    only say what they hold."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, folder: str, name: str, intake: Intake) -> str:
        """A path for an image of the zip; one that cannot keep its own is told."""
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
    """Names whose label files some file systems take for one are one."""
    return comparable(without_suffix(str(path)))
