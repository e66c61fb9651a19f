"""The recipes of the starter models, for a few steps, and the models that are shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.starters import Model, hits, overlaps
from models_store.weights import load_model
from synthetic.camera import STREET
from synthetic.scenes import draw_scene, draw_sign_crop
from synthetic.signs import CLASS_NAMES
from synthetic.train_starters import (
    FOLDERS,
    Budget,
    Scenes,
    collate_scenes,
    publish,
    train_classifier,
    train_detector,
)
from tests.support.seeds import rng

SHIPPED = Path(__file__).parents[2] / "models_store" / "starter"


def test_classifier_recipe_resumes_and_publishes_a_loadable_model(tmp_path: Path) -> None:
    checkpoint = tmp_path / "work" / "classifier.pt"
    train_classifier(Budget(1, None), checkpoint, workers=0)
    model = train_classifier(Budget(2, None), checkpoint, workers=0)
    assert torch.load(checkpoint, weights_only=True)["step"] == 2
    folder = publish(model, "classifier", tmp_path)
    loaded, description = load_model(folder)
    assert description.names == CLASS_NAMES
    assert (description.task, description.imgsz) == ("classify", 64)
    with torch.inference_mode():
        x = torch.zeros(1, 3, 64, 64)
        assert torch.allclose(loaded(x), model(x), atol=1e-2)


def test_detector_recipe_publishes_a_loadable_model(tmp_path: Path) -> None:
    model = train_detector(Budget(1, None), tmp_path / "detector.pt", workers=0)
    _, description = load_model(publish(model, "detector", tmp_path))
    assert description.names == CLASS_NAMES
    assert (description.task, description.imgsz) == ("detect", 640)


def test_a_batch_of_scenes_has_one_size_and_relative_boxes() -> None:
    scenes = Scenes(seed=5, batch=4)
    batch = collate_scenes([scenes[i] for i in range(4)])
    assert batch["img"].shape[0] == 4
    assert batch["img"].shape[2] == batch["img"].shape[3]
    assert len(batch["cls"]) == len(batch["bboxes"]) == len(batch["batch_idx"])
    assert ((batch["bboxes"] >= 0) & (batch["bboxes"] <= 1)).all()


@pytest.mark.parametrize(
    ("steps", "minutes", "step", "spent", "progress"),
    [(10, None, 5, 0.0, 0.5), (10, None, 20, 0.0, 1.0), (10, 2.0, 9, 60.0, 0.5)],
)
def test_budget_counts_steps_or_minutes(
    steps: int, minutes: float | None, step: int, spent: float, progress: float
) -> None:
    assert Budget(steps, minutes, spent).progress(step) == progress


def test_overlap_of_equal_half_and_disjoint_boxes() -> None:
    box = np.array([[0, 0, 2, 2]], np.float32)
    others = np.array([[0, 0, 2, 2], [0, 0, 2, 1], [5, 5, 6, 6]], np.float32)
    assert overlaps(box, others)[0] == pytest.approx([1, 0.5, 0], abs=1e-6)


def test_an_object_is_found_once() -> None:
    box = np.array([[0, 0, 2, 2]], np.float32)
    assert hits(np.repeat(box, 2, 0), box, 0.5).tolist() == [True, False]
    assert hits(box, np.zeros((0, 4), np.float32), 0.5).tolist() == [False]


@pytest.mark.parametrize("kind", FOLDERS)
def test_shipped_weights_are_small_and_know_the_classes(kind: str) -> None:
    folder = SHIPPED / FOLDERS[kind]
    assert (folder / "model.safetensors").stat().st_size < 7_000_000
    assert Model(folder).description.names == CLASS_NAMES


def test_shipped_classifier_reads_clear_drawn_signs() -> None:
    model = Model(SHIPPED / FOLDERS["classifier"])
    right = 0
    for i in range(2 * len(CLASS_NAMES)):
        image = draw_sign_crop(rng(99, i), i % len(CLASS_NAMES), 64, STREET)
        right += model.predict(image).class_ids[0] == i % len(CLASS_NAMES)
    assert right / (2 * len(CLASS_NAMES)) > 0.75


def test_shipped_detector_finds_drawn_signs() -> None:
    model = Model(SHIPPED / FOLDERS["detector"])
    found = signs = 0
    for i in range(16):
        image, boxes, _ = draw_scene(rng(98, i), 640, 480)
        boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).min(1) > 32]
        found += int(hits(model.predict(image, confidence=0.1).boxes, boxes, 0.5).sum())
        signs += len(boxes)
    assert found / signs > 0.5
