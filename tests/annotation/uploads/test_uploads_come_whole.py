"""Any export is uploaded as a dataset with all of it; any zip is recognised or refused."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation.export import Exported, entries
from annotation.image_records import ImageRecord
from annotation.originals import originals
from annotation.uploads.upload import add_upload
from dataset.store import DatasetStore
from dataset.task_forms import fitting
from errors import VisionLoopError
from formats.annotations import FORMATS, Annotations, Format
from formats.capabilities import LACKING
from models_store.description import Task
from settings import Settings
from tests.annotation.corrections.test_corrections_come_back import (
    NAMES,
    data_sets,
    setup_module,
    teardown_module,
)
from tests.support import exported_zips as made
from tests.support.examples import EXAMPLES

__all__ = ["setup_module", "teardown_module"]  # of the images on disk, for pytest

pytestmark = pytest.mark.properties

UPLOADS = max(20, EXAMPLES // 4)  # each is a whole upload, of a tenth of a second
NEAR = 0.01  # pixels that a coordinate may lose in a label file
TOO_FEW = ("val split has no images", "train has no images", "No label files", "no folder 'train'",
           "no usable labelled object", "has an annotated object",
           "needs one folder of images per class",
           "train 'images/train' does not exist")  # fmt: skip


def zipped(exported: Exported, form: Format) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry in entries(exported, form, True):
            content = entry.content
            archive.writestr(
                entry.path, content if isinstance(content, bytes) else content.read_bytes()
            )
    buffer.seek(0)
    return buffer


Row = tuple[str, tuple[float, ...]]  # class and xyxy


def rows(found: Annotations) -> list[Row]:
    return [(thing.label, thing.bounds or ()) for thing in found.objects]


@settings(max_examples=UPLOADS, deadline=None, suppress_health_check=list(HealthCheck))
@given(data_sets(), st.sampled_from(FORMATS))
def test_an_export_becomes_a_dataset_with_the_same_in_it(
    drawn: tuple[Task, list[ImageRecord]], form: Format
) -> None:
    task, pictures = drawn
    if task in LACKING.get(form, {}):
        return
    exported = Exported(task, NAMES, (), pictures)
    with tempfile.TemporaryDirectory() as home:
        store = DatasetStore(Settings(home=Path(home)))
        card, refused = added(store, zipped(exported, form), task)
        if card is None:
            assert any(reason in refused for reason in TOO_FEW), refused
            return
        accounted(card)
        dataset = store.open(card["id"])
        back = {picture.content: picture for picture in originals(dataset)}
    for picture in pictures:
        expected = rows(
            picture.annotations if task == "classify" else fitting(picture.annotations, task)
        )
        if not expected and task == "classify":
            continue
        left = once(rows(back[picture.content].annotations))
        for row in once(expected):
            left.remove(next((found for found in left if same(found, row)), row))
        assert left == []


def same(one: Row, other: Row) -> bool:
    return one[0] == other[0] and one[1] == pytest.approx(other[1], abs=NEAR)


def once(found: list[Row]) -> list[Row]:
    """Without what is there twice: label files hold a line once."""
    kept: list[Row] = []
    for label, box in found:
        if not any(same((label, box), other) for other in kept):
            kept.append((label, box))
    return kept


def added(
    store: DatasetStore, file: io.BytesIO, task: Task | None
) -> tuple[dict[str, Any] | None, str]:
    """The card, or why it was refused: always by the client's fault."""
    try:
        return add_upload(store, file, "set", task), ""
    except VisionLoopError as error:
        if error.status >= 500:
            raise
        return None, error.message


def accounted(card: dict[str, Any]) -> None:
    images, objects = card["accounting"]["images"], card["accounting"]["objects"]
    counted = ("labelled", "empty", "without_annotation", "unreadable", "copies")
    assert images["received"] == sum(images[kind] for kind in counted)
    assert min(images.values()) >= 0
    assert objects["received"] == objects["stored"] + sum(objects["passed_over"].values())


SHOWN = made.shown(4, 1)
POOL = sorted(
    {(name, data) for make, _, _ in made.ZIPS.values() for name, data in make(SHOWN).items()}
)


@st.composite
def mixed(draw: st.DrawFn) -> made.Entries:
    """Files of several tools' exports in one zip, some of them cut or changed."""
    chosen: made.Entries = {}
    for name, data in draw(st.lists(st.sampled_from(POOL), min_size=1, max_size=12)):
        if draw(st.booleans()):
            place = draw(st.integers(0, max(len(data) - 1, 0)))
            change = draw(st.sampled_from([b"", b"\0", b"{", b"0", b'"', b"-1e9", b"<!--"]))
            data = data[:place] + change + data[place + draw(st.integers(0, 3)) :]
        chosen[name] = data
    return chosen


@settings(max_examples=UPLOADS, deadline=None, suppress_health_check=list(HealthCheck))
@given(mixed(), st.sampled_from([None, "detect", "segment", "pose", "classify"]))
def test_any_mixture_is_understood_or_refused_as_a_whole(
    chosen: made.Entries, task: Task | None
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in chosen.items():
            archive.writestr(name, data)
    buffer.seek(0)
    with tempfile.TemporaryDirectory() as home:
        store = DatasetStore(Settings(home=Path(home)))
        card, _ = added(store, buffer, task)
        if card is None:
            assert store.list() == []
            assert list((Path(home) / "uploads").iterdir()) == []
            return
        accounted(card)
        store.open(card["id"])
