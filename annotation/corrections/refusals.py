"""The errors that reject a correction. Each states what was submitted and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from annotation.corrections.correction import SHOWN, Correction, CorrectionRules
from dataset.documents.submission import DescribedImage, Submission
from errors import ValidationFailed


def no_document(sent: Submission, rules: CorrectionRules) -> ValidationFailed:
    """The error if the submission contains no annotation document."""
    files = f"{len(sent.images)} images" if sent.images else "no images"
    other = f" and {', '.join(sent.ignored[:5])}" if sent.ignored else ""
    folders = (
        ""
        if rules.task == "classify"
        else f" Folders are not read as classes in a {rules.task} dataset."
    )
    return ValidationFailed(
        f"The upload contains no annotations that can be read: it has {files}{other}. Nothing "
        f"was changed.{folders} Pack the export of an annotation tool: Label Studio (JSON), "
        "COCO, LabelMe, Pascal VOC, CVAT for images (XML), or YOLO's label files with their "
        "data.yaml, classes.txt or obj.names."
    )


def nothing_finished(sent: Submission) -> ValidationFailed:
    """The error if the submission contains no finished annotation."""
    reasons = Counter(described.why for described in sent.described)
    counts = ", ".join(
        f"{n} {reason or 'whose objects cannot be stored'}" for reason, n in reasons.items()
    )
    return ValidationFailed(
        f"The upload contains no finished annotation: {len(sent.described)} tasks or images, "
        f"{counts}. Nothing was changed. Submit them in the annotation tool and export again."
    )


def contradiction(one: DescribedImage, other: DescribedImage) -> ValidationFailed:
    """The error if two documents annotate one image differently."""
    return ValidationFailed(
        f"{_where(one)} and {_where(other)} annotate the same image of the dataset differently. "
        "Send only one of them. If they are two images, name each by the SHA-256 of its file, "
        "or send the images too."
    )


def nothing_to_take(made: Correction) -> ValidationFailed:
    """The error if images match, but the dataset can store none of their objects."""
    reasons = ", ".join(f"{n} {reason}" for reason, n in made.passed_over.items())
    return ValidationFailed(
        f"{len(made.left)} images are described, but none of their objects can be "
        f"stored{f' ({reasons})' if reasons else ''}. Nothing was changed. If the images have no "
        "objects, send them with empty=background."
    )


def nothing_matched(made: Correction, rules: CorrectionRules) -> ValidationFailed:
    """The error if no annotation matches an image of the dataset."""
    shown = "; ".join(f"{name}: {reason}" for name, reason in list(made.unmatched.items())[:3])
    return ValidationFailed(
        f"No annotation matches an image of '{rules.dataset}'. "
        f"{shown or 'The upload has no annotations'}. Images are matched by content, path or "
        "file name. To add new images, put them in the same zip."
    )


def nothing_changed(count: int) -> ValidationFailed:
    """The error if only changed annotations are accepted and none has changed."""
    return ValidationFailed(
        f"The annotations of all {count} images are unchanged, and 'only' is changed, so nothing "
        "was stored. Send only=all to count the images as reviewed."
    )


def new_classes(
    names: Sequence[str], similar: Mapping[str, str], rules: CorrectionRules
) -> ValidationFailed:
    """The error for classes that the dataset does not have.

    Args:
        names: The new class names.
        similar: New name → similar class name of the dataset.
        rules: The rules of the correction.
    """
    shown = ", ".join(
        f"{name!r:.80}{f' (did you mean {similar[name]!r:.80}?)' if name in similar else ''}"
        for name in names[:SHOWN]
    )
    return ValidationFailed(
        f"'{rules.dataset}' does not have the classes {shown}. Known: "
        f"{', '.join(rules.names[:SHOWN])}. Without new_classes=refuse, new classes are added."
    )


def _where(described: DescribedImage) -> str:
    where, name = described.where[:120], described.name[:100]
    return where if name in where else f"{where} ({name})" if where else name
