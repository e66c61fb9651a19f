"""Annotations that came in: their pictures follow, whatever happens in between."""

from __future__ import annotations

import asyncio
import errno
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from annotation.datasets import AnnotatedDatasets
from annotation.tables import AnnotatedDataset
from database import Database
from dataset.revisions import get_revision
from dataset.store import DatasetStore
from errors import InsufficientStorage, ValidationFailed
from evaluation.store import EvaluationStore
from formats.label_studio_marking import marking
from jobs.store import JobStore
from models_store.registry import Registry
from models_store.store import ModelStore
from serving.annotation_inbox import AnnotationInbox, Pace
from settings import Settings
from tests.support.locked_database import locked
from tests.support.patience import PATIENCE, until

Picture = Callable[..., bytes]

CONFIG = """<View><Image name="i" value="$image"/><RectangleLabels name="r" toName="i">
<Label value="Disc"/><Label value="box"/></RectangleLabels></View>"""


class Images:
    """Pictures by address; each is counted when it is asked for."""

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}
        self.asked: list[str] = []

    async def get(self, address: str) -> bytes:
        self.asked.append(address)
        if address not in self.known:
            raise ValidationFailed("It is not there yet.")
        return self.known[address]


@pytest.fixture
def images() -> Images:
    return Images()


@pytest.fixture
def inbox(tmp_path: Path, images: Images) -> Iterator[AnnotationInbox]:
    settings = Settings(home=tmp_path / "home")
    database = Database(settings, patience=0.2)
    store, jobs = AnnotatedDatasets(database), JobStore(database)
    evaluations = EvaluationStore(database)
    registry = Registry(database, ModelStore(tmp_path / "bento"))
    kept: Any = images
    yield AnnotationInbox(store, kept, registry, jobs, evaluations)
    database.close()


@pytest.fixture
def dataset(inbox: AnnotationInbox) -> AnnotatedDataset:
    return inbox.store.ensure("label_studio:1.2", "Shapes", {"label_config": CONFIG})


def region(label: str, **more: Any) -> dict[str, Any]:
    value = {"x": 10, "y": 20, "width": 50, "height": 40, "rectanglelabels": [label]}
    return {"id": label, "type": "rectanglelabels", "value": value} | more


def receive(inbox: AnnotationInbox, dataset: AnnotatedDataset, key: str, *labels: str) -> None:
    document = {"regions": [region(label) for label in labels]}
    inbox.store.entries.receive(dataset.id, key, document, task=key, address=f"/data/{key}.jpg")


def objects(inbox: AnnotationInbox, dataset: AnnotatedDataset) -> list[list[str]]:
    pictures = inbox.store.entries.records(dataset.id)
    return sorted([thing.label for thing in p.annotations.objects] for p in pictures)


def test_a_picture_that_is_not_there_is_asked_for_again(
    inbox: AnnotationInbox, images: Images, dataset: AnnotatedDataset, picture: Picture
) -> None:
    receive(inbox, dataset, "1", "box")
    asyncio.run(inbox.bring())
    (waiting,) = inbox.store.entries.waiting()
    assert waiting.error == "It is not there yet."
    images.known["/data/1.jpg"] = picture(200, 100)
    asyncio.run(inbox.bring())  # too early
    assert images.asked == ["/data/1.jpg"]
    asyncio.run(inbox.bring(dataset.id, again=True))
    assert inbox.store.entries.waiting() == []
    (found,) = inbox.store.entries.records(dataset.id)
    assert found.annotations.objects[0].box == (20, 20, 120, 60)


def test_an_annotation_that_changes_does_not_fetch_its_picture_again(
    inbox: AnnotationInbox, images: Images, dataset: AnnotatedDataset, picture: Picture
) -> None:
    images.known["/data/1.jpg"] = picture()
    for labels in (("box",), ("box", "Disc"), ()):
        receive(inbox, dataset, "1", *labels)
        asyncio.run(inbox.bring())
        assert objects(inbox, dataset) == [list(labels)]
    assert images.asked == ["/data/1.jpg"]


def test_a_turned_picture_is_measured_upright(
    inbox: AnnotationInbox, images: Images, dataset: AnnotatedDataset
) -> None:
    image = Image.new("RGB", (100, 60))
    exif = image.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    images.known["/data/1.jpg"] = buffer.getvalue()
    receive(inbox, dataset, "1", "box")
    asyncio.run(inbox.bring())
    (found,) = inbox.store.entries.records(dataset.id)
    assert (found.annotations.width, found.annotations.height) == (60, 100)


