"""Everything that is exported comes back unchanged, in every format and with any names."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation.corrections.agreement import are_equal
from annotation.corrections.correction import Correction, CorrectionRules
from annotation.corrections.reader import read_correction
from annotation.export import Exported, entries
from annotation.image_records import ORIGINAL, PERSON, ImageRecord
from dataset.documents.image_names import comparable
from dataset.documents.reader import from_folder
from dataset.documents.submission import Submission
from formats.annotations import FORMATS, Annotation, AnnotationPart, Annotations, Format
from formats.capabilities import LACKING
from models_store.description import Task
from tests.support.correction_app import drawn
from tests.support.examples import EXAMPLES

pytestmark = pytest.mark.properties

NAMES = ("car", "person", "dog")
SIZES = ((64, 48), (48, 64), (33, 20))
SEEDS = 12

# What people call their images: dates, ids, dots, spaces, signs, other scripts, both Unicode forms.
WORDS = st.sampled_from(
    ["a", "A", "b", "frame", "20240115", "20240116", "0f6142fb", "deadbeef", "1", "001", "café",
     "cafe\u0301", "街", "was ist", "a%20b", "#1", "x=1&d", "images", "labels", "train", "jpg",
     "c" * 64, "3f2504e0-4f89-11d3-9a0c-0305e82c3301"]
)  # fmt: skip
STEMS = st.builds(
    lambda words, joint: joint.join(words),
    st.lists(WORDS, min_size=1, max_size=3),
    st.sampled_from(["-", "_", ".", " ", "%", ""]),
).filter(lambda stem: len(stem.encode()) < 120 and stem == stem.strip(". "))
SUFFIXES = st.sampled_from([".png", ".PNG", ".jpg", ".jpeg"])
FOLDERS = st.sampled_from(["images/train", "images/val", "cam/left", "cam/right", "", "20240115"])
PATHS = st.builds(lambda f, s, x: f"{f}/{s}{x}".lstrip("/"), FOLDERS, STEMS, SUFFIXES)
BOXES = st.tuples(*[st.integers(0, 14)] * 2, *[st.integers(2, 5)] * 2).map(
    lambda v: (float(v[0]), float(v[1]), float(v[0] + v[2]), float(v[1] + v[3]))
)


def thing(label: str, box: tuple[float, float, float, float], task: Task) -> Annotation:
    if task == "classify":
        return Annotation(label)
    if task == "detect":
        return Annotation(label, box=box)
    x1, y1, x2, y2 = box
    return Annotation(
        label, parts=(AnnotationPart(((x1, y1), (x2, y1), (x2, y2), (x1, y2 - 0.5))),)
    )


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[Task, list[ImageRecord]]:
    task: Task = draw(st.sampled_from(["detect", "segment", "classify"]))
    paths = draw(st.lists(PATHS, min_size=1, max_size=5, unique=True))
    pictures = []
    for seed, path in enumerate(paths):
        size = draw(st.sampled_from(SIZES))
        data = IMAGES[seed, size]
        count = 1 if task == "classify" else draw(st.integers(0, 3))
        objects = tuple(
            thing(draw(st.sampled_from(NAMES)), draw(BOXES), task) for _ in range(count)
        )
        pictures.append(
            ImageRecord(
                sha256(data).hexdigest(),
                FOLDER / f"{sha256(data).hexdigest()}.png",
                Annotations(path, *size, objects),
                name=path,
                split=draw(st.sampled_from(["train", "val", "test", ""])),
                by=draw(st.sampled_from([ORIGINAL, PERSON])),
            )
        )
    return task, pictures


FOLDER = Path(tempfile.gettempdir(), f"visionloop-images-{os.getpid()}")  # made by setup_module
IMAGES = {(seed, size): drawn(seed, size) for seed in range(SEEDS) for size in SIZES}


def setup_module() -> None:
    FOLDER.mkdir(exist_ok=True)
    for data in IMAGES.values():
        (FOLDER / f"{sha256(data).hexdigest()}.png").write_bytes(data)


def teardown_module() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)


def unpacked(exported: Exported, form: Format, images: bool) -> Submission:
    """What an export says, read as a zip that came."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for entry in entries(exported, form, images):
            target = folder / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            content = entry.content
            target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        sent = from_folder(folder, None, NAMES, (), exported.task == "classify")
        kept = {name: FOLDER / f"{sent.contents[name]}.png" for name in sent.images}
        return replace(sent, images=kept)


def corrected(pictures: Sequence[ImageRecord], sent: Submission, task: Task) -> Correction:
    return read_correction(pictures, sent, CorrectionRules("x", NAMES, task, 10**6))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data_sets(), st.sampled_from(FORMATS), st.booleans())
def test_an_export_comes_back_unchanged(
    made: tuple[Task, list[ImageRecord]], form: Format, images: bool
) -> None:
    task, pictures = made
    if task in LACKING.get(form, {}):
        return
    silent = form in ("coco", "cvat_xml")  # an image without marks says nothing there
    if silent and not any(picture.annotations.objects for picture in pictures):
        return
    back = corrected(pictures, unpacked(Exported(task, NAMES, (), pictures), form, images), task)
    assert back.unmatched == {}
    assert back.names == {}
    assert not back.renamed
    assert back.new_classes == []
    expected = {p.content: p.annotations for p in pictures if p.annotations.objects or not silent}
    assert back.found.keys() == expected.keys()
    for content, said in expected.items():
        assert are_equal(said, back.found[content]), (said, back.found[content])
    assert back.removes.objects == 0
    accounted(back)


def accounted(made: Correction) -> None:
    """Whatever came is stored, or told of."""
    told = made.to_json()
    images, objects = told["accounting"]["images"], told["accounting"]["objects"]
    assert images["received"] == images["matched"] + images["new"] + images["unmatched"]
    assert objects["received"] == objects["stored"] + sum(objects["passed_over"].values())
    assert min(images.values()) >= 0


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data_sets(), st.sampled_from(FORMATS))
def test_another_dataset_of_the_same_names_touches_nothing_of_this_one(
    made: tuple[Task, list[ImageRecord]], form: Format
) -> None:
    task, pictures = made
    if task in LACKING.get(form, {}) or task == "classify":
        return
    others = [stranger(picture, index + 6, task) for index, picture in enumerate(pictures)]
    back = corrected(pictures, unpacked(Exported(task, NAMES, (), others), form, True), task)
    assert back.found.keys() == {other.content for other in others}
    assert back.names.keys() == back.found.keys()
    assert back.removes.objects == 0
    taken = {comparable(Path(picture.name).stem) for picture in pictures}
    given = [comparable(Path(name).stem) for name in back.names.values()]
    assert not taken & set(given)
    assert len(set(given)) == len(given)
    accounted(back)


def stranger(picture: ImageRecord, seed: int, task: Task) -> ImageRecord:
    """Another image of the same name and size."""
    size = picture.annotations.width, picture.annotations.height
    content = sha256(IMAGES[seed, size]).hexdigest()
    found = Annotations(picture.name, *size, (thing("dog", (1, 1, 9, 9), task),))
    return ImageRecord(
        content, FOLDER / f"{content}.png", found, picture.name, picture.split, PERSON
    )
