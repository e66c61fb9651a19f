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
    """Files that a user has: zips to upload, and what is in the images.

    Attributes:
        first: Labelled by hand, with a val split of a fifth.
        waiting: Images without labels.
        corrections: What is in those, as a COCO document: the annotator's work.
        held_out: Labelled; its val split is what models are measured on.
        unseen: The images of that split.
        truth: What is in them.
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
    """Draw so many images of each into `folder`; the same seed gives the same images.

    `size`: the longer side of an image in pixels.
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
    """Street scenes with the kinds of their signs, in YOLO's layout, in `folder`."""
    write_detection_set(folder, train + val, seed, size, lambda number: number >= train)
    for file in folder.glob("labels/*/*.txt"):
        lines = [line.split(" ", 1) for line in file.read_text().splitlines()]
        rows = (f"{KINDS.index(kind_of(CLASS_NAMES[int(i)]))} {box}\n" for i, box in lines)
        file.write_text("".join(rows))
    names = "".join(f"  {i}: {kind}\n" for i, kind in enumerate(KINDS))
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")
    return folder


def kind_of(sign: str) -> str:
    """The kind of a sign of the starter model."""
    number = CLASS_NAMES.index(sign)
    if sign in PRIORITY:
        return "priority"
    if number >= CLASS_NAMES.index("turn right ahead"):
        return "mandatory"
    dangers = CLASS_NAMES.index("general caution"), CLASS_NAMES.index("children crossing")
    return "danger" if dangers[0] <= number <= dangers[1] else "prohibitory"


def zipped(folder: Path, root: Path) -> Path:
    """A zip of `root` beside `folder` and with its name."""
    return Path(shutil.make_archive(str(folder), "zip", root))


def labels(folder: Path, split: str) -> list[Annotations]:
    """What was drawn into the images of a split, in the order of their names."""
    found = []
    for path in sorted((folder / "images" / split).glob("*.jpg")):
        with Image.open(path) as image:
            size = image.size
        text = (folder / "labels" / split / f"{path.stem}.txt").read_text()
        found.append(from_yolo(text, KINDS, size, path.name))
    return found
