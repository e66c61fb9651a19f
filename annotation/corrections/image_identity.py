"""Matches annotations to images: by content (SHA-256), then by path, then by file name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from annotation.image_records import ImageRecord
from dataset.documents.image_names import NameIndex, comparable, parts_of, without_suffix
from dataset.documents.submission import DescribedImage, Size, Submission
from dataset.image_files import suffix_of
from errors import VisionLoopError
from inference.images import check_header

SHOWN = 3  # maximum number of names in a message


@dataclass(frozen=True)
class Image:
    """An image that annotations belong to.

    Attributes:
        content: SHA-256 of its file.
        size: Width and height in pixels.
        suffix: Suffix of its file in the dataset.
        record: Its record in the dataset; None if the image is new.
        sent: Its path in the zip; empty if the zip does not contain it.
        file: Its file, if the image is new.
    """

    content: str
    size: Size
    suffix: str
    record: ImageRecord | None = None
    sent: str = ""
    file: Path | None = None


@dataclass(frozen=True)
class Claim:
    """An annotation with the image that it was matched to.

    Attributes:
        described: The annotation of one image in a document.
        image: The matching image; None if none was found.
        certain: Matched by content or path, not only by file name, which need not be unique.
        reason: Why no image was found.
    """

    described: DescribedImage
    image: Image | None = None
    certain: bool = True
    reason: str = ""


class Identity:
    """Finds the image of each annotation, in the dataset or in the submitted zip."""

    def __init__(
        self,
        records: Sequence[ImageRecord],
        sent: Submission,
        max_pixels: int,
        any_format: bool = False,
    ) -> None:
        self._sent = sent
        self._any_format = any_format
        self._max_pixels = max_pixels
        self._by_content = {record.content: record for record in records}
        self._here = NameIndex((name_of(record), record) for record in records)
        self._came = NameIndex((name, name) for name in sent.images)
        self._read: dict[str, Image] = {}
        self._contents = frozenset(sent.contents.values())
        self._foreign = self._others_under_known_names()

    def claims(self) -> list[Claim]:
        """Every annotation with its image, if one was found; see `_without_doubles`."""
        return _without_doubles([self._stated_size(self._claim(m)) for m in self._sent.described])

    def has(self, content: str) -> bool:
        """Whether the dataset has an image with this SHA-256."""
        return content in self._by_content

    def came(self, name: str) -> Image:
        """The image with this name in the zip.

        Raises:
            InvalidImage, PayloadTooLarge: The image is new and cannot be read, or is too large.
        """
        if name not in self._read:
            self._read[name] = self._read_image(name)
        return self._read[name]

    # --- private

    def _claim(self, described: DescribedImage) -> Claim:
        found = self._came.find(described.name, described.beside, described.stem)
        if found.several:
            return Claim(
                described,
                reason=f"the zip contains several images with this name: {_list(found.several)}",
            )
        if found.item is not None:
            image = self.came(found.item)
            if described.content in self._by_content and described.content != image.content:
                reason = (
                    f"the zip's image {found.item} does not have the SHA-256 that the document "
                    "states"
                )
                return Claim(described, reason=reason)
            return Claim(described, image, certain=found.how == "path")
        if record := self._by_content.get(described.content):
            return Claim(described, _known(record))
        return self._by_name(described)

    def _by_name(self, described: DescribedImage) -> Claim:
        found = self._here.find(described.name, described.beside, described.stem)
        if found.several:
            reason = (
                "several images of the dataset have this name, and no folder is given to choose "
                f"one: {_list(found.several)}"
            )
            return Claim(described, reason=reason)
        if found.item is None:
            alike = self._here.with_stem(described.name)
            other = f" (with another suffix: {_list(map(name_of, alike))})" if alike else ""
            return Claim(
                described, reason=f"no image of the dataset or of the upload has this name{other}"
            )
        if self._foreign and found.item.content not in self._contents:
            reason = (
                "the upload does not contain its image, and its file name alone is not enough: "
                f"the upload's {self._foreign[0]} differs from the dataset's image with that name"
            )
            return Claim(described, reason=reason)
        return Claim(described, _known(found.item), certain=found.how == "path")

    def _stated_size(self, claim: Claim) -> Claim:
        """The claim, without its image if the document states a size other than the image's."""
        stated, image = claim.described.size, claim.image
        if image is None or stated is None or stated == image.size:
            return claim
        reason = (
            f"the annotations are for an image of {stated[0]} × {stated[1]} pixels, but the "
            f"image has {image.size[0]} × {image.size[1]}"
        )
        if stated == image.size[::-1]:
            reason += " (the tool may have ignored the EXIF orientation)"
        return Claim(claim.described, reason=reason)

    def _others_under_known_names(self) -> list[str]:
        """Images of the zip with the name of an image in the dataset, but different content."""
        known = self._by_content.keys()
        return [
            name
            for name, content in self._sent.contents.items()
            if content not in known and self._here.find(name).item is not None
        ]

    def _read_image(self, name: str) -> Image:
        content = self._sent.contents[name]
        if record := self._by_content.get(content):
            return _known(record, name)
        path = self._sent.images[name]
        data = path.read_bytes()
        try:
            size = check_header(data, self._max_pixels)
            suffix = path.suffix if self._any_format else suffix_of(data)
        except VisionLoopError as error:
            raise type(error)(f"{name[:100]}: {error.message}") from None
        return Image(content, size, suffix, None, name, path)


