"""Reads a submission as a correction: matches its annotations to images and validates them."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from annotation.checked_annotations import NO_AREA_IN_IMAGE, checked, misfit
from annotation.corrections import refusals
from annotation.corrections.agreement import are_equal
from annotation.corrections.correction import SHOWN, Correction, CorrectionRules
from annotation.corrections.image_identity import Claim, Identity, free_names
from annotation.corrections.removals import removal
from annotation.diff import compare_annotations
from annotation.image_records import PERSON, ImageRecord
from annotation.known_names import with_known_names
from dataset.documents.submission import DescribedImage, Submission
from formats.annotations import NO_AREA, Annotations

ASSUMED_SIZE = (1000, 1000)  # pixels; used to count the objects of an image of unknown size
UNCHANGED_IOU = 0.98  # smallest IoU at which an object counts as unchanged
UNMATCHED_IMAGE = "on unmatched images"
STATED_TWICE = "stated twice"
UNCHANGED = "unchanged, and left out because of only=changed"
NEW_WITHOUT_OBJECTS = "new, and without an annotated object"
NOT_DESCRIBED = "in the upload, but no document describes it"


def read_correction(
    records: Sequence[ImageRecord], sent: Submission, rules: CorrectionRules
) -> Correction:
    """The submission's annotations of a dataset's images, validated; nothing is stored yet.

    Images of the zip that the dataset does not have are new images of the correction.

    Args:
        records: The dataset's images.
        sent: The submission.
        rules: How to read it.

    Raises:
        ValidationFailed: No annotation is finished, or none matches an image; an object is invalid;
            two documents contradict each other; a class is new and new classes are not allowed.
        InvalidImage, PayloadTooLarge: A new image cannot be read, or is too large.
    """
    _check_finished(sent, rules)
    identity = Identity(records, sent, rules.max_pixels, rules.any_format)
    made = Correction(notes=list(sent.notes), ignored=sent.ignored)
    made.pass_over(sent.skipped)
    for claim in identity.claims():
        _read_claim(made, claim, rules)
    made.notes += made.oddities.notes()
    _account_for_images(made, identity, sent)
    _check_matched(made, rules)
    _compare_with_stored(made, {record.content: record for record in records}, rules)
    _name_new_images(made, records)
    _check_classes(made, rules)
    made.removes = removal(records, made.found, rules.task)
    made.several = len({(described.beside, described.name) for described in sent.described}) > 1
    return made


def is_unchanged(before: Annotations, after: Annotations) -> bool:
    """Whether both contain the same objects, up to rounding."""
    changes = compare_annotations(before, after, UNCHANGED_IOU)
    return all(change.kind == "accepted" for change in changes)


def _check_finished(sent: Submission, rules: CorrectionRules) -> None:
    """Raises ValidationFailed if the submission contains no finished annotation."""
    if not sent.described:
        raise refusals.no_document(sent, rules)
    if all(described.empty == "unfinished" for described in sent.described):
        raise refusals.nothing_finished(sent)


def _read_claim(made: Correction, claim: Claim, rules: CorrectionRules) -> None:
    """Count the objects of an annotation, and keep them if its image was found."""
    described, image = claim.described, claim.image
    made.received["images"] += image is None or image.content not in made.images
    if image is None:
        found = described.read(described.size or ASSUMED_SIZE)
        made.pass_over(described.skipped)
        made.pass_over(Counter({UNMATCHED_IMAGE: len(found)}))
        made.note_unmatched(described.name, claim.reason)
        return
    made.images[image.content] = image
    found = with_known_names(described.read(image.size), rules.names)
    made.pass_over(described.skipped)
    fitting = _fitting(made, found, rules)
    left = not fitting.objects and not described.stored
    if left and not _has_no_objects(described, found, rules):
        made.left.add(image.content)
        return
    where = described.where or described.name
    stored = checked(fitting, where, image.size)
    made.oddities.add(fitting, stored, where)
    made.received["objects"] += len(described.stored)
    every = replace(stored, objects=(*described.stored, *stored.objects))
    _keep(made, image.content, every, described)


def _fitting(made: Correction, found: Annotations, rules: CorrectionRules) -> Annotations:
    """The objects that a dataset of this task can contain; the others are counted and dropped."""
    reasons = [misfit(thing, rules.task) for thing in found.objects]
    made.pass_over(Counter(filter(None, reasons)))
    made.received["objects"] += reasons.count("")
    kept = tuple(t for t, reason in zip(found.objects, reasons, strict=True) if not reason)
    return Annotations(found.image, found.width, found.height, kept)


def _has_no_objects(described: DescribedImage, found: Annotations, rules: CorrectionRules) -> bool:
    """Whether an annotation without usable objects states that the image is a background."""
    lost = not described.skipped.keys().isdisjoint((NO_AREA, NO_AREA_IN_IMAGE))
    drawn = lost or any(thing.bounds for thing in found.objects)
    if drawn or described.empty == "unfinished":
        return False
    if described.empty == "finished":
        return True
    nothing_skipped = not found.objects and described.skipped.total() == 0
    return nothing_skipped and (described.empty == "stated" or rules.background)


def _keep(made: Correction, content: str, found: Annotations, described: DescribedImage) -> None:
    """Keep an image's annotations; if two documents agree on them, the more detailed ones."""
    if content not in made.found:
        made.found[content], made.sources[content] = found, described
        return
    other = made.found[content]
    if not is_unchanged(other, found):
        raise refusals.contradiction(made.sources[content], described)
    if _detail(found) > _detail(other):
        made.found[content], found = found, other
    made.passed_over[STATED_TWICE] += len(found)


