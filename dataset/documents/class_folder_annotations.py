"""Reads folders of images per class as classification annotations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from dataset.documents.submission import DescribedImage, Size
from formats.annotations import Annotation, Annotations

NO_CLASS = re.compile(  # names of folders that are not a class, such as splits
    "images?|imgs?|pictures?|photos?|frames?|labels?|annotations?|data|dataset|jpegimages|"
    "obj_(train|valid|test)_data|train(ing)?|trainval|val|valid(ation)?|test(ing)?|eval|"
    "evaluation|dev|unlabell?ed|segmentation(class|object)\\w*",
    re.I,
)
MASKS = re.compile(r"segmentation(class|object)\w*|masks?|mask_?images|instance_?masks", re.I)
_YEAR = re.compile(r"[_-]?(19|20)\d\d$")


def names_no_class(folder: str) -> bool:
    """Whether a folder's name cannot be a class, such as `train2017` or `images`."""
    return bool(NO_CLASS.fullmatch(_YEAR.sub("", folder)))


def class_folder_annotations(
    images: Mapping[str, Path], root: str, names: Sequence[str]
) -> Iterator[DescribedImage]:
    """For each image its folder as its class, unless the folder's name is no class.

    Args:
        images: Path in the zip → image file.
        root: Name of the top folder; the class of images directly in it, if it is in `names`.
        names: The known classes.
    """
    for name in images:
        folders = PurePosixPath(name).parts[:-1] or ((root,) if root in names else ())
        sorts = [names_no_class(folder) for folder in folders]
        # train/train/0.jpg: the inner folder is the class, if a class has this name
        if folders and (not sorts[-1] or (folders[-1] in names and sorts[-2:-1] == [True])):
            yield _of_class(name, folders[-1])


def _of_class(name: str, label: str) -> DescribedImage:
    def read(size: Size) -> Annotations:
        return Annotations(name, *size, (Annotation(label),))

    return DescribedImage(name, read, where=name, source="folders")