def free_names(images: Iterable[Image], records: Sequence[ImageRecord]) -> dict[str, str]:
    """SHA-256 of a new image → the path to store it under: its own, unless that is taken.

    A label file has its image's name without the suffix, and some file systems ignore case or
    Unicode composition. So a name is also taken if it differs from another only in these.
    """
    taken = {_key(name_of(record)) for record in records}
    names: dict[str, str] = {}
    for image in images:
        path = PurePosixPath(*parts_of(image.sent))
        stem, suffix = without_suffix(path.name), path.suffix
        length = 8
        name = path
        while _key(name.name) in taken:
            name = path.with_name(f"{stem}-{image.content[:length]}{suffix}")
            length += 8
        taken.add(_key(name.name))
        names[image.content] = str(name)
    return names


def name_of(record: ImageRecord) -> str:
    """The path or URL by which users know an image of a dataset."""
    return record.name or record.annotations.image


def _key(name: str) -> str:
    parts = parts_of(name)
    return comparable(without_suffix(parts[-1])) if parts else ""


def _known(record: ImageRecord, sent: str = "") -> Image:
    suffix = record.file.suffix.lower()  # an uploaded IMG_1.JPG is stored as .jpg
    return Image(record.content, _size(record), suffix, record, sent)


def _size(record: ImageRecord) -> Size:
    return record.annotations.width, record.annotations.height


def _without_doubles(claims: Sequence[Claim]) -> list[Claim]:
    """The claims; if several names of a document match one image, only certain claims keep it."""
    by_image: dict[tuple[str, str], list[Claim]] = {}
    for claim in claims:
        if claim.image is not None:
            by_image.setdefault((claim.described.source, claim.image.content), []).append(claim)
    refused = {
        id(claim): reason for group in by_image.values() for claim, reason in _doubles(group)
    }
    return [Claim(c.described, reason=refused[id(c)]) if id(c) in refused else c for c in claims]


def _doubles(group: Sequence[Claim]) -> list[tuple[Claim, str]]:
    names = {_full(claim.described) for claim in group}
    if len(names) == 1:
        return []
    certain = [claim for claim in group if claim.certain]
    others = [claim for claim in group if not claim.certain]
    if certain:
        return [
            (
                c,
                "the dataset's image with this name was matched to "
                f"{certain[0].described.name[:100]}",
            )
            for c in others
        ]
    reason = (
        "the dataset has one image with this name, and the document describes several: "
        f"{_list(sorted(names))}"
    )
    return [(claim, reason) for claim in others]


def _full(described: DescribedImage) -> str:
    return "/".join(parts_of(f"{described.beside}/{without_suffix(described.name)}"))


def _list(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(name[:100] for name in every[:SHOWN]) + more
