"""Folders of images per class, as annotations of the images in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from dataset.documents.submission import DescribedImage, Size
from formats.annotations import Annotation, Annotations

NO_CLASS = re.compile(  # folders that sort images by something else than their class
    "images?|imgs?|pictures?|photos?|frames?|labels?|annotations?|data|dataset|jpegimages|"
    "obj_(train|valid|test)_data|train(ing)?|trainval|val|valid(ation)?|test(ing)?|eval|"
    "evaluation|dev|unlabell?ed|segmentation(class|object)\\w*",
    re.I,
)
MASKS = re.compile(r"segmentation(class|object)\w*|masks?|mask_?images|instance_?masks", re.I)
_YEAR = re.compile(r"[_-]?(19|20)\d\d$")


def names_no_class(folder: str) -> bool:
    """Whether a folder's name sorts images by something else than their class: `train2017`."""
    return bool(NO_CLASS.fullmatch(_YEAR.sub("", folder)))


def class_folder_annotations(
    images: Mapping[str, Path], root: str, names: Sequence[str]
) -> Iterator[DescribedImage]:
    """The folder of an image is its class, unless it sorts them by something else."""
    for name in images:
        folders = PurePosixPath(name).parts[:-1] or ((root,) if root in names else ())
        sorts = [names_no_class(folder) for folder in folders]
        # train/train/0.jpg: the inner one is the class, if there is such a class
        if folders and (not sorts[-1] or (folders[-1] in names and sorts[-2:-1] == [True])):
            yield _of_class(name, folders[-1])


def _of_class(name: str, label: str) -> DescribedImage:
    def read(size: Size) -> Annotations:
        return Annotations(name, *size, (Annotation(label),))

    return DescribedImage(name, read, where=name, source="folders")
