"""Evaluation of a model on a split of a dataset, in fp32 on a CPU, whichever engine serves it.

Each image is processed like a request: decoded, letterboxed, predicted as a batch of one, and
postprocessed. All metrics come from this one prediction. The letterbox is the one that serves, or
one of Ultralytics' validation, see `evaluation.letterbox`.
PyTorch is imported only if the engine needs it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from database import now
from dataset.class_matching import JoinedClasses, shown_names
from dataset.revisions import image_names
from errors import ValidationFailed
from evaluation.classification import ClassificationMetrics
from evaluation.detection import CONFIDENCE, IOU, DetectionMetrics
from evaluation.ground_truth import GroundTruth
from evaluation.letterbox import (
    EXPLAINED,
    MeasuredLetterbox,
    measured_letterbox,
    place,
    val_rectangles,
)
from evaluation.matching import PAIRED
from evaluation.plots import write_plots
from evaluation.store import PLOTS, PREDICTIONS, REPORT, WORST
from evaluation.target import EvaluationTarget
from evaluation.worst_images import WorstImage, WorstImages, class_panel
from inference.engine import Engine, load_exact_engine
from inference.images import check_header, decode_at_least
from inference.postprocess import MAX_DET, postprocess
from inference.preprocess import needed_size, prepare
from models_store.description import ModelDescription
from settings import Settings

STEPS = ("preprocess", "inference", "postprocess")
SHOWN = 10  # class names in a note

DETECTION = {
    "accuracy": (
        "TP / (TP + FP + FN) over all objects, for the predictions at the model's serving "
        "confidence and IoU threshold. A detection is a true positive (TP) if its IoU with an "
        f"object of its class is {PAIRED} or more, and no detection of higher confidence has "
        "matched that object. Other detections are false positives (FP); other objects are "
        "false negatives (FN)."
    ),
    "precision, recall, f1_score": (
        "Averages over the classes at IoU 0.5 and at one confidence, f1_confidence: where the "
        "mean F1 is best after smoothing over a tenth of the confidences, as in Ultralytics. "
        "Unsmoothed, the curve may be a little higher elsewhere."
    ),
    "at_serving": "TP / (TP + FP), TP / (TP + FN) and their harmonic mean over all objects, at "
    "the serving confidence.",
    "mAP50, mAP50_95": f"Mean average precision at IoU 0.5, and averaged over IoU 0.5 to 0.95 "
    f"(COCO's 101 points), from all detections above confidence {CONFIDENCE:g}, NMS IoU {IOU:g}, "
    f"at most {MAX_DET} per image, several classes per box, as in Ultralytics' validation.",
    "confusion": (
        "Rows are the true classes, columns the predicted classes at the serving thresholds. "
        f"Detections and objects are matched by an IoU above {PAIRED}, whatever their class. The "
        "last row counts detections without an object, the last column objects without a "
        "detection."
    ),
    "masks, poses": (
        "accuracy and confusion use the boxes only. The metrics of masks and poses begin with "
        "mask_ and pose_. They use the IoU of masks, and object keypoint similarity."
    ),
}
CLASSIFICATION = {
    "accuracy": "Share of images whose most probable class is the true class (top-1).",
    "accuracy_top5": "Share of images whose true class is among the five most probable.",
    "precision, recall, f1_score": (
        "Averages over the classes that occur in the ground truth or in the predictions "
        "(scikit-learn's macro average)."
    ),
    "confusion": "Rows are the true classes, columns the most probable classes.",
}
TIMES = {
    "inference_time": (
        "Median milliseconds per image, one image at a time, in a process of low priority "
        "beside the service. Compare two evaluations only if the machine was equally busy. "
        "preprocess_time is the time from the file's bytes to the network's input, and "
        "postprocess_time the time from the network's output to the prediction."
    )
}


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation.

    Attributes:
        metrics: Values by name: metrics 0 to 1, times in milliseconds, `images` a number.
        report: The content of report.json.
    """

    metrics: dict[str, float]
    report: dict[str, Any]


