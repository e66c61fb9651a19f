"""The published epoch is the best on old and new classes, each measured on its own images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from dataset.dataset import Dataset
from dataset.inspection import check
from models_store.description import Task
from models_store.registry import Registry
from tests.support.shapes import write_shapes
from tests.support.trainer_job import RecordingJob, narrow_network, recipe, run
from training.incremental.epoch_criteria import EpochCriteria, epoch_criteria
from training.incremental.epoch_selection import LastEpoch
from training.planning.class_union import ClassUnion
from training.replay.merged_dataset import MergedDataset, unite_data

CIRCLE, TRIANGLE = 0, 1  # the old class; the new one
CRITERIA = EpochCriteria(frozenset({CIRCLE}), frozenset({TRIANGLE}), True)
FILES = ["replayed-0.jpg", "new-0.jpg"]  # each shows both, and labels its own class only
Answer = list[tuple[int, bool]]  # per detection: its class, whether it lies on an object


def validated(task: Task, criteria: EpochCriteria, dataset: Any, fill: Any) -> dict[str, float]:
    """The metrics of an epoch whose predictions `fill(validator)` sets."""
    from training.incremental.part_validators import VALIDATORS

    validator = VALIDATORS[task].__new__(VALIDATORS[task])
    validator.criteria = criteria
    validator.dataloader = SimpleNamespace(dataset=dataset)
    validator.args = SimpleNamespace(task=task, plots=False, save_json=False)
    validator.save_dir, validator.on_plot = Path(), None
    fill(validator)
    stats: dict[str, float] = validator.get_stats()
    return stats


def detected(
    answers: list[Answer], task: Task = "detect", criteria: EpochCriteria = CRITERIA
) -> Any:
    from ultralytics.utils.metrics import DetMetrics, SegmentMetrics

    def fill(validator: Any) -> None:
        names = {0: "circle", 1: "triangle"}
        validator.metrics = SegmentMetrics(names) if task == "segment" else DetMetrics(names)
        for file, answer in zip(FILES, answers, strict=True):
            label = CIRCLE if file.startswith("replayed") else TRIANGLE
            classes = np.array([cls for cls, _ in answer], float)
            right = np.array([[there and cls == label] * 10 for cls, there in answer], bool)
            right = right.reshape(-1, 10)
            stat = {"tp": right, "conf": np.linspace(0.9, 0.5, len(answer)), "pred_cls": classes}
            stat |= {"target_cls": np.array([label], float), "target_img": np.array([label], float)}
            masks = {"tp_m": right & False if task == "segment" else right}
            validator.metrics.update_stats({**stat, **masks, "im_name": file})

    return validated(task, criteria, SimpleNamespace(im_files=FILES), fill)


BOTH: Answer = [(TRIANGLE, True), (CIRCLE, True)]


def test_a_perfect_detector_scores_1_on_partly_labelled_images() -> None:
    found = detected([BOTH, BOTH[::-1]])
    assert found["fitness"] == pytest.approx(1.0, abs=0.01)
    assert found["metrics/mAP50(B)"] == pytest.approx(1.0, abs=0.01)
    assert found["metrics/precision(B)"] == pytest.approx(1.0, abs=0.01)
    assert found["old_classes"] == found["new_classes"] == pytest.approx(1.0, abs=0.01)


def test_a_detector_that_forgot_loses_half() -> None:
    only_new: Answer = [(TRIANGLE, True)]
    found = detected([only_new, only_new])
    assert found["fitness"] == pytest.approx(0.5, abs=0.01)
    assert (found["old_classes"], found["new_classes"]) == (0, pytest.approx(1.0, abs=0.01))


def test_false_positives_count_on_the_images_of_their_class() -> None:
    found = detected([[(CIRCLE, False), (CIRCLE, True)], BOTH])
    assert found["old_classes"] == pytest.approx(0.5, abs=0.01)


def test_masks_are_measured_where_the_task_has_them() -> None:
    found = detected([BOTH, BOTH], "segment")
    assert found["metrics/mAP50(B)"] == pytest.approx(1.0, abs=0.01)
    assert found["fitness"] == 0


def test_without_new_classes_the_parts_count_alike() -> None:
    both = EpochCriteria(frozenset({0, 1}), frozenset({0, 1}), False)
    found = detected([[(CIRCLE, True)], [(TRIANGLE, False)]], criteria=both)
    assert found["fitness"] == pytest.approx(0.5, abs=0.01)
    assert "new_classes" not in found


def test_a_classifiers_classes_count_alike() -> None:
    files = [f"replayed-{i}.jpg" for i in range(6)] + ["new-0.jpg", "new-1.jpg"]
    truth = [0, 0, 0, 0, 1, 1, 2, 2]
    said = [0, 0, 0, 0, 2, 1, 2, 1]  # class 0 always right, 1 and 2 half of the time

    def fill(validator: Any) -> None:
        from ultralytics.utils.metrics import ClassifyMetrics

        validator.metrics = ClassifyMetrics()
        validator.targets = [torch.tensor(truth[:5]), torch.tensor(truth[5:])]
        others = [[first, *(i for i in range(3) if i != first)] for first in said]
        validator.pred = [torch.tensor(others[:5]), torch.tensor(others[5:])]

    samples = SimpleNamespace(samples=[[file, 0] for file in files])
    three = EpochCriteria(frozenset({0, 1}), frozenset({2}), True)
    found = validated("classify", three, samples, fill)
    assert found["metrics/accuracy_top1"] == pytest.approx(6 / 8)
    assert (found["old_classes"], found["new_classes"]) == (0.75, 0.5)
    assert found["fitness"] == 0.625


def test_the_last_epoch_is_saved_as_the_best() -> None:
    trainer = SimpleNamespace(best_fitness=0.9, fitness=0.2)
    LastEpoch().before_save(trainer)
    assert trainer.best_fitness == trainer.fitness  # then Ultralytics writes best.pt


def drawn(folder: Path, seed: int, names: tuple[str, ...]) -> Dataset:
    path = write_shapes(folder, "detect", train=4, val=8, imgsz=32, seed=seed)
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(content | {"names": dict(enumerate(names))}))
    return check(path, "detect", [folder.parent])


NAMES = ("circle", "square", "triangle")


@pytest.mark.parametrize(
    ("union", "expected"),
    [
        (
            ClassUnion(("a", "b", *NAMES), 2),
            EpochCriteria(frozenset({0, 1}), frozenset({2, 3, 4}), True),
        ),
        (ClassUnion(("a", *NAMES), 1), EpochCriteria(frozenset({0}), frozenset({1, 2, 3}), True)),
        (ClassUnion(("a", "square"), 1), EpochCriteria(frozenset({0}), frozenset({1}), True)),
        (  # no class is added: those that both label are measured on both
            ClassUnion(("a", "b", *NAMES), 5),
            EpochCriteria(frozenset({0, 1}), frozenset({2, 3, 4}), False),
        ),
        (ClassUnion(("z", *NAMES), 1), None),  # no old picture shows an old class
    ],
)
def test_which_classes_are_measured_on_which_images(
    tmp_path: Path, union: ClassUnion, expected: EpochCriteria | None
) -> None:
    new, old = drawn(tmp_path / "new", 0, NAMES), drawn(tmp_path / "old", 2, ("a", "b", "c"))
    assert epoch_criteria(unite_data(union, new, old, old.splits["train"]), union.old) == expected


def test_without_old_images_there_are_no_criteria(tmp_path: Path) -> None:
    union = ClassUnion(("a", *NAMES), 1)
    united: MergedDataset = unite_data(union, drawn(tmp_path / "new", 0, NAMES), None, ())
    assert epoch_criteria(united, 1) is None


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_a_training_with_old_data_is_measured_by_part(
    registry: Registry, job: RecordingJob, tmp_path: Path, task: Task
) -> None:
    from settings import get_settings

    folders = [get_settings().home / "datasets" / f"choice-{task}-{seed}" for seed in (0, 3)]
    for seed, folder in zip((0, 3), folders, strict=True):
        if not folder.exists():
            write_shapes(folder, task, train=9, val=8, imgsz=96, seed=seed)
    old, new = (str(f if task == "classify" else f / "data.yaml") for f in folders)
    base = narrow_network(registry, task, ("Triangle",))
    options: dict[str, Any] = {"mode": "incremental", "base_model": base, "epochs": 1, "data": new}
    trained = run(recipe(registry, task, **options, incremental={"old_data": old}), job)
    figures = trained.metrics
    assert figures["fitness"] == pytest.approx(
        (figures["old_classes"] + figures["new_classes"]) / 2
    )
    assert {"old_classes", "new_classes"} <= set(job.metrics[-1])
    assert "The best epoch is published" in job.text

    alone = RecordingJob(tmp_path / "alone")
    trained = run(recipe(registry, task, **options), alone)
    assert "old_classes" not in trained.metrics
    assert "The last epoch is published" in alone.text