def _detail(found: Annotations) -> int:
    return sum(len(thing.parts) + len(thing.keypoints) for thing in found.objects)


def _account_for_images(made: Correction, identity: Identity, sent: Submission) -> None:
    """Record the images without objects, and those that no document annotates."""
    made.left -= made.found.keys()
    for content in [c for c in made.left if made.images[c].record is None]:
        made.left.discard(content)
        reason = f"{NEW_WITHOUT_OBJECTS}: empty=background adds it as an image without objects"
        made.note_unmatched(made.images[content].sent, reason)
    known = set(made.images)
    for name, content in sent.contents.items():
        if content in known:
            continue
        known.add(content)
        made.received["images"] += 1
        if identity.has(content):
            made.left.add(content)
        else:
            made.note_unmatched(name, NOT_DESCRIBED)
    if made.left:
        made.notes.append(
            f"{len(made.left)} images are unchanged, because the upload has no object for them "
            "that can be stored: they may not have been reviewed. With empty=background, images "
            "that a document lists without an object are stored as images without objects."
        )


def _check_matched(made: Correction, rules: CorrectionRules) -> None:
    """Raises ValidationFailed if no annotation matches an image of the dataset."""
    if made.found:
        return
    if made.left and not made.passed_over[UNMATCHED_IMAGE]:
        raise refusals.nothing_to_take(made)
    raise refusals.nothing_matched(made, rules)


def _compare_with_stored(
    made: Correction, records: Mapping[str, ImageRecord], rules: CorrectionRules
) -> None:
    """Find the unchanged annotations, and drop them if the rules accept only changed ones."""
    repeated = set()
    for content, found in made.found.items():
        record = records.get(content)
        if record is None or not is_unchanged(record.annotations, found):
            continue
        made.unchanged.add(content)
        if record.by == PERSON and are_equal(record.annotations, found):
            repeated.add(content)
    made.repeated = len(repeated) == len(made.found) and not rules.only_changed
    if rules.only_changed:
        dropped = [made.found.pop(content) for content in made.unchanged]
        made.passed_over += Counter({UNCHANGED: sum(map(len, dropped))})
    if not made.found:
        raise refusals.nothing_changed(len(made.unchanged))


def _name_new_images(made: Correction, records: Sequence[ImageRecord]) -> None:
    """Choose the paths under which new images are stored."""
    new = [made.images[c] for c in made.found if made.images[c].record is None]
    made.names = free_names(new, records)
    made.renamed = {
        image.sent: made.names[image.content]
        for image in new
        if made.names[image.content] != image.sent
    }


def _check_classes(made: Correction, rules: CorrectionRules) -> None:
    """Record new classes. Raises ValidationFailed if the rules do not allow them."""
    labels = {thing.label for found in made.found.values() for thing in found.objects}
    made.new_classes = sorted(labels - set(rules.names))
    shown = made.new_classes[:SHOWN]
    similar = {name: other for name in shown if (other := _similar(name, rules.names))}
    if made.new_classes and rules.refuse_new:
        raise refusals.new_classes(made.new_classes, similar, rules)
    made.notes += [
        f"The class {name!r:.80} is new and similar to {other!r:.80}. To have new classes "
        "rejected, send new_classes=refuse."
        for name, other in similar.items()
    ]


def _similar(name: str, names: Sequence[str]) -> str:
    """The most similar class name of the dataset; empty if none is similar."""
    plain = {other.casefold().strip(): other for other in names}
    found = difflib.get_close_matches(name.casefold().strip(), plain, 1)
    return plain[found[0]] if found else ""
