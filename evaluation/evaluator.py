"""Measuring a model on a split of a data set, with the engine that serves it.

Every picture goes the way a request's does: decoded, put into the network's square, run alone,
postprocessed. Needs no torch unless the engine does.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from database import now
from dataset.class_matching import JoinedClasses
from dataset.dataset import Dataset
from errors import ValidationFailed
from evaluation.classification import ClassificationMetrics
from evaluation.detection import CONFIDENCE, IOU, DetectionMetrics
from evaluation.ground_truth import GroundTruth
from evaluation.matching import PAIRED
from evaluation.plots import write_plots
from evaluation.store import PLOTS, PREDICTIONS, REPORT, WORST
from evaluation.worst_images import WorstImage, WorstImages, class_panel
from inference.engine import Engine, load_engine
from inference.images import decode
from inference.postprocess import MAX_DET, postprocess
from inference.preprocess import Letterbox, prepare
from models_store.description import ModelDescription
from settings import Settings


@dataclass(frozen=True, slots=True)
class ValidationLetterbox(Letterbox):
    """The shorter side is rounded up, where prediction rounds to the nearest pixel.

    As `BaseDataset.load_image` of Ultralytics 8.4.190, its floating-point steps included. Of 64
    COCO pictures it concerns three, and moves mAP by 0.003.
    """

    @property
    def resized(self) -> tuple[int, int]:
        gain = self.imgsz / max(self.height, self.width)
        return (
            min(math.ceil(self.width * gain), self.imgsz),
            min(math.ceil(self.height * gain), self.imgsz),
        )


STEPS = ("preprocess", "inference", "postprocess")
SHOWN = 10  # class names in a note

DETECTION = {
    "accuracy": "TP / (TP + FP + FN) over all objects, of what is served: at the model's serving "
    "confidence and IoU threshold. A detection is right (TP) where it overlaps an object of its "
    f"class that no surer one has taken by an IoU of {PAIRED} or more; other detections are "
    "false (FP), other objects missed (FN).",
    "precision, recall, f1_score": "Averages over the classes at the one confidence where the "
    "smoothed mean F1 of the classes is best, at IoU 0.5, as Ultralytics has them.",
    "at_serving": "TP / (TP + FP), TP / (TP + FN) and their harmonic mean over all objects, at "
    "the serving confidence.",
    "mAP50, mAP50_95": f"Mean average precision at IoU 0.5, and averaged over IoU 0.5 to 0.95 "
    f"(COCO's 101 points), from all detections above {CONFIDENCE:g}, NMS IoU {IOU:g}, at most "
    f"{MAX_DET} a picture, several classes a box, as Ultralytics' validation.",
    "confusion": "Rows are the truth, columns what is served. Detections and objects are paired "
    f"by an IoU above {PAIRED}, whatever their class; the last row and column are for those "
    "without a partner.",
    "masks, poses": "accuracy and confusion are about the boxes; the other figures of masks "
    "and poses are mask_… and pose_…, by IoU of the masks and by object keypoint similarity.",
}
CLASSIFICATION = {
    "accuracy": "Share of pictures whose best class is right (top-1).",
    "accuracy_top5": "Share of pictures whose true class is among the five best.",
    "precision, recall, f1_score": "Averages over the classes that occur as truth or prediction "
    "(scikit-learn's macro average).",
    "confusion": "Rows are the truth, columns the best class.",
}
TIMES = {
    "inference_time": "Median milliseconds a picture, one at a time, in a process of low priority "
    "beside the service: two evaluations compare only where the machine was as busy. "
    "preprocess_time is from file bytes to network input, postprocess_time to the answer."
}


@dataclass(frozen=True)
class Evaluation:
    """One model on one split, measured with the engine that serves it.

    Attributes:
        figures: The flat summary, in 0 to 1; times in milliseconds.
        report: Everything, JSON-able.
    """

    figures: dict[str, float]
    report: dict[str, Any]


def evaluate(
    folder: Path,
    dataset: Dataset,
    split: str,
    settings: Settings,
    *,
    output: Path,
    progress: Callable[[int, int], None],
    model_id: str = ":",
    dataset_name: str = "",
    job_id: str | None = None,
    notes: Sequence[str] = (),
    loaded: tuple[Engine, ModelDescription] | None = None,
) -> Evaluation:
    """Measure the model in `folder` on a split.

    Args:
        folder: Of a model: model.json, model.onnx, model.safetensors.
        dataset: Of the model's task; classes are joined by name.
        split: One of `dataset.splits`.
        settings: Decide the device.
        output: Existing folder for report.json, plots/, worst/ and predictions.npz.
        progress: Told how many pictures of how many are done; may raise to end it.
        model_id, dataset_name, job_id, notes: Said in the report.
        loaded: An engine to measure in place of the one that serves.

    Raises:
        ValidationFailed: The data set is not of the model's task.
    """
    engine, description = loaded or load_engine(folder, settings)
    if description.task != dataset.task:
        raise ValidationFailed(
            f"A model for {description.task} cannot be measured on data for {dataset.task}."
        )
    measured = _Measured(engine, description, dataset, settings)
    images = dataset.scan().splits[split]
    engine.run(np.zeros((1, *(description.imgsz,) * 2, description.channels), np.uint8), wide=True)
    for done, image in enumerate(images):
        progress(done, len(images))
        measured.add(image)
    progress(len(images), len(images))

    speed = measured.speed()
    figures = measured.tally.figures()
    figures |= {f"{step}_time": speed[step] for step in STEPS}
    figures["images"] = float(len(images))
    name, _, version = model_id.partition(":")
    classify = description.task == "classify"
    report: dict[str, Any] = {
        "model": {
            "id": model_id,
            "name": name,
            "version": version,
            "type": description.type,
            "task": description.task,
            "family": description.family,
        },
        "dataset": {
            "name": dataset_name,
            "fingerprint": dataset.fingerprint,
            "split": split,
            "images": len(images),
            "instances": measured.tally.instances,
        },
        "engine": engine.backend,
        "imgsz": description.imgsz,
        "thresholds": _thresholds(description),
        "figures": figures,
        "notes": [*notes, *_notes(measured.classes, description)],
        "unknown_classes": list(measured.classes.unknown),
        "absent_classes": list(measured.classes.absent),
        **measured.tally.report(),
        "speed": speed,
        "worst": measured.worst.write(output / WORST, settings.max_pixels),
        "definitions": (CLASSIFICATION if classify else DETECTION) | TIMES,
        "created_at": now(),
        "job_id": job_id,
    }
    np.savez_compressed(output / PREDICTIONS, **measured.tally.arrays())  # type: ignore[arg-type]
    (output / PLOTS).mkdir(exist_ok=True)
    report["plots"] = write_plots(report, output / PLOTS)
    (output / REPORT).write_text(json.dumps(report, allow_nan=False), encoding="utf-8")
    return Evaluation(figures, report)


class _Measured:
    """The pictures seen so far."""

    def __init__(
        self, engine: Engine, description: ModelDescription, dataset: Dataset, settings: Settings
    ) -> None:
        self.engine, self.description, self.dataset = engine, description, dataset
        self.classes = JoinedClasses.of(description.names, dataset.names)
        self.tally: ClassificationMetrics | DetectionMetrics
        if description.task == "classify":
            self.tally = ClassificationMetrics(description, self.classes)
        else:
            self.tally = DetectionMetrics(description, self.classes)
        self.worst = WorstImages()
        self._max_pixels = settings.max_pixels
        self._times: list[tuple[float, ...]] = []

    def add(self, image: Path) -> None:
        """One picture, the way that a request's goes."""
        data = image.read_bytes()
        moments = [time.perf_counter()]
        pixels = decode(data, self._max_pixels)
        prepared = prepare(pixels, self.description)[None]
        moments.append(time.perf_counter())
        outputs = [output[0] for output in self.engine.run(prepared, wide=True)]
        moments.append(time.perf_counter())
        height, width = pixels.shape[:2]
        prediction = postprocess(outputs, self.description, width, height)
        moments.append(time.perf_counter())
        self._times.append(tuple(b - a for a, b in pairwise(moments)))

        name = _relative(image, self.dataset.root)
        if isinstance(self.tally, ClassificationMetrics):
            true = int(self.classes.from_dataset[self.dataset.classes[image]])
            truth = class_panel(true, self.classes.names, (width, height))
            badness, reason = self.tally.add(name, true, prediction)
        else:
            objects = GroundTruth.read(self.dataset, image, self.classes, width, height)
            truth = objects.as_prediction(self.dataset, self.classes)
            place = ValidationLetterbox(width, height, self.description.imgsz)
            if place.resized != Letterbox(width, height, self.description.imgsz).resized:
                again = prepare(pixels, self.description, place)[None]
                outputs = [output[0] for output in self.engine.run(again, wide=True)]
            badness, reason = self.tally.add(name, outputs, place, objects, prediction)
        if reason:
            row = {"image": name, "score": badness[0], "reason": reason}
            self.worst.offer(WorstImage(badness, image, row, truth, prediction))

    def speed(self) -> dict[str, float]:
        """Median milliseconds of each step."""
        times = np.array(self._times).reshape(-1, len(STEPS)) * 1000
        return {
            step: round(float(np.median(times[:, i])), 3) if len(times) else 0.0
            for i, step in enumerate(STEPS)
        }


def _thresholds(description: ModelDescription) -> Mapping[str, Any]:
    if description.task == "classify":
        return {}
    curve = {"confidence": CONFIDENCE, "iou": IOU, "max_det": MAX_DET}
    serving = {"confidence": description.confidence, "iou": description.iou, "max_det": MAX_DET}
    return serving | {"curve": curve}


def _notes(classes: JoinedClasses, description: ModelDescription) -> list[str]:
    notes = []
    if classes.unknown:
        notes.append(
            f"The model does not know {_listed(classes.unknown)}; all of them count as missed."
        )
    if classes.absent:
        classify = description.task == "classify"
        then = "such an answer is wrong" if classify else "detections of it are not judged"
        notes.append(f"The data set has no class {_listed(classes.absent)}: {then}.")
    return notes


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _relative(image: Path, root: Path) -> str:
    return image.relative_to(root).as_posix() if image.is_relative_to(root) else image.name