def test_what_came_in_becomes_a_data_set_that_its_id_finds(
    inbox: AnnotationInbox, images: Images, dataset: AnnotatedDataset, picture: Picture
) -> None:
    for number in range(8):
        key = str(number)
        images.known[f"/data/{key}.jpg"] = picture(64, 64, seed=number)
        receive(inbox, dataset, key, "box" if number % 2 else "Disc")

    async def run() -> None:
        inbox.start()
        await until((inbox.store.folder(dataset.id) / "dataset.json").exists)
        await inbox.stop()

    asyncio.run(asyncio.wait_for(run(), PATIENCE))
    store = DatasetStore(Settings(home=inbox.store.folder("x").parent.parent))
    (card,) = store.list()
    assert (card["id"], card["name"], card["task"]) == (dataset.id, "Shapes", "detect")
    found = store.open(dataset.id)
    assert not [told for told in found.problems if not told.startswith("val has nothing of ")]
    assert found.names == ("Disc", "box")  # as the configuration has them


def test_a_picture_that_is_none_waits_with_the_reason(
    inbox: AnnotationInbox, images: Images, dataset: AnnotatedDataset
) -> None:
    images.known["/data/1.jpg"] = b"<html>"
    receive(inbox, dataset, "1", "box")
    asyncio.run(inbox.bring())
    (waiting,) = inbox.store.entries.waiting(dataset.id)
    assert "not an image" in (waiting.error or "")


def test_what_says_more_about_a_region_is_passed_over() -> None:
    rows: list[Any] = [
        region("box"),
        {"id": "box", "type": "choices", "value": {"choices": ["blurred"]}},  # of that region
        {"id": "box", "type": "textarea", "value": {"text": ["a note"]}},
        {"id": "z", "type": "choices", "value": {"choices": ["night"]}},
        {"type": "relation", "from_id": "a", "to_id": "b"},
    ]
    assert [row["id"] for row in marking(rows)] == ["box", "z"]
    with pytest.raises(ValidationFailed, match="must be an object"):
        marking([*rows, "nonsense"])
    assert marking([]) == []


def test_choices_about_an_image_are_no_class_of_a_set_of_objects(
    inbox: AnnotationInbox, images: Images, picture: Picture
) -> None:
    config = CONFIG.replace(
        "</View>", '<Choices name="c" toName="i"><Choice value="night"/></Choices></View>'
    )
    dataset = inbox.store.ensure("label_studio:1.3", "Shapes", {"label_config": config})
    night = {"id": "n", "type": "choices", "value": {"choices": ["night"]}}
    for key in ("1", "2", "3"):
        images.known[f"/data/{key}.jpg"] = picture(64, 64, seed=int(key))
        document = {"regions": [region("box"), night] if key != "3" else [night]}
        inbox.store.entries.receive(dataset.id, key, document, task=key, address=f"/data/{key}.jpg")
    asyncio.run(inbox.bring())
    card = inbox.build_now(dataset)
    assert (card["task"], card["classes"]) == ("detect", ["box"])
    folder = inbox.store.folder(dataset.id) / "revisions" / "000001"
    assert "night" not in (folder / "data.yaml").read_text()
    assert get_revision(inbox.store.folder(dataset.id), 1).names == ("box",)
    assert inbox.build_now(dataset, "classify")["classes"] == ["box", "night"]


@pytest.mark.parametrize(
    "lost",
    [
        {"id": "b", "type": "vectorlabels", "value": {"vectorlabels": ["box"], "rle": []}},
        {"id": "b", "type": "ellipselabels", "value": {"ellipselabels": ["box"]}},
        {"id": "b", "type": "rectangle", "value": {"x": 1, "y": 1, "width": 2, "height": 2}},
    ],
)
@pytest.mark.parametrize("others", [(), ("Disc",)])
def test_a_picture_whose_objects_cannot_be_held_is_no_background(
    inbox: AnnotationInbox,
    images: Images,
    dataset: AnnotatedDataset,
    picture: Picture,
    lost: dict[str, Any],
    others: tuple[str, ...],
) -> None:
    images.known["/data/1.jpg"] = picture()
    document = {"regions": [lost, *map(region, others)]}
    inbox.store.entries.receive(dataset.id, "1", document, task="1", address="/data/1.jpg")
    asyncio.run(inbox.bring())
    assert inbox.store.entries.records(dataset.id) == []
    (waiting,) = inbox.store.entries.waiting(dataset.id)
    assert str(lost["type"]) in (waiting.error or "")


