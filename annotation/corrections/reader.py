"""Corrections of a data set: annotations matched to its images, taken in all or not at all."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from annotation.checked_annotations import NO_PLACE, checked, unfit
from annotation.corrections.agreement import are_equal
from annotation.corrections.image_identity import Claim, Identity, Image, free_names
from annotation.corrections.oddities import Oddities
from annotation.corrections.removals import Removal, removal
from annotation.diff import compare
from annotation.known_names import with_known_names
from annotation.pictures import PERSON, ImageRecord
from dataset.documents.submission import DescribedImage, Submission
from errors import ValidationFailed
from formats.annotations import NO_AREA, Annotations
from models_store.description import Task

SHOWN = 20  # names in an answer
UNCHANGED = 0.98  # IoU from which an object came back as it was
NO_IMAGE = "of images that are unmatched"
TWICE = "stated twice"
UNSAID = ("new, and nothing is marked in it", "it came, and nothing is said of it")
AS_IT_WAS = "came back as they were, and only=changed"
ANY = (1000, 1000)  # width and height to count objects by, of an image that is not there


@dataclass(frozen=True)
class Rules:
    """How a correction is taken.

    Attributes:
        dataset: Its id, for messages.
        names: Classes that the data set has.
        task: What it trains.
        max_pixels: Of a new image.
        only_changed: Pass over images that came back as they were: nobody may have looked.
        background: A document that lists an image without marking anything says that there is
            nothing in it.
        refuse_new: Of classes that the data set does not have.
        any_format: New images may be of every format that is read, not only of trainers' own.
    """

    dataset: str
    names: Sequence[str]
    task: Task
    max_pixels: int
    only_changed: bool = False
    background: bool = False
    refuse_new: bool = False
    any_format: bool = False


@dataclass
class Correction:
    """What a person says of a data set's images, and what became of everything that came.

    Attributes:
        found: Content → what is said of it.
        said_by: Content → what said it, likewise.
        images: Content → the image, likewise.
        names: Content → path to store it under, of images that are new.
        unchanged: Images that came back as they were.
        unmatched: Name → why it is no image's here.
        left: Known images of which nothing is said: they stay as they are.
        renamed: Path in the zip → path that it is stored under.
        received: Images and objects that came.
        passed_over: Reason → objects.
        removes: What the data set would lose.
        several: More than one image is described.
        repeated: Everything had been said before, by a person: there is nothing to do.
        oddities: What is told of the marks that are taken.
    """

    found: dict[str, Annotations] = field(default_factory=dict)
    said_by: dict[str, DescribedImage] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    unchanged: set[str] = field(default_factory=set)
    unmatched: dict[str, str] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    new_classes: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    received: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    removes: Removal = field(default_factory=Removal)
    notes: list[str] = field(default_factory=list)
    ignored: Sequence[str] = ()
    several: bool = False
    repeated: bool = False
    oddities: Oddities = field(default_factory=Oddities)

    @property
    def needs_confirmation(self) -> bool:
        return self.several and self.removes.large

    def to_json(self) -> dict[str, Any]:
        new = len(self.names)
        unmatched = self.received["unmatched"]
        return {
            "received": len(self.found),
            "new_pictures": new,
            "unchanged": len(self.unchanged),
            "unmatched_count": unmatched,
            "unmatched": list(self.unmatched)[:SHOWN],
            "unmatched_reasons": dict(list(self.unmatched.items())[:SHOWN]),
            "new_classes": self.new_classes,
            "accounting": {
                "images": {
                    "received": self.received["images"],
                    "matched": self.received["images"] - unmatched - new,
                    "new": new,
                    "unmatched": unmatched,
                },
                "objects": {
                    "received": self.received["objects"],
                    "stored": sum(map(len, self.found.values())),
                    "passed_over": dict(self.passed_over),
                },
            },
            "left_as_they_are": len(self.left),
            "renamed": self.renamed,
            "ignored_files": list(self.ignored)[:SHOWN],
            "removes": self.removes.to_json(),
            "notes": self.notes,
        }


def read_correction(pictures: Sequence[ImageRecord], sent: Submission, rules: Rules) -> Correction:
    """What is said of a data set's images, checked; nothing is taken yet.

    An image of the zip that the data set does not have is to be added to it.

    Args:
        pictures: The data set's.
        sent: What came.
        rules: How to take it.

    Raises:
        ValidationFailed: There is nothing to take, or it fits no image; a mark is impossible;
            two documents differ on an image; a class is new where that is refused.
        InvalidImage, PayloadTooLarge: A new image cannot be read, or is too large.
    """
    _refuse_nothing(sent, rules)
    identity = Identity(pictures, sent, rules.max_pixels, rules.any_format)
    made = Correction(notes=list(sent.notes), ignored=sent.ignored)
    _pass_over(made, sent.skipped)
    for claim in identity.claims():
        _take(made, claim, rules, made.said_by)
    made.notes += made.oddities.notes()
    _count_images(made, identity, sent)
    _refuse_unmatched(made, rules)
    _compare(made, {picture.content: picture for picture in pictures}, rules)
    _name_new(made, pictures)
    _new_classes(made, rules)
    made.removes = removal(pictures, made.found, rules.task)
    made.several = len({(described.beside, described.name) for described in sent.described}) > 1
    return made


def _refuse_nothing(sent: Submission, rules: Rules) -> None:
    """Raises ValidationFailed: nobody has finished anything of what came."""
    if not sent.described:
        raise ValidationFailed(_nothing_readable(sent, rules))
    unfinished = Counter(m.why for m in sent.described if m.empty == "unfinished")
    if unfinished.total() == len(sent.described):
        counts = ", ".join(
            f"{n} {why or 'whose objects cannot be held'}" for why, n in unfinished.items()
        )
        raise ValidationFailed(
            f"There is no finished annotation in what came: {len(sent.described)} tasks or images, "
            f"{counts}. Nothing was changed. Submit them in the annotation tool and export again."
        )


def _nothing_readable(sent: Submission, rules: Rules) -> str:
    files = f"{len(sent.images)} images" if sent.images else "no images"
    other = f" and {', '.join(sent.ignored[:5])}" if sent.ignored else ""
    classes = (
        "" if rules.task == "classify" else (f" Folders are no classes in a {rules.task} data set.")
    )
    return (
        f"Nothing here can be read as annotations: there are {files}{other}. Nothing was changed."
        f"{classes} Pack the export of an annotation tool: Label Studio (JSON), COCO, LabelMe, "
        "Pascal VOC, CVAT for images (XML), or YOLO's label files with their data.yaml, "
        "classes.txt or obj.names."
    )


def _take(made: Correction, claim: Claim, rules: Rules, said_by: dict[str, DescribedImage]) -> None:
    """Count what an annotation says, and keep it if its image is known."""
    described, image = claim.described, claim.image
    made.received["images"] += image is None or image.content not in made.images
    if image is None:
        found = described.read(described.size or ANY)
        _pass_over(made, described.skipped)
        _pass_over(made, Counter({NO_IMAGE: len(found)}))
        _unmatched(made, described.name, claim.reason)
        return
    made.images[image.content] = image
    found = with_known_names(described.read(image.size), rules.names)
    _pass_over(made, described.skipped)
    kept = _fitting(made, found, rules)
    if not kept.objects and not _is_empty(described, found, rules):
        made.left.add(image.content)
        return
    where = described.where or described.name
    whole = checked(kept, where, image.size)
    made.oddities.look(kept, whole, where)
    _put(made, image.content, whole, described, said_by)


def _fitting(made: Correction, found: Annotations, rules: Rules) -> Annotations:
    """Without the objects that a data set of this task has no form for."""
    reasons = [unfit(thing, rules.task) for thing in found.objects]
    _pass_over(made, Counter(filter(None, reasons)))
    made.received["objects"] += reasons.count("")
    kept = tuple(t for t, reason in zip(found.objects, reasons, strict=True) if not reason)
    return Annotations(found.image, found.width, found.height, kept)


def _is_empty(described: DescribedImage, found: Annotations, rules: Rules) -> bool:
    """Whether it says that nothing is in the image."""
    lost = not described.skipped.keys().isdisjoint((NO_AREA, NO_PLACE))
    drawn = lost or any(thing.bounds for thing in found.objects)
    if drawn or described.empty == "unfinished":
        return False  # there was something
    if described.empty == "finished":
        return True
    nothing_lost = not found.objects and described.skipped.total() == 0
    return nothing_lost and (described.empty == "stated" or rules.background)


def _put(
    made: Correction,
    content: str,
    found: Annotations,
    described: DescribedImage,
    said_by: dict[str, DescribedImage],
) -> None:
    if content not in made.found:
        made.found[content], said_by[content] = found, described
        return
    other = made.found[content]
    if not is_unchanged(other, found):
        raise ValidationFailed(
            f"{_where(said_by[content])} and {_where(described)} are about the same image here, "
            "and say different things of it. Send one of them; where they are two images, name "
            "them by the SHA-256 of their content, or send the images, too."
        )
    if _detail(found) > _detail(other):
        made.found[content], found = found, other
    made.passed_over[TWICE] += len(found)


def _detail(found: Annotations) -> int:
    return sum(len(thing.parts) + len(thing.keypoints) for thing in found.objects)


def _where(described: DescribedImage) -> str:
    where, name = described.where[:120], described.name[:100]
    return where if name in where else f"{where} ({name})" if where else name


def _pass_over(made: Correction, reasons: Counter[str]) -> None:
    made.passed_over += reasons
    made.received["objects"] += reasons.total()


def _unmatched(made: Correction, name: str, reason: str) -> None:
    made.unmatched.setdefault(name[:200], reason)  # that of its annotation comes first
    made.received["unmatched"] += 1


def _count_images(made: Correction, identity: Identity, sent: Submission) -> None:
    """Of what was described and of what came without a word."""
    made.left -= made.found.keys()
    for content in [c for c in made.left if made.images[c].picture is None]:
        made.left.discard(content)
        _unmatched(made, made.images[content].sent, f"{UNSAID[0]}: "
                   "empty=background adds it as an image without objects")  # fmt: skip
    known = set(made.images)
    for name, content in sent.contents.items():
        if content in known:
            continue
        known.add(content)
        made.received["images"] += 1
        if identity.has(content):
            made.left.add(content)
        else:
            _unmatched(made, name, UNSAID[1])
    if made.left:
        made.notes.append(
            f"{len(made.left)} images stay as they are: nothing is marked in them, which may mean "
            "that nobody has looked, or nothing that can be held. With empty=background images "
            "that a document lists without a mark become images without objects."
        )


def _refuse_unmatched(made: Correction, rules: Rules) -> None:
    if made.found:
        return
    if made.left and not made.passed_over[NO_IMAGE]:
        over = ", ".join(f"{n} {reason}" for reason, n in made.passed_over.items())
        raise ValidationFailed(
            f"There is nothing to take: {len(made.left)} images are described, and no object is "
            f"marked in them that can be held{f' ({over})' if over else ''}. Nothing was changed. "
            "Where they have none, send them with empty=background."
        )
    shown = "; ".join(f"{name}: {why}" for name, why in list(made.unmatched.items())[:3])
    raise ValidationFailed(
        f"No annotation fits an image of '{rules.dataset}'. {shown or 'None came'}. Images are "
        "known by their content, their paths or their file names; new ones come in the same zip."
    )


def is_unchanged(before: Annotations, after: Annotations) -> bool:
    """Whether every object came back."""
    return all(change.kind == "accepted" for change in compare(before, after, UNCHANGED))


def _compare(made: Correction, pictures: Mapping[str, ImageRecord], rules: Rules) -> None:
    repeated = set()
    for content, found in made.found.items():
        picture = pictures.get(content)
        if picture is None or not is_unchanged(picture.annotations, found):
            continue
        made.unchanged.add(content)
        if picture.by == PERSON and are_equal(picture.annotations, found):
            repeated.add(content)
    made.repeated = len(repeated) == len(made.found) and not rules.only_changed
    if rules.only_changed:
        gone = [made.found.pop(content) for content in made.unchanged]
        made.passed_over += Counter({AS_IT_WAS: sum(map(len, gone))})
    if not made.found:
        raise ValidationFailed(
            f"All {len(made.unchanged)} images came back as they were, and 'only' is changed: "
            "nothing was taken. With only=all they count as looked at."
        )


def _name_new(made: Correction, pictures: Sequence[ImageRecord]) -> None:
    new = [made.images[c] for c in made.found if made.images[c].picture is None]
    made.names = free_names(new, pictures)
    made.renamed = {
        image.sent: made.names[image.content]
        for image in new
        if made.names[image.content] != image.sent
    }


def _new_classes(made: Correction, rules: Rules) -> None:
    """Raises ValidationFailed: there are some, and they are refused."""
    labels = {thing.label for found in made.found.values() for thing in found.objects}
    made.new_classes = sorted(labels - set(rules.names))
    some = made.new_classes[:SHOWN]
    near = {name: other for name in some if (other := _near(name, rules.names))}
    if made.new_classes and rules.refuse_new:
        shown = ", ".join(
            f"{name!r:.80}{f' (did you mean {near[name]!r:.80}?)' if name in near else ''}"
            for name in made.new_classes[:SHOWN]
        )
        raise ValidationFailed(
            f"Classes that '{rules.dataset}' does not have: {shown}. It has "
            f"{', '.join(rules.names[:SHOWN])}. Without new_classes=refuse they are added."
        )
    made.notes += [
        f"The class {name!r:.80} is new, and near to {other!r:.80}: new_classes=refuse refuses it."
        for name, other in near.items()
    ]


def _near(name: str, names: Sequence[str]) -> str:
    plain = {other.casefold().strip(): other for other in names}
    found = difflib.get_close_matches(name.casefold().strip(), plain, 1)
    return plain[found[0]] if found else ""
