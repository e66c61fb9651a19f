"""Parses Label Studio's labelling configuration: the controls of a project and their labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from errors import ValidationFailed
from formats.xml_documents import parse_xml

Kind = Literal["rectanglelabels", "polygonlabels", "keypointlabels", "choices"]

KINDS: dict[str, Kind] = {
    "rectanglelabels": "rectanglelabels",
    "polygonlabels": "polygonlabels",
    "keypointlabels": "keypointlabels",
    "choices": "choices",
}
OTHERS = (  # control tags that models cannot fill
    "labels", "brushlabels", "ellipselabels", "vectorlabels", "bitmasklabels", "brush", "ellipse",
    "rectangle", "polygon", "keypoint", "taxonomy", "magicwand", "rating", "textarea",
)  # fmt: skip
MARKING = (set(KINDS) | set(OTHERS)) - {"taxonomy", "rating", "textarea"}
LONGEST = 256 * 1024  # bytes of a configuration in a request
LONGEST_STORED = 1 << 20  # characters: versions before stored configurations up to this size


@dataclass(frozen=True, slots=True)
class Label:
    """A label of a control.

    Attributes:
        value: Its value in regions: the alias if it has one.
        classes: The model classes that it matches: `predicted_values`, else alias and value.
        point: `model_index`: the index of the model's keypoint that it matches.
    """

    value: str
    classes: tuple[str, ...]
    point: int | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """A control tag: regions refer to it by `from_name`; it annotates the image tag `to_name`.

    `model` and `confidence` are the tag's attributes `model` and `model_score_threshold`.
    """

    kind: Kind
    name: str
    to_name: str
    labels: tuple[Label, ...]
    model: str = ""
    confidence: float | None = None

    def labels_of(self, names: Iterable[str]) -> dict[str, str]:
        """Model class → the first label that matches it without case; only classes with one."""
        labels: dict[str, str] = {}
        for label in self.labels:
            for name in label.classes:
                labels.setdefault(plain(name), label.value)
        return {name: labels[plain(name)] for name in names if plain(name) in labels}


@dataclass(frozen=True, slots=True)
class ImageTag:
    """An `<Image>` tag.

    It has a name, and the key of a task's data that holds its URL or the URLs of its pages.
    `marked`: whether a control annotates it.
    """

    name: str
    key: str
    marked: bool


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """The controls of the first image of a configuration.

    Attributes:
        images: All image tags.
        controls: The controls that models can fill, in order.
        image_name: Name of the first image tag.
        image_key: The key of a task's data that holds the image's URL.
        others: Other controls, as `<BrushLabels name="…">`, for messages.
    """

    controls: tuple[Control, ...]
    image_name: str
    image_key: str
    others: tuple[str, ...] = ()
    images: tuple[ImageTag, ...] = ()


def plain(name: str) -> str:
    """A class name as it is compared: case-folded, with blanks normalised."""
    return " ".join(name.split()).casefold()


def parse_label_config(text: str) -> LabelConfig:
    """Parses an untrusted labelling configuration.

    Raises:
        ValidationFailed: It is not XML, has a DTD, has no `<Image>`, or is too long.
    """
    root = _root(text)
    if next(_tags(root, "image"), None) is None:
        raise ValidationFailed(
            "The labelling configuration has no <Image>; only image projects are supported."
        )
    images = _images(root)
    name = images[0].name
    controls, others = [], []
    for element in root.iter():
        tag = _tag(element)
        if name not in element.get("toName", "").split(","):
            continue
        per_region = element.get("perRegion", "false").lower() == "true"
        if tag in KINDS and not per_region:
            controls.append(_control(element, KINDS[tag], name))
        elif tag in OTHERS:
            others.append(f'<{element.tag} name="{element.get("name", "")}">')
    return LabelConfig(tuple(controls), name, images[0].key, tuple(others), images)


def _images(root: ElementTree.Element) -> tuple[ImageTag, ...]:
    pointed = {
        name.strip()
        for element in root.iter()
        if _tag(element) in MARKING and element.get("perRegion", "false").lower() != "true"
        for name in element.get("toName", "").split(",")
    }
    found = []
    for element in _tags(root, "image"):
        name = element.get("name", "image")
        value = element.get("value") or element.get("valueList") or ""
        found.append(ImageTag(name, value.strip().lstrip("$") or "image", name in pointed))
    return tuple(found)


def check_size(text: str) -> None:
    """Check that a configuration in a request is small enough to be parsed and stored.

    Raises:
        ValidationFailed: It is larger than LONGEST.
    """
    if len(text) > LONGEST or len(text.encode(errors="replace")) > LONGEST:
        raise ValidationFailed(
            f"The labelling configuration is larger than {LONGEST // 1024} KiB. Remove comments "
            "and styles, or labels that the project does not need."
        )


def _root(text: str) -> ElementTree.Element:
    if len(text) > LONGEST_STORED:
        raise ValidationFailed(
            "The labelling configuration is longer than a million characters. Remove labels that "
            "the project does not need."
        )
    return parse_xml(text, "labelling configuration", LONGEST_STORED)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.lower() if isinstance(element.tag, str) else ""


def _tags(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (element for element in root.iter() if _tag(element) == name)


def _control(element: ElementTree.Element, kind: Kind, image: str) -> Control:
    tag = "choice" if kind == "choices" else "label"
    return Control(
        kind,
        element.get("name", "tag"),
        image,
        tuple(_label(child) for child in _tags(element, tag)),
        element.get("model", "").strip(),
        _number(element.get("model_score_threshold")),
    )


def _label(element: ElementTree.Element) -> Label:
    value, alias = element.get("value", "").strip(), element.get("alias", "").strip()
    given = element.get("predicted_values", "").split(",")
    classes = tuple(name.strip() for name in given if name.strip())
    index = element.get("model_index", "")
    return Label(
        alias or value,
        classes or tuple(dict.fromkeys(name for name in (alias, value) if name)),
        int(index) if index.isascii() and index.isdigit() and len(index) < 10 else None,
    )


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value <= 1 else None
