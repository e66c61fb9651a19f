"""Reads every label file of a dataset once: counts the objects per class, reports bad lines."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset.issues import Findings
from dataset.label_files import LOST, SIXTH, LabelFormat, parse
from errors import DatasetInvalid

TOO_MANY = 0.2  # share of unusable lines above which the dataset is rejected


@dataclass
class LabelCounts:
    """Contents of the label files.

    Attributes:
        counts: Split → class id → number of objects.
        object_classes: Image → class id of each object.
        digests: Label file → SHA-256.
        rewritten: Label files that must be rewritten for training.
        labelled: Label files with at least one usable line.
        lines: Number of lines, without blank ones.
        sixth: Number of lines whose sixth column cannot be a confidence.
        refused: Image → 1-based numbers of the lines that are left out.
    """

    counts: dict[str, Counter[int]] = field(default_factory=dict)
    object_classes: dict[Path, tuple[int, ...]] = field(default_factory=dict)
    digests: dict[Path, str] = field(default_factory=dict)
    rewritten: set[Path] = field(default_factory=set)
    labelled: set[Path] = field(default_factory=set)
    lines: int = 0
    sixth: int = 0
    refused: dict[Path, list[int]] = field(default_factory=dict)


def read_labels(
    splits: Mapping[str, Sequence[Path]],
    labels: Mapping[Path, Path],
    label_format: LabelFormat,
    root: Path,
    findings: Findings,
) -> LabelCounts:
    """Parse every label file.

    Raises:
        DatasetInvalid: A label file cannot be opened.
    """
    counted = LabelCounts()
    for split, images in splits.items():
        counts = counted.counts[split] = Counter()
        for image in images:
            label = labels.get(image)
            if label is None:
                findings.add("missing_label", shown(image, root))
                continue
            try:
                data = label.read_bytes()
            except OSError as error:
                raise DatasetInvalid(
                    f"'{label.name}' cannot be read: {error.strerror}. Let the server's user read "
                    "it."
                ) from None
            parsed = parse(data, label_format)
            classes = tuple(row.cls for row in parsed.rows)
            counts.update(classes)
            counted.object_classes[image] = classes
            counted.lines += parsed.lines
            counted.digests[label] = hashlib.sha256(data).hexdigest()
            if parsed.rows:
                counted.labelled.add(label)
            if parsed.rewritten:
                counted.rewritten.add(label)
            if lost := [issue.line for issue in parsed.issues if issue.kind in LOST]:
                counted.refused[image] = lost
            counted.sixth += sum(issue.reason.startswith(SIXTH) for issue in parsed.issues)
            for issue in parsed.issues:
                where = f" line {issue.line}" if issue.line else ""
                findings.add(issue.kind, f"{shown(label, root)}{where}: {issue.reason}")
    return counted


def judge(
    counted: LabelCounts, label_format: LabelFormat, names: Sequence[str], findings: Findings
) -> None:
    """Add the findings that follow from the counts of all label files together."""
    seen = findings.counts
    many = TOO_MANY * max(counted.lines, 1)
    if seen["outside"] > many:
        findings.note(
            "coordinates",
            f"{seen['outside']} of {counted.lines} label lines are outside the image. Coordinates "
            "must be fractions of its width and height (0 to 1); these may be pixels.",
            fatal=True,
        )
    if seen["malformed_line"] > many:
        findings.note(
            "labels",
            f"{seen['malformed_line']} of {counted.lines} label lines cannot be read.",
            fatal=True,
        )
    boxes = seen["box_as_polygon"] > counted.lines / 2
    if seen["wrong_form"] > many or boxes:
        findings.note("task", _wrong_task(label_format), fatal=True)
    if counted.sixth and seen["confidence"]:
        findings.note(
            "angles",
            f"{counted.sixth} label lines have a sixth column that is not a confidence (0 to 1). "
            f"The sixth column may be an angle or a track id in the other {seen['confidence']} "
            "lines too. Write rotated boxes as their four corners, or remove the column.",
            fatal=True,
        )
    if seen["class_id"]:  # wrong class ids would cause the findings below
        return
    for split in ("train", "val"):
        if not counted.counts.get(split):
            findings.note("empty", f"{split} has no usable labelled object.", fatal=True)
    unused = [name for i, name in enumerate(names) if not counted.counts["train"][i]]
    if counted.counts["train"] and unused:
        some = ", ".join(unused[:5]) + (", …" if len(unused) > 5 else "")
        findings.note("unused", f"Classes without an object in train: {len(unused)} ({some}).")
    note_unmeasured(counted.counts, names, findings)


def note_unmeasured(
    counts: Mapping[str, Mapping[int, int]], names: Sequence[str], findings: Findings
) -> None:
    """Note the classes of train that val, or test, cannot measure: it has no object of them.

    Args:
        counts: Split → class id → number of objects, or of images for task classify.
        names: The names of the classes.
        findings: Where it is noted.
    """
    for split in ("val", "test"):
        missing = [
            name
            for i, name in enumerate(names)
            if counts["train"].get(i) and counts.get(split) and not counts[split].get(i)
        ]
        if missing:
            some = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
            findings.note(
                "unmeasured",
                f"{split} has nothing of {len(missing)} of the classes in train ({some}). Its "
                "metrics say nothing about them, and the gate refuses a version of a model that "
                f"knows them, unless it has allow_unmeasured. Move images of them to {split}, or "
                "add some.",
            )


def _wrong_task(label_format: LabelFormat) -> str:
    if label_format.task == "segment":
        need, hint = "polygons (class x1 y1 x2 y2 x3 y3 …)", "For boxes use task detect."
    else:
        count, size = label_format.keypoints or (0, 0)
        need = f"{5 + count * size} columns per line for kpt_shape [{count}, {size}]"
        hint = "Correct kpt_shape, or use the task that the labels are for."
    return f"Task {label_format.task} needs {need}; these labels are different. {hint}"


def shown(path: Path, root: Path) -> str:
    """A path for messages: relative to `root` if it is inside."""
    return os.path.relpath(path, root) if path.is_relative_to(root) else str(path)