def evaluate(
    target: EvaluationTarget,
    settings: Settings,
    *,
    output: Path,
    progress: Callable[[int, int], None],
    job_id: str | None = None,
    loaded: tuple[Engine, ModelDescription] | None = None,
) -> Evaluation:
    """Evaluate a model on a split and write the report.

    Args:
        target: The model and the split.
        settings: The settings that name the device and the maximum image size.
        output: Existing folder for report.json, plots/, worst/ and predictions.npz.
        progress: Called with the number of images done and their total; may raise to cancel.
        job_id: Id of the job, written into the report.
        loaded: Engine and description to use instead of those in the model's folder.

    Raises:
        ValidationFailed: The dataset's task is not the model's, or the model cannot be measured
            with the target's letterbox.
    """
    engine, description = loaded or load_exact_engine(target.model_folder, settings)
    if description.task != target.dataset.task:
        raise ValidationFailed(
            f"The model's task is {description.task}, the dataset's is {target.dataset.task}. "
            f"Evaluate the model on a dataset for {description.task}."
        )
    kind = measured_letterbox(target.letterbox, engine.letterbox, description)
    run = _EvaluationPass(engine, description, target, kind, settings)
    images = target.images
    engine.run(np.zeros((1, *(description.imgsz,) * 2, description.channels), np.uint8), wide=True)
    for done, image in enumerate(images):
        progress(done, len(images))
        run.update(image)
    progress(len(images), len(images))

    found, speed = run.metrics.compute(), run.speed()
    metrics = found.summary | {f"{step}_time": speed[step] for step in STEPS}
    metrics["images"] = float(len(images))
    np.savez_compressed(output / PREDICTIONS, **found.predictions)  # type: ignore[arg-type]
    explained: dict[str, str] = {} if kind is None else {"letterbox": EXPLAINED[kind]}
    report = _header(target, description, engine.backend, kind, run.decoding) | {
        "figures": metrics,
        "notes": [*target.notes, *_class_notes(run.classes, description)],
        "unknown_classes": list(run.classes.unknown),
        "absent_classes": list(run.classes.absent),
        **found.report,
        "speed": speed,
        "worst": run.worst.write(output / WORST, settings.max_pixels),
        "definitions": explained
        | (CLASSIFICATION if description.task == "classify" else DETECTION)
        | TIMES,
        "created_at": now(),
        "job_id": job_id,
    }
    report["dataset"]["instances"] = found.instances
    (output / PLOTS).mkdir(exist_ok=True)
    report["plots"] = write_plots(report, output / PLOTS)
    (output / REPORT).write_text(json.dumps(report, allow_nan=False), encoding="utf-8")
    return Evaluation(metrics, report)


