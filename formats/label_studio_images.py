"""Finds the image of a Label Studio task that each region belongs to.

A task may show several images: several `<Image>` tags, each with its own key of the task's data,
or a list of pages in one key. A region names its tag (`to_name`) and its page (`item_index`). Only
the labelling configuration says which key a tag reads. Without it, a task can be read only if its
data has a single key that can be an image.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from errors import ValidationFailed
from formats.label_studio_config import ImageTag

_IMAGE = re.compile(
    r"\.(?:jpe?g|jpe|jfif|png|webp|bmp|dib|gif|tiff?|avif|heic|heif|jp2|pp?m|pgm|mpo|dng)$", re.I
)
_OF_TOOL = ("/data/upload/", "/data/local-files/", "/storage-data/", "/tasks/")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # prefix that Label Studio gives uploaded files
RELATIONS = "Label Studio relation results"
OTHER_TAG = "Label Studio regions of objects other than images"
ALL_PAGES = "Label Studio results for all pages of a task together"
DRAWN = ("x", "points", "rle", "vertices", "imageDataURL")  # value keys of drawn regions
REMEDY = (
    "The project's labelling configuration says which image a region belongs to: pack it as "
    "label_config.xml with the tasks in one zip, or keep a single address in 'data', as 'image'."
)
WITHOUT_PLACE = frozenset(["choices", "textarea", "rating", "number", "datetime", "taxonomy"])


@dataclass(frozen=True, slots=True)
class TaskImage:
    """An image of a task with its regions.

    Attributes:
        address: Its URL or path in the task's data.
        regions: Its regions in an annotation's `result`.
        tag: Name of its image tag; empty if the labelling configuration is not known.
        page: Its index in a list of pages; None if it is not in a list.
    """

    address: str
    regions: tuple[Mapping[str, Any], ...] = ()
    tag: str = ""
    page: int | None = None


def images_of(
    data: Any,
    regions: Sequence[Mapping[str, Any]],
    tags: Sequence[ImageTag] = (),
    *,
    skipped: Counter[str] | None = None,
) -> list[TaskImage]:
    """The annotatable images of a task, each with its regions.

    Images are left out if their tag has no control. Images without regions are included.

    Args:
        data: The task's `data`.
        regions: An annotation's `result`.
        tags: The image tags of the labelling configuration; empty if it is not known.
        skipped: Receives reason → number of results that belong to text, audio or another
            non-image, or to all pages at once.

    Raises:
        ValidationFailed: The data has no image, or the image of a region is ambiguous.
    """
    if not isinstance(data, Mapping):
        raise ValidationFailed("A task needs 'data', an object that contains the image's address.")
    if isinstance(regions, str) or not isinstance(regions, Sequence):
        raise ValidationFailed("An annotation's 'result' must be a list of regions.")
    if not all(isinstance(row, Mapping) for row in regions):
        raise ValidationFailed("A region must be an object with 'type' and 'value'.")
    passed: Counter[str] = Counter()
    told = [row for row in regions if row.get("type") != "relation"]
    passed[RELATIONS] += len(regions) - len(told)
    tags = tags or (_only_tag(data, told),)
    placed: list[tuple[str, Mapping[str, Any]]] = []
    for row in told:
        name = _tag_of(row, tags)
        if name is None:
            passed[OTHER_TAG] += 1
        else:
            placed.append((name, row))
    marked = [tag.name for tag in tags if tag.marked] or [tag.name for tag in tags]
    meant = {name for name, _ in placed} | set(marked)
    pages = {tag.name: _pages(data, tag) for tag in tags if tag.name in meant}
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = {
        (name, index): [] for name, listed in pages.items() for index in range(len(listed.texts))
    }
    for name, row in placed:
        index = _index(row, pages[name])
        if index is None:
            passed[ALL_PAGES] += 1
        else:
            found[name, index].append(row)
    if skipped is not None:
        skipped.update(+passed)
    return [
        TaskImage(
            pages[name].texts[index],
            tuple(rows),
            name,
            index if pages[name].several else None,
        )
        for (name, index), rows in found.items()
    ]


def _tag_of(row: Mapping[str, Any], tags: Sequence[ImageTag]) -> str | None:
    """The name of the image tag that a region belongs to; None if it belongs to no image.

    Raises:
        ValidationFailed: It is drawn in an image, but the configuration has no such tag.
    """
    name = str(row.get("to_name") or "")
    if len(tags) == 1 and (not name or not tags[0].name):
        return tags[0].name
    if any(tag.name == name for tag in tags):
        return name
    if not is_of_image(row):
        return None
    raise ValidationFailed(
        f"Region {str(row.get('id'))[:40]!r} is on {name[:60]!r}, but the images of the "
        f"labelling configuration are: {', '.join(tag.name for tag in tags)[:200]}. Send the "
        "labelling configuration with which the region was drawn."
    )


def is_of_image(row: Mapping[str, Any]) -> bool:
    """Whether a region is drawn in an image, whatever its shape."""
    value = row.get("value")
    return isinstance(value, Mapping) and any(key in value for key in DRAWN)


@dataclass(frozen=True, slots=True)
class _Pages:
    """The URLs in a key of the task's data: a list of pages, or one image."""

    texts: tuple[str, ...]
    several: bool


