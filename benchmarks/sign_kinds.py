"""Drawn street scenes whose signs are labelled by their kind in the Vienna Convention."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from formats.annotations import Annotations
from formats.coco import to_coco
from formats.yolo import from_yolo
from synthetic.scenes import write_detection_set
from synthetic.signs import CLASS_NAMES

KINDS = ("danger", "priority", "prohibitory", "mandatory")
PRIORITY = {"right of way at next crossing", "priority road", "yield", "stop"}


@dataclass(frozen=True)
class Drawn:
    """Files that a user would have: zips to upload, and the true labels of the images.

    Attributes:
        first: Zip of labelled images (in place of hand-labelled ones); a fifth is the val split.
        waiting: Zip of images without labels.
        corrections: The true labels of the `waiting` images, as a COCO document, in place of an
            annotator's work.
        held_out: Zip of labelled images; models are measured on its val split.
        unseen: The image files of the val split of `held_out`.
        truth: The true labels of the `unseen` images, in the same order.
    """

    first: Path
    waiting: Path
    corrections: Path
    held_out: Path
    unseen: list[Path]
    truth: list[Annotations]


def draw(
    folder: Path, *, labelled: int, waiting: int, held_out: int, size: int, seed: int
) -> Drawn:
    """Draw the given numbers of images of each of the three sets into `folder`.

    The same seed gives the same images. `size` is the longer side of an image in pixels.
    """
    val = max(2, labelled // 5)
    first = draw_scenes(folder / "first", labelled - val, val, size, seed)
    unlabelled = draw_scenes(folder / "waiting", waiting, 0, size, seed + 1)
    unseen = draw_scenes(folder / "held_out", 2, held_out, size, seed + 2)
    corrections = folder / "corrections.json"
    corrections.write_text(json.dumps(to_coco(labels(unlabelled, "train"), KINDS)))
    return Drawn(
        zipped(first, first),
        zipped(unlabelled, unlabelled / "images" / "train"),
        corrections,
        zipped(unseen, unseen),
        sorted((unseen / "images" / "val").glob("*.jpg")),
        labels(unseen, "val"),
    )


def draw_scenes(folder: Path, train: int, val: int, size: int, seed: int) -> Path:
    """Draw street scenes in YOLO's layout into `folder`; the classes are the kinds of signs."""
    write_detection_set(folder, train + val, seed, size, lambda number: number >= train)
    for file in folder.glob("labels/*/*.txt"):
        lines = [line.split(" ", 1) for line in file.read_text().splitlines()]
        rows = (f"{KINDS.index(kind_of(CLASS_NAMES[int(i)]))} {box}\n" for i, box in lines)
        file.write_text("".join(rows))
    names = "".join(f"  {i}: {kind}\n" for i, kind in enumerate(KINDS))
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")
    return folder


def kind_of(sign: str) -> str:
    """The kind of sign to which a class of the starter model belongs."""
    number = CLASS_NAMES.index(sign)
    if sign in PRIORITY:
        return "priority"
    if number >= CLASS_NAMES.index("turn right ahead"):
        return "mandatory"
    dangers = CLASS_NAMES.index("general caution"), CLASS_NAMES.index("children crossing")
    return "danger" if dangers[0] <= number <= dangers[1] else "prohibitory"


def zipped(folder: Path, root: Path) -> Path:
    """Write the content of `root` to a zip beside `folder`, named `<folder>.zip`.

    Returns:
        The path of the zip.
    """
    return Path(shutil.make_archive(str(folder), "zip", root))


def labels(folder: Path, split: str) -> list[Annotations]:
    """The true labels of the images of a split, in the order of the file names."""
    found = []
    for path in sorted((folder / "images" / split).glob("*.jpg")):
        with Image.open(path) as image:
            size = image.size
        text = (folder / "labels" / split / f"{path.stem}.txt").read_text()
        found.append(from_yolo(text, KINDS, size, path.name))
    return found
