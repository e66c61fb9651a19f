"""Start weights that are not here when a training is planned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from database import Database
from errors import BackendUnavailable, ModelNotFound, ValidationFailed
from jobs.handle import JobCancelled
from models_store.registry import Registry
from settings import Settings
from tests.support.mirror import QUICK, Mirror, mirror, silent_port
from tests.support.patience import PATIENCE
from tests.support.shapes import write_shapes
from tests.support.small_models import checkpoint, network
from tests.support.trainer_job import Paths, RecordingJob
from training.missing_weights import with_weights
from training.planning.plan import plan
from training.planning.recipe import Recipe, TrainingRequest

PATIENT = replace(QUICK, connect=PATIENCE, answer=PATIENCE, silence=PATIENCE)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Mirror]:
    content = checkpoint(tmp_path / "x.pt", network("detect")).read_bytes()
    with mirror(yolov9t=content, yolov8n=content) as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_shapes(tmp_path / "data", "detect", 2, 2, 64)


@pytest.fixture
def registry(
    tmp_path: Path, data: Path, served: Mirror, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Registry]:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bento"))
    settings = Settings(
        home=tmp_path / "home",
        data_roots=(data.parent,),
        device="cpu",
        allow_download="auto",
        download_url=served.url,
    )
    made = Registry(Database(settings))
    yield made
    made.database.close()


@pytest.fixture
def with_settings(registry: Registry) -> Iterator[Any]:
    """The registry with changed settings."""
    made: list[Registry] = []

    def changed(**values: Any) -> Registry:
        made.append(Registry(Database(registry.settings.model_copy(update=values))))
        return made[-1]

    yield changed
    for one in made:
        one.database.close()


def planned(registry: Registry, data: Path, model: str = "yolov9t", **fields: Any) -> Recipe:
    request = TrainingRequest(data=str(data), model=model, **fields)
    return plan(request, registry, Paths(), registry.settings)


def test_missing_weights_are_fetched_by_the_job_and_kept(
    registry: Registry, served: Mirror, data: Path, job: RecordingJob
) -> None:
    recipe = planned(registry, data, imgsz=50)
    assert served.asked == []  # the request does not fetch
    assert recipe.notes == (
        "No yolov9t weights here: they will be fetched, else it starts from scratch.",
        "imgsz 50 was rounded up to 64, a multiple of the stride 32.",
    )
    settled = with_weights(recipe, job, registry, PATIENT)
    model = registry.get("yolov9t-coco")
    assert (settled.base.kind, settled.parent) == ("model", model.id)
    assert settled.base.default_name == "detect_yolov9t"
    assert model.source["fetched_by"] == job.id
    sentence = settled.notes[0]
    assert sentence.startswith(f"Starts from {model.id}: yolov9t.pt was fetched from 127.0.0.1:")
    assert model.source["sha256"] in sentence
    [(stored, shown)] = job.recipes
    assert Recipe.model_validate(stored) == settled
    assert shown["base"] == {"kind": "model", "from": model.id}
    assert sentence in shown["notes"]
    assert "No yolov9t weights here" in job.text
    # a resumed job, a later training
    assert with_weights(Recipe.model_validate(stored), job, registry, PATIENT) == settled
    later = planned(registry, data)
    assert later.base.value == model.id
    assert "registry" in later.notes[0]
    assert served.asked == ["/yolov9t.pt"]


def test_two_jobs_planned_before_the_weights_came_use_the_same(
    registry: Registry, served: Mirror, data: Path, job: RecordingJob
) -> None:
    recipes = [planned(registry, data) for _ in range(2)]
    bases = {with_weights(recipe, job, registry, PATIENT).base.value for recipe in recipes}
    assert bases == {registry.get("yolov9t-coco").id}
    assert served.asked == ["/yolov9t.pt"]


@pytest.mark.parametrize(
    ("model", "change", "reason"),
    [
        ("yolov9t", {"download_url": "nobody"}, "refused"),
        ("yolov9s", {}, "answered 404"),
        ("yolov8n", {}, "is not the file that is recorded"),
    ],
)
def test_weights_that_do_not_come_are_told(
    with_settings: Any, data: Path, job: RecordingJob, model: str, change: Any, reason: str
) -> None:
    with silent_port(accepts=False) as nobody:
        change = dict.fromkeys(change, nobody)
        registry = with_settings(**change)
        settled = with_weights(planned(registry, data, model), job, registry, QUICK)
        assert (settled.base.kind, settled.base.value) == ("scratch", model)
        assert settled.notes[0].startswith(f"Trains {model} from scratch: {model}.pt could not be")
        assert reason in settled.notes[0]
        assert job.recipes[0][1]["base"] == {"kind": "scratch", "from": model}
        always = with_settings(**change, allow_download="always")
        recipe = planned(always, data, model)
        assert recipe.notes[0].endswith("they will be fetched, else the training fails.")
        with pytest.raises(BackendUnavailable, match="VISIONLOOP_ALLOW_DOWNLOAD=auto"):
            with_weights(recipe, job, always, QUICK)
    assert registry.list() == []


def test_never_plans_from_scratch_and_says_why(
    with_settings: Any, registry: Registry, data: Path, job: RecordingJob, served: Mirror
) -> None:
    never = with_settings(allow_download="never")
    recipe = planned(never, data)
    assert recipe.base.kind == "scratch"
    assert "VISIONLOOP_ALLOW_DOWNLOAD is never" in recipe.notes[0]
    queued_before = planned(registry, data)
    settled = with_weights(queued_before, job, never, PATIENT)
    assert "VISIONLOOP_ALLOW_DOWNLOAD is never" in settled.notes[0]
    assert served.asked == []


def test_a_network_without_published_weights_starts_from_scratch(
    registry: Registry, tmp_path: Path
) -> None:
    segments = write_shapes(tmp_path / "data" / "segments", "segment", 2, 2, 64)
    recipe = planned(registry, segments, "yolo12n-seg")
    assert recipe.base.kind == "scratch"
    assert "nobody publishes any to fetch" in recipe.notes[0]


def test_fetched_weights_are_found_by_the_name_of_their_network(
    registry: Registry, data: Path, job: RecordingJob
) -> None:
    """As the model to extend, or the teacher."""
    wanted = {"mode": "incremental", "base_model": "yolov9t"}
    with pytest.raises(ModelNotFound, match="visionloop models fetch yolov9t"):
        planned(registry, data, **wanted)
    with_weights(planned(registry, data), job, registry, PATIENT)
    assert planned(registry, data, **wanted).base.value == registry.get("yolov9t-coco").id
    with pytest.raises(ValidationFailed, match=r"base_model_path: .*RT-DETR is not supported"):
        planned(registry, data, mode="incremental", base_model="rtdetr-l")
    for model in ("rtdetr-l", "yolov8n-obb", "yolov7n"):
        with pytest.raises(ValidationFailed, match=r"yolo11.*yolov8|yolov8.*yolo11"):
            planned(registry, data, model)


def test_weights_of_an_older_version_are_used(registry: Registry, data: Path) -> None:
    folder = registry.settings.paths.pretrained
    folder.mkdir(parents=True)
    (folder / "yolov9t.pt").write_bytes(b"weights")
    assert planned(registry, data).base.value == str(folder / "yolov9t.pt")


def test_a_job_can_be_cancelled_while_it_fetches(
    registry: Registry, served: Mirror, data: Path, job: RecordingJob
) -> None:
    recipe = planned(registry, data)
    job.stop_when = lambda _: JobCancelled() if served.asked else None
    with pytest.raises(JobCancelled):
        with_weights(recipe, job, registry, PATIENT)
    assert job.recipes == []
    assert list((job.folder / "download").iterdir()) == []
    assert registry.list() == []