def test_one_entry_that_breaks_does_not_keep_the_others(
    inbox: AnnotationInbox, images: Images, dataset: AnnotatedDataset, picture: Picture
) -> None:
    images.known["/data/2.jpg"] = picture()
    receive(inbox, dataset, "1", "box")
    receive(inbox, dataset, "2", "box")
    get = images.get

    async def breaks(address: str) -> bytes:
        if address == "/data/1.jpg":
            raise RuntimeError("a fault of ours")
        return await get(address)

    images.get = breaks  # type: ignore[method-assign]
    asyncio.run(inbox.bring())
    (waiting,) = inbox.store.entries.waiting(dataset.id)
    assert waiting.key == "1"
    assert "log has the details" in (waiting.error or "")
    assert objects(inbox, dataset) == [["box"]]


def test_arrivals_without_a_pause_do_not_put_the_folder_off_for_ever(
    inbox: AnnotationInbox,
    images: Images,
    dataset: AnnotatedDataset,
    picture: Picture,
) -> None:
    inbox.pace = Pace(latest=0.2)
    images.known["/data/1.jpg"] = picture()
    receive(inbox, dataset, "1", "box")
    made = inbox.store.folder(dataset.id) / "dataset.json"

    async def run() -> None:
        inbox.start()
        while not made.exists():  # the deadline is that of the whole
            inbox.wake()
            await asyncio.sleep(0.01)
        await inbox.stop()

    asyncio.run(asyncio.wait_for(run(), PATIENCE))
    assert made.exists()


def test_a_folder_that_takes_long_is_not_made_for_every_annotation(
    inbox: AnnotationInbox,
    images: Images,
    dataset: AnnotatedDataset,
    picture: Picture,
) -> None:
    inbox.pace = Pace(quiet=0.02, share=100_000)
    revisions = inbox.store.folder(dataset.id) / "revisions"

    async def run() -> None:
        inbox.start()
        for number in range(5):
            key = str(number)
            images.known[f"/data/{key}.jpg"] = picture(64, 64, seed=number)
            receive(inbox, dataset, key, "box")
            inbox.wake()
            await asyncio.sleep(0.3)
        await inbox.stop()

    asyncio.run(asyncio.wait_for(run(), PATIENCE))
    assert len(list(revisions.iterdir())) == 1


def test_a_locked_database_delays_annotations_and_loses_none(
    inbox: AnnotationInbox,
    images: Images,
    dataset: AnnotatedDataset,
    picture: Picture,
) -> None:
    inbox.pace = Pace(quiet=0.1)
    images.known["/data/1.jpg"] = picture()
    receive(inbox, dataset, "1", "box")

    async def run() -> None:
        with locked(inbox.store.database.settings.paths.database):
            inbox.start()
            await until(lambda: images.asked.count("/data/1.jpg") > 1)  # it has failed once
        await until((inbox.store.folder(dataset.id) / "dataset.json").exists)
        await inbox.stop()

    asyncio.run(asyncio.wait_for(run(), PATIENCE))
    assert objects(inbox, dataset) == [["box"]]


def test_a_build_that_the_disk_had_no_room_for_is_made_later(
    inbox: AnnotationInbox,
    images: Images,
    dataset: AnnotatedDataset,
    picture: Picture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inbox.pace = Pace(quiet=0.02, share=0)
    images.known["/data/1.jpg"] = picture()
    receive(inbox, dataset, "1", "box")
    build, failures = inbox.build_now, [OSError(errno.ENOSPC, "full"), InsufficientStorage("full")]

    def failing(*arguments: Any) -> dict[str, Any]:
        if failures:
            raise failures.pop()
        return build(*arguments)

    monkeypatch.setattr(inbox, "build_now", failing)

    async def run() -> None:
        inbox.start()
        while not (inbox.store.folder(dataset.id) / "dataset.json").exists():
            inbox.wake()
            await asyncio.sleep(0.05)
        await inbox.stop()

    asyncio.run(asyncio.wait_for(run(), PATIENCE))
    assert not failures


def test_a_stop_ends_it_though_something_arrives_at_the_same_moment(inbox: AnnotationInbox) -> None:
    async def run() -> None:
        for turns in range(8):  # the event is seen a few turns of the loop after it was set
            inbox.start()
            await asyncio.sleep(0.1)
            inbox.wake()
            for _ in range(turns):
                await asyncio.sleep(0)
            await inbox.stop()

    asyncio.run(asyncio.wait_for(run(), PATIENCE))
