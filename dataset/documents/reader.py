"""Reads submitted annotations: documents of every supported format, alone or in a zip."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from dataset import data_yaml
from dataset.documents.class_folder_annotations import class_folder_annotations
from dataset.documents.format_detection import (
    MOST_TEXT,
    foreign_json,
    foreign_xml,
    format_of,
    is_about_files,
    is_annotation_json,
    is_annotation_table,
    is_annotation_xml,
    names_in_json,
    text_kind,
)
from dataset.documents.image_names import without_suffix
from dataset.documents.label_studio_tasks import from_tasks, tags_for
from dataset.documents.parsed_documents import folder_of, from_image_document, from_parsed
from dataset.documents.submission import DescribedImage, Emptiness, Submission
from dataset.documents.yolo_labels import (
    ClassList,
    decoded,
    names_of,
    read_json,
    read_labels,
    refuse_foreign,
)
from dataset.image_files import SUFFIXES
from errors import ValidationFailed
from files import sha256_of
from formats.annotations import Annotations, Format
from formats.coco import category_names, from_coco
from formats.cvat_xml import from_cvat_xml
from formats.label_studio_config import ImageTag, parse_label_config
from formats.labelme import from_labelme
from formats.voc import from_voc
from formats.xml_documents import xml_format
from nesting import check_json_depth

BIGGEST = 512 * 2**20  # maximum bytes of one document
SPLIT = re.compile(r"(?:^|[_.-])((?:train|val|valid|validation|test)(?:20\d\d)?)$", re.I)

SHAPES = (
    "Label Studio's list of tasks, a COCO document with images and annotations, a LabelMe "
    "document or a list of them, or for YOLO {names, labels: {image: lines}}"
)
READ = (
    "Supported are Label Studio (JSON), COCO, LabelMe, Pascal VOC, CVAT for images (XML), and YOLO "
    "label files with a data.yaml, classes.txt or obj.names"
)


def from_json(
    document: Any,
    form: str | None,
    names: Sequence[str],
    points: Sequence[str],
    file: str = "The body",
) -> Submission:
    """Reads a JSON document.

    Args:
        document: The parsed JSON.
        form: The required format; None: the detected one.
        names, points: Class and keypoint names of the dataset, for YOLO lines without names.
        file: Name of the document, for messages.

    Raises:
        ValidationFailed: Its format is not supported, or not the required one.
    """
    detected = format_of(document)
    if detected is None or form not in (None, detected):
        if detected is None and (foreign := foreign_json(document)):
            raise ValidationFailed(f"{file} is {foreign}.")
        wanted = form or "label_studio, yolo, coco or labelme"
        raise ValidationFailed(f"{file} is not a {wanted} document. Send {SHAPES}.")
    reading = _SubmissionReader(names, points)
    reading.document(document, detected, file)
    reading.rest()
    return reading.submission()


def from_folder(
    folder: Path,
    form: str | None,
    names: Sequence[str],
    points: Sequence[str],
    classify: bool = False,
) -> Submission:
    """Reads an unpacked zip: annotation documents of all formats and YOLO label files.

    With `classify` and no other annotations, folders of images are read as classes. Every file is
    an image, is read, or is listed in `ignored`. A file that may hold annotations is never
    ignored.

    Args:
        folder: Folder of the unpacked zip.
        form: The only accepted format; None: the detected format of each file.
        names, points: Class and keypoint names of the dataset, for label files without names.
        classify: Whether folders may be classes.

    Returns:
        The submission; `described` is empty if the zip contains only images.

    Raises:
        ValidationFailed, DatasetInvalid: A file cannot be read or its format is not supported; the
            message names it.
    """
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    reading = _SubmissionReader(names, points, form)
    reading.images = {name: path for name, path in files.items() if path.suffix.lower() in SUFFIXES}
    for name, path in files.items():
        if name not in reading.images:
            reading.file(name, path)
    reading.rest()
    if not reading.described and classify:
        reading.described += class_folder_annotations(reading.images, folder.name, names)
    return reading.submission()


def parse(data: bytes, name: str) -> Any:
    """Parses JSON.

    Raises:
        ValidationFailed: It is too large or not valid JSON, has a repeated key, or a text with a
            lone surrogate, or is nested too deeply.
    """
    if len(data) > BIGGEST:
        raise ValidationFailed(f"{name} is over {BIGGEST // 2**20} MiB. Split it.")
    check_json_depth(data, name)
    try:
        document = json.loads(data, object_pairs_hook=_unique)
        if b"\\ud" in data.lower():  # a lone surrogate cannot be encoded as UTF-8
            json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValidationFailed(
            f"{name} has a text with a lone surrogate, half of a character. Correct that text."
        ) from None
    except ValueError as error:
        reason = str(error)[:80]
        raise ValidationFailed(
            f"{name} is not valid JSON: {reason}. Correct it there, or export it again."
        ) from None
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: A key is repeated; `dict` would silently drop a value.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object has the key {twice[:40]!r} twice")
    return made


@dataclass
class _SubmissionReader:
    """Collects the annotations of all files of one request."""

    names: Sequence[str]
    points: Sequence[str]
    form: str | None = None
    images: dict[str, Path] = field(default_factory=dict)
    described: list[DescribedImage] = field(default_factory=list)
    lists: list[ClassList] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, list[Any]] = field(default_factory=dict)
    configurations: dict[str, tuple[ImageTag, ...]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    forms: set[str] = field(default_factory=set)

    @cached_property
    def stems(self) -> frozenset[str]:
        """File names of the images, without suffix."""
        return frozenset(without_suffix(PurePosixPath(one).name) for one in self.images)

    def submission(self) -> Submission:
        """The submission read so far; call `rest` first."""
        contents = {name: sha256_of(path) for name, path in self.images.items()}
        named = [name for one in self.lists if one.whole for name in one.names]
        named += [name for one in self.lists if not one.whole for name in one.names]
        return Submission(
            self.described,
            self.images,
            contents,
            self.skipped,
            sorted(self.ignored),
            self.notes,
            tuple(dict.fromkeys((*named, *self.classes))),
            tuple(sorted(self.forms)),
        )

    def file(self, name: str, path: Path) -> None:
        """Read a file that is not an image; add it to `ignored` if it has no annotations."""
        readers = {
            ".json": self._json,
            ".xml": self._xml,
            ".txt": self._text,
            ".names": self._text,
            ".labels": self._text,
            ".yaml": self._yaml,
            ".yml": self._yaml,
            ".csv": self._table,
        }
        reader = readers.get(path.suffix.lower())
        if reader is None or not reader(name, path):
            self.ignored.append(name)

    def rest(self) -> None:
        """Read the tasks and label files; all configurations and class lists are known now."""
        for file, tasks in self.tasks.items():
            tags = tags_for(file, self.configurations)
            self.described += from_tasks(tasks, file, self.points, tags, self.skipped)
        if self.texts:
            self._wanted("yolo", next(iter(self.texts)))
            self.forms.add("yolo")
            found = read_labels(self.texts, self.lists, self.names, self.points, self.notes)
            self.described += found

    def document(self, document: Any, form: Format, file: str) -> None:
        """Read a JSON document of a known format."""
        self.forms.add(form)
        every = document if isinstance(document, list) else [document]
        if form == "coco":
            for number, one in enumerate(every, 1):
                place = f", document {number}" if isinstance(document, list) else ""
                self.described += self._coco(one, file, place)
        elif form == "labelme":
            self.described += [
                self._labelme(one, file, isinstance(document, list)) for one in every
            ]
        elif form == "yolo":
            self.described += read_json(document, file, self.names, self.points, self.notes)
        else:
            self.tasks[file] = every

    # --- readers by file type; each returns whether it used the file

    def _json(self, name: str, path: Path) -> bool:
        document = parse(path.read_bytes(), name)
        form = format_of(document)
        if form is not None:
            self._wanted(form, name)
            self.document(document, form, name)
            return True
        if foreign := foreign_json(document):
            raise ValidationFailed(f"{name} is {foreign}. {READ}.")
        if listed := names_in_json(path, document):
            self.lists.append(ClassList(name, tuple(listed)))
            return True
        if is_annotation_json(document):
            raise _not_understood(name)
        return False

    def _xml(self, name: str, path: Path) -> bool:
        data = path.read_bytes()
        form = xml_format(data)
        start = data[:65536].decode("utf-8", "replace")
        if form is None:
            if re.search(r"<View\b", start[:4096]):  # Label Studio's labelling configuration
                with suppress(ValidationFailed):  # it may belong to a text project
                    text = data.decode("utf-8-sig", "replace")
                    self.configurations[name] = parse_label_config(text).images
                return False
            if not is_annotation_xml(start):
                return False
            raise _not_understood(name, foreign_xml(start))
        self._wanted(form, name)
        self.forms.add(form)
        try:
            self.described += self._voc(data, name) if form == "voc" else self._cvat(data, name)
        except ValidationFailed as error:
            raise ValidationFailed(f"{name}: {error.message}") from None
        return True

    def _text(self, name: str, path: Path) -> bool:
        if path.stat().st_size > MOST_TEXT:
            raise ValidationFailed(
                f"{name} is over {MOST_TEXT // 2**20} MiB, the limit of a label file. Write one "
                "label file per image."
            )
        text = decoded(path.read_bytes())
        kind = text_kind(PurePosixPath(name), text, self.stems)
        if kind == "classes":
            self.lists.append(names_of(name, text))
        elif kind == "labels":
            self.texts[name] = text
        elif not is_about_files(name):
            refuse_foreign(name, text, ("any",))
        return kind != "prose"

    def _yaml(self, name: str, path: Path) -> bool:
        named = path.stem.lower() in ("data", "dataset")
        try:
            content = data_yaml.load(path)
        except ValidationFailed:
            if named:
                raise
            return False
        if "names" not in content and "nc" not in content:
            return False
        names, points, numbers = data_yaml.names_in(path)
        named_classes = tuple(names) if content.get("names") else ()
        self.lists.append(ClassList(name, named_classes, tuple(points), numbers, whole=True))
        return True

    def _table(self, name: str, path: Path) -> bool:
        with path.open("rb") as file:
            start = file.read(4096).decode("utf-8", "replace")
        if is_annotation_table(start):
            raise _not_understood(name, "CSV tables of annotations are not supported.")
        return False

    def _wanted(self, form: Format, name: str) -> None:
        if self.form not in (None, form):
            raise ValidationFailed(
                f"{name} is a {form} document, not {self.form}. Omit 'format', or send only "
                f"{self.form} documents."
            )

    # --- readers by format

    def _coco(self, document: Any, file: str, place: str = "") -> Iterator[DescribedImage]:
        """`place`: the position of the document in a list of documents, for messages."""
        try:
            whole = {"annotations": [], **document} if isinstance(document, Mapping) else document
            incomplete: set[int] = set()
            found = from_coco(whole, skipped=self.skipped, incomplete=incomplete)
        except ValidationFailed as error:
            raise ValidationFailed(f"{file}{place}: {error.message}") from None
        names = category_names(document)
        self.classes += names
        if twice := sorted(name for name, count in Counter(names).items() if count > 1):
            self.notes.append(
                f"{file}{place}: categories with the same name were merged into one class: "
                f"{', '.join(twice[:5])}."
            )
        split = SPLIT.search(PurePosixPath(file).stem)
        folder = f"images/{split[1]}" if split else folder_of(file)
        for number, one in enumerate(found):
            empty = _emptiness(one, number in incomplete)
            yield from_parsed(one, file, one.image, beside=folder, empty=empty)

    def _labelme(self, document: Any, file: str, listed: bool) -> DescribedImage:
        skipped: Counter[str] = Counter()
        try:
            found = from_labelme(document, self.points, skipped=skipped)
        except ValidationFailed as error:
            raise ValidationFailed(f"{file}: {error.message}") from None
        if not listed and file.lower().endswith(".json"):
            made = from_image_document(found, file, "labelme", "imagePath")
        else:
            made = from_parsed(found, file, f"{file}, {found.image}", beside=folder_of(file))
        return replace(made, skipped=skipped)

    def _voc(self, data: bytes, file: str) -> list[DescribedImage]:
        skipped: Counter[str] = Counter()
        found = from_voc(data, skipped=skipped)
        return [replace(from_image_document(found, file, "voc", "filename"), skipped=skipped)]

    def _cvat(self, data: bytes, file: str) -> list[DescribedImage]:
        incomplete: set[int] = set()
        found = from_cvat_xml(data, skipped=self.skipped, incomplete=incomplete)
        return [
            from_parsed(one, file, one.image, empty=_emptiness(one, number in incomplete))
            for number, one in enumerate(found)
        ]


def _emptiness(found: Annotations, incomplete: bool) -> Emptiness:
    """The meaning of an image without objects in a document of many images: `unfinished` if the
    reader skipped objects of this image."""
    return "unfinished" if incomplete and not found.objects else "unstated"


def _not_understood(name: str, remedy: str = "") -> ValidationFailed:
    return ValidationFailed(
        f"{name} may contain annotations, but its format is not supported. {remedy} {READ}. If "
        "it contains none, remove the file."
    )
