"""The folder that one job trains on, a view of a dataset: links to images, labels, a data.yaml.

Trainers leave caches beside labels; they stay in the view, so jobs on one dataset never meet, and
nothing is written into the user's folder.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from PIL import Image

from dataset.data_yaml import Keypoints
from dataset.image_scan import ScannedImage
from errors import VisionLoopError
from inference.images import decode
from settings import get_settings

log = logging.getLogger("visionloop")


@contextmanager
def new_view(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` when the block ends.

    What stood at `folder` is removed before. The name of the empty folder is always the same, so
    that a second attempt of a job clears what a killed one left.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    for old in (partial, folder):
        if old.is_symlink() or old.is_file():
            old.unlink()
        elif old.exists():
            shutil.rmtree(old)
    partial.mkdir(parents=True)
    yield partial
    os.replace(partial, folder)


def view_suffix(image: Path, scanned: ScannedImage) -> str:
    """The suffix that an image has in a view: its own, or PNG's where it is converted."""
    return ".png" if scanned.converted else image.suffix


def place_image(image: Path, scanned: ScannedImage, target: Path) -> bool:
    """A link to the image, or a PNG of its pixels where trainers would read other ones.

    Returns:
        False where the file has become unreadable since the scan: it is left out of the job.
    """
    if not scanned.converted:
        target.symlink_to(image.absolute())
        return True
    try:
        pixels = decode(image.read_bytes(), get_settings().max_pixels)
    except (OSError, VisionLoopError) as error:
        log.warning("'%s' is left out of this job: %s", image, error)
        return False
    Image.fromarray(pixels).save(target)
    return True


def write_data_yaml(
    file: Path,
    root: Path,
    splits: Iterable[str],
    names: Sequence[str],
    keypoints: Keypoints | None,
) -> None:
    """Write the data.yaml of a view with images/SPLIT and labels/SPLIT.

    Args:
        file: Where it is written now.
        root: The folder in which the view will lie; the yaml's `path`.
        splits: Their names.
        names: Of the classes, in order of id.
        keypoints: For `pose`.
    """
    content: dict[str, object] = {"path": str(root.absolute())}
    content |= {split: f"images/{split}" for split in splits}
    content["names"] = dict(enumerate(names))
    if keypoints is not None:
        content["kpt_shape"] = list(keypoints.shape)
        if keypoints.flip is not None:
            content["flip_idx"] = list(keypoints.flip)
        if keypoints.names is not None:
            content["kpt_names"] = {cls: list(keypoints.names) for cls in range(len(names))}
    write_yaml(file, content)


def write_yaml(file: Path, content: object) -> None:
    """Write YAML with keys in the given order and names as they are."""
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    file.write_text(text, encoding="utf-8")
