"""Batch annotation as the worker does it: bands, problems, killed and resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from annotation.cleanup import delete_leftovers
from annotation.confidence_bands import Bands
from annotation.datasets import AnnotatedDatasets
from annotation.entries import image_entry
from annotation.image_records import PRELABEL_RANK
from annotation.job import run_annotation
from annotation.prelabeller import Prelabeller
from annotation.queue.review_queue import queued_images
from annotation.recipe import AnnotationRecipe, AnnotationRequest, plan_annotation
from annotation.revision_records import read_records
from database import Database
from dataset.revisions import list_revisions
from dataset.store import DatasetStore
from errors import DatasetInvalid, ValidationFailed
from formats.annotations import Annotation, Annotations
from jobs.handle import JobCancelled
from jobs.store import JobStore
from models_store.registry import Registry
from models_store.versions import ModelVersion
from settings import get_settings
from tests.support.annotated import age
from tests.support.seeds import rng
from tests.support.shapes import write_shapes
from tests.support.small_models import make_model
from tests.support.trainer_job import RecordingJob


class Killed(BaseException):
    """As if the process had ended."""


@pytest.fixture(scope="module")
def model(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    folder = tmp_path_factory.mktemp("model")
    make_model(folder, "detect")
    return registry.publish(folder, "small-labeller", {"kind": "import"})


@pytest.fixture
def annotated() -> Iterator[AnnotatedDatasets]:
    store = AnnotatedDatasets(Database(get_settings()))
    yield store
    store.database.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six drawn images, one of them twice, one torn, and a text."""
    source = tmp_path / "street"
    write_shapes(tmp_path / "drawn", "detect", 6, 1, 64)
    (source / "left").mkdir(parents=True)
    for index, picture in enumerate(sorted((tmp_path / "drawn/images/train").iterdir())):
        (source / "left" / f"{index}.jpg").write_bytes(picture.read_bytes())
    (source / "copy.jpg").write_bytes((source / "left/0.jpg").read_bytes())
    (source / "torn.jpg").write_bytes((source / "left/0.jpg").read_bytes()[:700])
    (source / "notes.txt").write_text("no picture")
    return source


def planned(
    store: AnnotatedDatasets,
    model: ModelVersion,
    source: Path,
    number: str = "1",
    bands: Bands = Bands(accept=0.9, review=0.2),  # noqa: B008
    **more: object,
) -> AnnotationRecipe:
    values: dict[str, object] = {"source": source, "temporary": True, "tool": "object_detection"}
    values |= {"bands": bands, "format": "coco"} | more
    request = AnnotationRequest.model_validate(values)
    return plan_annotation(request, model, store, get_settings(), number)


def test_a_folder_becomes_a_dataset_in_bands(
    registry: Registry,
    model: ModelVersion,
    annotated: AnnotatedDatasets,
    folder: Path,
    job: RecordingJob,
) -> None:
    recipe = planned(annotated, model, folder, "bands")
    run_annotation(recipe, job, registry)

    store = DatasetStore(get_settings())
    card = store.get(recipe.dataset_id)
    done = card["annotation"]
    assert (done["pictures"], done["twins"], done["problem_count"]) == (6, 1, 1)
    assert done["problems"][0]["image"] == "torn.jpg"
    assert "Skipped torn.jpg: " in job.text
    assert not folder.exists()  # an upload goes with its job
    found = list(read_records(store.folder / recipe.dataset_id, 1))
    assert {picture.name for picture in found} >= {f"left/{i}.jpg" for i in range(1, 6)}
    scores = [o.score or 0 for picture in found for o in picture.annotations.objects]
    assert scores
    assert min(scores) >= 0.2
    counts = {band: sum(row[band] for row in done["classes"]) for band in ("accept", "review")}
    assert counts["accept"] == sum(score >= 0.9 for score in scores)
    assert counts["review"] == sum(0.2 <= score < 0.9 for score in scores)
    assert job.metrics[-1]["objects_review"] == counts["review"]
    assert {picture.by for picture in found} == {model.id}
    revision = list_revisions(store.folder / recipe.dataset_id)[0]
    assert revision.names == model.description.names  # all, so that ids stay
    assert revision.to_review == sum(not picture.trains for picture in found) == card["to_review"]
    queue, _ = queued_images(annotated, recipe.dataset_id)
    assert len(queue) == 6
    assert job.fractions == sorted(job.fractions)


