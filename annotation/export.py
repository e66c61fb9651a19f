"""Exports a dataset in a tool's format, as the files of a zip."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from xml.sax.saxutils import quoteattr

from annotation.image_records import PERSON, ImageRecord
from dataset.splits import held_out_by_content
from dataset.task_forms import describe, fitting, portable_folders
from errors import ValidationFailed
from formats.annotations import Annotations, Format
from formats.capabilities import require_annotation, require_task
from formats.coco import to_coco
from formats.cvat_xml_writer import to_cvat_xml
from formats.label_studio import to_label_studio
from formats.labelme import to_labelme
from formats.voc import label_map, to_voc
from formats.xml_documents import legal
from formats.yolo import to_yolo
from models_store.description import Task

CHUNK = 2**18  # bytes of an image that are read at a time
# Type of a control in label_config.xml → its name
CONTROL_NAMES = {
    "rectanglelabels": "box",
    "polygonlabels": "polygon",
    "keypointlabels": "point",
    "choices": "class",
}


@dataclass(frozen=True)
class ZipEntry:
    """A file of the zip.

    Attributes:
        path: Its path in the zip.
        content: Its bytes, or the file that has them.
    """

    path: str
    content: bytes | Path


@dataclass(frozen=True)
class Exported:
    """A dataset to export.

    Attributes:
        task: The task of the dataset.
        names: The class names, in the order of the class ids.
        keypoint_names: The names of the keypoints, in the order of the keypoints.
        records: The images with the annotations to export.
    """

    task: Task
    names: tuple[str, ...]
    keypoint_names: tuple[str, ...]
    records: Sequence[ImageRecord]


def entries(data: Exported, form: Format, images: bool = True) -> Iterator[ZipEntry]:
    """The files of a dataset in an export format.

    Args:
        data: The dataset.
        form: The format.
        images: Include the image files.

    Raises:
        ValidationFailed: The format cannot represent the whole dataset. No file is made.
    """
    _check_data(data, form)
    placed = _placed(data.records)
    if form == "yolo" and data.task == "classify" and images:
        return _class_folders(placed)
    writers = {
        "yolo": _yolo,
        "coco": _coco,
        "labelme": _labelme,
        "label_studio": _label_studio,
        "voc": _voc,
        "cvat_xml": _cvat_xml,
    }
    return writers[form](data, placed, images)


def _check_data(data: Exported, form: Format) -> None:
    """Raises ValidationFailed if a format cannot represent an object or a name of the dataset."""
    require_task(form, data.task)
    for record in data.records:
        for thing in record.annotations.objects:
            require_annotation(form, thing, record.name or record.file.name)
    if form in ("voc", "cvat_xml"):
        texts = [*data.names, *data.keypoint_names, *(one.name for one in data.records)]
        for text in texts:
            legal(text)
        listed = next((name for name in texts if "\n" in name or "\r" in name), None)
        if form == "voc" and listed is not None:
            raise ValidationFailed(
                f"The image name {listed[:60]!r} has a line break, which Pascal VOC's lists "
                "cannot contain. Use format=coco or label_studio."
            )


def zipped(files: Iterator[ZipEntry]) -> Iterator[bytes]:
    """The bytes of a zip of the files, in pieces. Text is compressed, images are not."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:
        for entry in files:
            info = zipfile.ZipInfo(entry.path)
            info.external_attr = 0o644 << 16
            if isinstance(entry.content, bytes):
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, entry.content)
                yield sink.take()
                continue
            with entry.content.open("rb") as source, archive.open(info, "w") as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """A write-only stream without seek, which buffers the bytes until they are taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


@dataclass(frozen=True)
class _Placed:
    """An image with its split and a file name that is unique in the export."""

    record: ImageRecord
    split: str
    name: str

    @property
    def image(self) -> str:
        return f"images/{self.split}/{self.name}"

    @property
    def found(self) -> Annotations:
        return replace(self.record.annotations, image=self.name)


def _placed(records: Sequence[ImageRecord]) -> list[_Placed]:
    """The images with their splits and names.

    Images with the same name, even in different splits, are named by the SHA-256 of their content.
    So annotations that are uploaded later without the images can be matched to them.
    """
    val = held_out_by_content(record.content for record in records)
    names = [PurePosixPath(record.name).name or record.file.name for record in records]
    stems = Counter(PurePosixPath(name).stem for name in names)  # a label file has its image's stem
    placed = []
    for record, name in zip(records, names, strict=True):
        split = record.split or ("val" if record.content in val else "train")
        path = PurePosixPath(name)
        unique = name if stems[path.stem] == 1 else f"{record.content}{path.suffix}"
        placed.append(_Placed(record, split, unique))
    return placed


def _image_files(placed: Sequence[_Placed], images: bool) -> Iterator[ZipEntry]:
    if images:
        for one in placed:
            yield ZipEntry(one.image, one.record.file)


def _yolo(data: Exported, placed: Sequence[_Placed], images: bool) -> Iterator[ZipEntry]:
    splits = {one.split for one in placed} | {"train"}
    # data.yaml must not name a missing folder; without a val split, part of train is held out
    described = [split for split in ("train", "val", "test") if split in splits]
    text = describe(data.task, data.names, data.keypoint_names, described)
    yield ZipEntry("data.yaml", text.encode())
    for one in placed:
        found = one.found if data.task == "classify" else fitting(one.found, data.task)
        lines = to_yolo(found, data.names, data.keypoint_names)
        path = PurePosixPath("labels", one.split, one.name).with_suffix(".txt")
        yield ZipEntry(str(path), lines.encode())
    yield from _image_files(placed, images)


def _class_folders(placed: Sequence[_Placed]) -> Iterator[ZipEntry]:
    """One folder per class; images without a class are left out."""
    folders = portable_folders(one.found.objects[0].label for one in placed if one.found.objects)
    for one in placed:
        if one.found.objects:
            folder = folders[one.found.objects[0].label]
            yield ZipEntry(f"{one.split}/{folder}/{one.name}", one.record.file)


def _coco(data: Exported, placed: Sequence[_Placed], images: bool) -> Iterator[ZipEntry]:
    for split in dict.fromkeys(one.split for one in placed):
        found = [one.found for one in placed if one.split == split]
        document = to_coco(found, data.names, data.keypoint_names)
        yield _json(f"annotations/instances_{split}.json", document)
    yield from _image_files(placed, images)


def _labelme(data: Exported, placed: Sequence[_Placed], images: bool) -> Iterator[ZipEntry]:
    for one in placed:
        path = PurePosixPath(one.image).with_suffix(".json")
        yield _json(str(path), to_labelme(one.found))
    yield from _image_files(placed, images)


def _voc(data: Exported, placed: Sequence[_Placed], images: bool) -> Iterator[ZipEntry]:
    """The folder layout of the Pascal VOC challenge; splits are lists of names without suffixes."""
    for one in placed:
        path = PurePosixPath("Annotations", one.name).with_suffix(".xml")
        yield ZipEntry(str(path), to_voc(one.found).encode())
    for split in dict.fromkeys(one.split for one in placed):
        stems = (PurePosixPath(one.name).stem for one in placed if one.split == split)
        yield ZipEntry(
            f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in stems).encode()
        )
    yield ZipEntry("labelmap.txt", label_map(data.names).encode())
    if images:
        for one in placed:
            yield ZipEntry(f"JPEGImages/{one.name}", one.record.file)


def _cvat_xml(data: Exported, placed: Sequence[_Placed], images: bool) -> Iterator[ZipEntry]:
    found, splits = [one.found for one in placed], [one.split for one in placed]
    document = to_cvat_xml(found, data.names, data.keypoint_names, splits)
    yield ZipEntry("annotations.xml", document.encode())
    yield from _image_files(placed, images)


def _label_studio(data: Exported, placed: Sequence[_Placed], images: bool) -> Iterator[ZipEntry]:
    tasks = []
    for number, one in enumerate(placed, 1):
        regions = to_label_studio(one.found, CONTROL_NAMES)
        by = one.record.by
        task: dict[str, Any] = {
            "id": number,
            "data": {"image": one.image},
            "meta": {"content": one.record.content, "split": one.split},
        }
        if by == PERSON or not one.record.by.count(":"):
            task["annotations"] = [{"result": regions}]
        else:
            score = one.found.mean_score
            task["predictions"] = [{"model_version": by, "score": score, "result": regions}]
        tasks.append(task)
    yield ZipEntry("label_config.xml", _config(data).encode())
    yield _json("tasks.json", tasks)
    yield from _image_files(placed, images)


def _config(data: Exported) -> str:
    """The Label Studio configuration with the controls that the exported regions refer to."""
    tags = {
        "detect": ("RectangleLabels",),
        "segment": ("PolygonLabels", "RectangleLabels"),
        "pose": ("RectangleLabels", "KeyPointLabels"),
        "classify": ("Choices",),
    }[data.task]
    lines = ["<View>", '  <Image name="img" value="$image"/>']
    for tag in tags:
        child = "Choice" if tag == "Choices" else "Label"
        labels = data.keypoint_names if tag == "KeyPointLabels" else data.names
        lines.append(f'  <{tag} name="{CONTROL_NAMES[tag.lower()]}" toName="img">')
        lines += [f"    <{child} value={quoteattr(label)}/>" for label in labels]
        lines.append(f"  </{tag}>")
    return "\n".join([*lines, "</View>", ""])


def _json(path: str, document: Any) -> ZipEntry:
    return ZipEntry(path, json.dumps(document, ensure_ascii=False).encode())
