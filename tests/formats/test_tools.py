"""supervision and datumaro load what is exported, and what they write is read: `make test-tools`.

They need packages that disagree with ours, and 800 MB, so they have an interpreter of their own,
which TOOLS_PYTHON names. Without it these tests are skipped and say so.
"""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from annotation.export import Exported, entries, zipped
from annotation.image_records import PERSON, ImageRecord
from dataset.documents.reader import from_folder
from formats.annotations import Annotation, AnnotationPart, Annotations, Format
from models_store.description import Task
from tests.support.seeds import rng

PYTHON = os.environ.get("TOOLS_PYTHON", "")
SCRIPT = Path(__file__).parents[1] / "support" / "tool_readers.py"
SIZE = (96, 64)
NAMES = ("car", "dog", "traffic light")

pytestmark = pytest.mark.skipif(
    not PYTHON, reason="make test-tools installs supervision and datumaro, and runs this"
)

Found = dict[str, list[list[Any]]]


def pictures(folder: Path, segment: bool) -> list[ImageRecord]:
    """Six images in two splits, one without an object."""
    made = []
    for index, name in enumerate(("a.jpg", "b 2.jpg", "c.v1.jpg", "街.jpg", "e.jpg", "f.jpg")):
        random = rng(index)
        image = random.integers(0, 255, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
        data = cv2.imencode(".jpg", image)[1].tobytes()
        content = sha256(data).hexdigest()
        file = folder / f"{content}.jpg"
        file.write_bytes(data)
        objects = []
        for number in range(index % 4):
            x, y = (int(v) for v in random.integers(2, 30, 2))
            if segment:
                corners = ((x, y), (x + 20, y), (x + 20, y + 16), (x + 10, y + 8), (x, y + 16))
                ring = tuple((float(a), float(b)) for a, b in corners)
                objects.append(Annotation(NAMES[number], parts=(AnnotationPart(ring),)))
            else:
                objects.append(Annotation(NAMES[number], box=(x, y, x + 20, y + 16)))
        found = Annotations(name, *SIZE, tuple(objects))
        split = "val" if index % 3 == 2 else "train"
        made.append(ImageRecord(content, file, found, name=name, by=PERSON, split=split))
    return made


def boxes(found: Annotations) -> list[list[Any]]:
    return sorted([thing.label, *(thing.bounds or ())] for thing in found.objects)


def same(found: Found, wanted: Found, pixels: float) -> None:
    """The same images, classes and boxes; an image without an object may be left out."""
    assert {name for name, rows in found.items() if rows} == {n for n, r in wanted.items() if r}
    for name, rows in wanted.items():
        got = sorted(found.get(name, []))
        assert [row[0] for row in got] == [row[0] for row in rows], name
        for one, other in zip(got, rows, strict=True):
            assert one[1:] == pytest.approx(other[1:], abs=pixels), name


@pytest.mark.parametrize(
    ("tool", "form", "task", "pixels"),
    [
        ("supervision", "coco", "detect", 0.01),
        ("supervision", "coco", "segment", 0.01),
        ("supervision", "yolo", "detect", 0.01),
        ("supervision", "yolo", "segment", 1.0),  # it makes masks of polygons, and boxes of these
        ("supervision", "labelme", "detect", 0.01),
        ("supervision", "voc", "detect", 1.01),  # it counts pixels from 1
        ("datumaro", "coco", "detect", 0.01),
        ("datumaro", "coco", "segment", 0.01),
        ("datumaro", "yolo", "detect", 0.01),
        ("datumaro", "voc", "detect", 0.01),
        ("datumaro", "cvat_xml", "detect", 0.01),
        ("datumaro", "cvat_xml", "segment", 0.01),
    ],
)
def test_a_tool_loads_what_is_exported_and_is_read_itself(
    tmp_path: Path, tool: str, form: Format, task: Task, pixels: float
) -> None:
    made = pictures(tmp_path, task == "segment")
    data = Exported(task, NAMES, (), made)
    packed = tmp_path / "export.zip"
    packed.write_bytes(b"".join(zipped(entries(data, form))))
    folder, out = tmp_path / "export", tmp_path / "out"
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder)
    wanted = {Path(one.name).stem: boxes(one.annotations) for one in made}

    known = form.removesuffix("_xml")
    command = [PYTHON, str(SCRIPT), tool, known, str(folder), str(out)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    same(json.loads(ran.stdout.splitlines()[-1]), wanted, pixels)

    read: Found = {}
    for part in sorted(out.iterdir()) if tool == "supervision" else [out]:
        sent = from_folder(part, None, NAMES, ())
        for described in sent.described:
            read[Path(described.name).name.removesuffix(".jpg")] = boxes(described.read(SIZE))
    same(read, wanted, pixels + 1.01)  # they round, and cut to whole pixels