def test_a_killed_job_resumes_with_the_next_image(
    registry: Registry,
    model: ModelVersion,
    annotated: AnnotatedDatasets,
    folder: Path,
    job: RecordingJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    label = Prelabeller.prelabel

    def counted(labeller: Prelabeller, data: bytes) -> object:
        if len(seen) == 3:
            raise Killed
        seen.append(len(data))
        return label(labeller, data)

    monkeypatch.setattr(Prelabeller, "prelabel", counted)
    recipe = planned(annotated, model, folder, "killed")
    with pytest.raises(Killed):
        run_annotation(recipe, job, registry)
    assert annotated.entries.count(recipe.dataset_id) == 3
    assert not list_revisions(annotated.folder(recipe.dataset_id))
    assert recipe.dataset_id not in {row.id for row in annotated.outdated_projects()}

    again: list[int] = []

    def noted(labeller: Prelabeller, data: bytes) -> object:
        again.append(len(data))
        return label(labeller, data)

    monkeypatch.setattr(Prelabeller, "prelabel", noted)
    run_annotation(recipe, job, registry)
    assert "3 of them were annotated before a restart." in job.text
    assert len(again) == 4  # the other three and the torn one
    card = DatasetStore(get_settings()).get(recipe.dataset_id)
    assert card["annotation"]["pictures"] == 6

    run_annotation(recipe, job, registry)  # killed after its last act
    assert len(list_revisions(annotated.folder(recipe.dataset_id))) == 1


def test_a_cancelled_job_ends_between_two_images_and_is_cleared_away(
    registry: Registry,
    model: ModelVersion,
    annotated: AnnotatedDatasets,
    folder: Path,
    job: RecordingJob,
    store: JobStore,
) -> None:
    recipe = planned(annotated, model, folder, "cancelled")
    job.stop_when = lambda job: JobCancelled() if len(job.fractions) > 2 else None
    with pytest.raises(JobCancelled):
        run_annotation(recipe, job, registry)
    assert annotated.find("batch:cancelled") is not None
    delete_leftovers(annotated, store, get_settings())
    assert annotated.find("batch:cancelled") is not None  # it may be on its way into the queue
    age(annotated, recipe.dataset_id)
    delete_leftovers(annotated, store, get_settings())
    assert annotated.find("batch:cancelled") is None
    assert not annotated.folder(recipe.dataset_id).exists()


def test_no_readable_image_is_an_error(
    registry: Registry, model: ModelVersion, annotated: AnnotatedDatasets, tmp_path: Path,
    job: RecordingJob,
) -> None:  # fmt: skip
    (tmp_path / "in").mkdir()
    with pytest.raises(DatasetInvalid, match="no images"):
        planned(annotated, model, tmp_path / "in", "empty")
    (tmp_path / "in" / "a.png").write_bytes(b"\x89PNG\r\n nothing")
    with pytest.raises(DatasetInvalid, match=r"No image could be read: a\.png"):
        run_annotation(planned(annotated, model, tmp_path / "in", "torn"), job, registry)


def test_what_cannot_be_done_is_refused_before_the_queue(
    model: ModelVersion, annotated: AnnotatedDatasets, folder: Path
) -> None:
    with pytest.raises(ValidationFailed, match=r"'confidence' \(0\.5\)"):
        planned(annotated, model, folder, confidence=0.5)
    with pytest.raises(ValidationFailed, match="COCO cannot hold"):
        planned(annotated, model, folder, tool="image_classification")
    assert planned(annotated, model, folder, "floor").confidence == 0.08


def test_a_dataset_is_annotated_again_from_its_newest_revision(
    registry: Registry,
    model: ModelVersion,
    annotated: AnnotatedDatasets,
    folder: Path,
    job: RecordingJob,
) -> None:
    first = planned(annotated, model, folder, "once")
    run_annotation(first, job, registry)
    source = DatasetStore(get_settings()).resolve(first.dataset_id)
    again = planned(annotated, model, source, "twice", temporary=False)
    run_annotation(again, job, registry)
    names = [picture.name for picture in read_records(annotated.folder(again.dataset_id), 1)]
    assert len(names) == 6
    assert "left/1.jpg" in names


def test_only_certain_images_train(annotated: AnnotatedDatasets) -> None:
    random = rng(0)
    dataset = annotated.ensure(
        "batch:sure", "sure", {"bands": {"accept": 0.8, "review": 0.3}}, "batch"
    )
    rows = []
    for scores in ((0.9, 0.8), (0.9, 0.5), ()):
        pixels = random.integers(0, 255, (20, 20, 3), np.uint8)
        data = cv2.imencode(".png", pixels)[1].tobytes()
        content, suffix = annotated.entries.keep(dataset.id, data)
        objects = tuple(Annotation("a", box=(1, 1, 9, 9), score=score) for score in scores)
        found = Annotations("x", 20, 20, objects)
        values = {"by": "m:1", "name": json.dumps(scores)}
        rows.append(
            image_entry("model", content, suffix, found, rank=PRELABEL_RANK, document=values)
        )
    annotated.entries.add_prelabels(dataset.id, rows)
    trains = {picture.name: picture.trains for picture in annotated.entries.records(dataset.id)}
    assert trains == {"[0.9, 0.8]": True, "[0.9, 0.5]": False, "[]": False}


def test_a_dataset_that_waits_for_people_says_so(
    registry: Registry,
    model: ModelVersion,
    annotated: AnnotatedDatasets,
    folder: Path,
    job: RecordingJob,
) -> None:
    recipe = planned(annotated, model, folder, "waits", Bands(accept=1.0, review=0.3))
    run_annotation(recipe, job, registry)
    card = DatasetStore(get_settings()).get(recipe.dataset_id)
    assert (card["usable"], card["to_review"]) == (False, 6)
    (problem,) = card["problems"]
    assert problem["message"].startswith("6 of 6 images wait for review by a person: GET /api")
    assert "COCO" not in problem["message"]
