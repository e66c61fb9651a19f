"""Writes the view of a dataset that one job trains on: links to its images, labels, a data.yaml.

Trainers write caches next to the labels. With a view per job, jobs on the same dataset do not
share them, and nothing is written into the user's folder.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from PIL import Image

from dataset.data_yaml import Keypoints
from dataset.image_scan import ScannedImage
from errors import VisionLoopError
from inference.images import decode
from settings import get_settings

log = logging.getLogger("visionloop")


def view_suffix(image: Path, scanned: ScannedImage) -> str:
    """The suffix of an image in a view: its own, or `.png` if it is converted."""
    return ".png" if scanned.converted else image.suffix


def place_image(image: Path, scanned: ScannedImage, target: Path) -> bool:
    """Put an image into a view: as a link, or as a PNG if trainers would decode other pixels.

    Returns:
        False if the file has become unreadable since the scan; the job trains without it.
    """
    if not scanned.converted:
        target.symlink_to(image.absolute())
        return True
    try:
        pixels = decode(image.read_bytes(), get_settings().max_pixels)
    except (OSError, VisionLoopError) as error:
        log.warning("Image '%s' is not used in this job: %s", image, error)
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
    """Write the data.yaml of a view with the folders images/SPLIT and labels/SPLIT.

    Args:
        file: The file to write.
        root: The final folder of the view; becomes the key `path`.
        splits: Names of the splits.
        names: Class names in order of id.
        keypoints: Keypoints for `pose`, else None.
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
    """Write YAML with keys in the given order and Unicode characters unescaped."""
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    file.write_text(text, encoding="utf-8")