class _EvaluationPass:
    """A pass of a model over images; collects metrics, worst images and times."""

    def __init__(
        self,
        engine: Engine,
        description: ModelDescription,
        target: EvaluationTarget,
        kind: MeasuredLetterbox | None,
        settings: Settings,
    ) -> None:
        self.engine, self.description, self.kind = engine, description, kind
        self.dataset = dataset = target.dataset
        self.classes = JoinedClasses.of(description.names, dataset.names)
        self.metrics: ClassificationMetrics | DetectionMetrics
        if description.task == "classify":
            self.metrics = ClassificationMetrics(self.classes)
        else:
            self.metrics = DetectionMetrics(description, self.classes)
        self.worst = WorstImages()
        self._names = image_names(dataset.root)
        self._max_pixels = settings.max_pixels
        # Ultralytics' validation decodes in full
        self.decoding = settings.decode if target.letterbox is None else "exact"
        self._needed = needed_size(description, self.decoding)
        self._rectangles: dict[Path, tuple[int, int]] = {}
        if kind == "val_rect":
            images = target.images
            sizes = [check_header(image.read_bytes(), settings.max_pixels) for image in images]
            self._rectangles = dict(zip(images, val_rectangles(sizes, description), strict=True))
        self._times: list[tuple[float, ...]] = []  # seconds of each step, per image

    def update(self, image: Path) -> None:
        """Predict one image, timed, and count it."""
        data = image.read_bytes()
        moments = [time.perf_counter()]
        decoded = decode_at_least(data, self._max_pixels, self._needed)
        width, height = decoded.width, decoded.height
        rectangle = self._rectangles.get(image)
        placed = place(self.kind, self.description, width, height, rectangle)
        prepared = prepare(decoded.pixels, self.description, placed, decoded.scale)[None]
        moments.append(time.perf_counter())
        outputs = [output[0] for output in self.engine.run(prepared, wide=True)]
        moments.append(time.perf_counter())
        prediction = postprocess(outputs, self.description, placed)
        moments.append(time.perf_counter())
        self._times.append(tuple(b - a for a, b in pairwise(moments)))

        name = _relative(image, self.dataset.root)
        if isinstance(self.metrics, ClassificationMetrics):
            true = int(self.classes.from_dataset[self.dataset.classes[image]])
            truth = class_panel(true, self.classes.names, (width, height))
            errors = self.metrics.update(name, true, prediction)
        else:
            objects = GroundTruth.read(self.dataset, image, self.classes, width, height)
            truth = objects.as_prediction(self.dataset, self.classes)
            errors = self.metrics.update(name, outputs, placed, objects, prediction)
        if errors.reason:
            row = {"image": name, "score": errors.severity[0], "reason": errors.reason}
            if known := self._names.get(image.name):
                row["name"] = known
            self.worst.offer(WorstImage(errors.severity, image, row, truth, prediction))

    def speed(self) -> dict[str, float]:
        """Median milliseconds of each step."""
        times = np.array(self._times).reshape(-1, len(STEPS)) * 1000
        return {
            step: round(float(np.median(times[:, i])), 3) if len(times) else 0.0
            for i, step in enumerate(STEPS)
        }


def _header(
    target: EvaluationTarget,
    description: ModelDescription,
    backend: str,
    letterbox: MeasuredLetterbox | None,
    decoding: str,
) -> dict[str, Any]:
    """The sections of the report on model, dataset, engine, decoding and thresholds."""
    name, _, version = target.model_id.partition(":")
    return {
        "model": {
            "id": target.model_id,
            "name": name,
            "version": version,
            "type": description.type,
            "task": description.task,
            "family": description.family,
        },
        "dataset": {
            "name": target.dataset_name,
            "fingerprint": target.dataset.fingerprint,
            "split": target.split,
            "images": len(target.images),
        },
        "engine": backend,
        "decode": decoding,
        "imgsz": description.imgsz,
        "letterbox": letterbox,
        "thresholds": _thresholds(description),
    }


def _thresholds(description: ModelDescription) -> Mapping[str, Any]:
    """The thresholds of serving and of the curves; empty for a classifier."""
    if description.task == "classify":
        return {}
    curve = {"confidence": CONFIDENCE, "iou": IOU, "max_det": MAX_DET}
    serving = {"confidence": description.confidence, "iou": description.iou, "max_det": MAX_DET}
    return serving | {"curve": curve}


def _class_notes(classes: JoinedClasses, description: ModelDescription) -> list[str]:
    """Remarks on classes that only the dataset or only the model has."""
    notes = []
    if classes.unknown:
        notes.append(
            f"The model does not know the dataset's class {shown_names(classes.unknown, SHOWN)}; "
            "its objects count as missed."
        )
    if classes.absent:
        classify = description.task == "classify"
        then = "such predictions count as wrong" if classify else "its detections are not counted"
        notes.append(f"The dataset has no class {shown_names(classes.absent, SHOWN)}: {then}.")
    return notes


def _relative(image: Path, root: Path) -> str:
    return image.relative_to(root).as_posix() if image.is_relative_to(root) else image.name