def _pages(data: Mapping[str, Any], tag: ImageTag) -> _Pages:
    value: Any = data
    for part in tag.key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, str) and value.strip():
        return _Pages((value.strip(),), False)
    if isinstance(value, list) and value and all(isinstance(one, str) and one for one in value):
        return _Pages(tuple(value), True)
    has = ", ".join(map(str, data)) or "nothing"
    raise ValidationFailed(
        f"The task has no image: its data needs '{tag.key[:60]}', as the configuration says; it "
        f"has {has[:200]}."
    )


def _index(row: Mapping[str, Any], pages: _Pages) -> int | None:
    """The index of the page that a region is on; None if it is about all pages."""
    given = row.get("item_index")
    if given is None and (len(pages.texts) == 1 or not pages.several):
        return 0
    if given is None and row.get("type") in WITHOUT_PLACE:
        return None
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < len(pages.texts):
        return given
    raise ValidationFailed(
        f"Region {str(row.get('id'))[:40]!r}: its 'item_index' is {given!r:.20}, but the pages "
        f"of the task are 0 to {len(pages.texts) - 1}."
    )


def _only_tag(data: Mapping[str, Any], regions: Iterable[Mapping[str, Any]]) -> ImageTag:
    """The image tag of a task with only one image, for tasks without a configuration."""
    keys = [str(key) for key, value in data.items() if _can_be_image(value)]
    if not keys:
        texts = [key for key, value in data.items() if _is_address(key, value)]
        keys = ["image"] if "image" in texts else texts if len(texts) == 1 else []
    if not keys:
        has = ", ".join(map(str, data)) or "nothing"
        raise ValidationFailed(
            f"The task's data contains no address of an image; it has {has[:200]}. {REMEDY}"
        )
    placed = {str(row.get("to_name") or "") for row in regions if is_of_image(row)}
    if len({_name(data[key]) for key in keys}) > 1:
        raise ValidationFailed(f"The task has several images ({', '.join(keys)[:200]}). {REMEDY}")
    if len(placed) > 1:
        raise ValidationFailed(
            f"The task has regions on several tags: {', '.join(sorted(placed))[:200]}. {REMEDY}"
        )
    return ImageTag("", "image" if "image" in keys else keys[0], True)


def _name(value: Any) -> str:
    """The file name in an image's URL; for a list of pages all URLs as text."""
    if not isinstance(value, str):
        return str(value)
    try:
        parts = urlsplit(value.strip())
    except ValueError:  # no address, such as http://[a
        return value
    path = parts.query if parts.path.endswith("local-files/") else parts.path
    return _UPLOADED.sub("", unquote(path).replace("\\", "/").rpartition("/")[2].rpartition("=")[2])


def _is_address(key: Any, value: Any) -> bool:
    """Whether a value may be a URL or path: it has a slash and no blanks, or its key is `image`."""
    if not isinstance(value, str) or not value.strip():
        return False
    return key == "image" or ("/" in value and not re.search(r"\s", value.strip()))


def _can_be_image(value: Any) -> bool:
    """Whether a value looks like the URL of an image, or a list of them."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, str) and _can_be_image(one) for one in value)
    if not isinstance(value, str):
        return False
    text = value.strip()
    if text[:11].lower() == "data:image/":
        return True
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    last = unquote(f"{parts.path}?{parts.query}" if parts.query else parts.path)
    if any(_IMAGE.search(piece) for piece in (unquote(parts.path), last)):
        return True
    return parts.path.startswith(_OF_TOOL) and not re.search(r"\.\w{1,5}$", last)
