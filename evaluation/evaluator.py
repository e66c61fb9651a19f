"""Evaluation of a model on a split of a dataset, in fp32 on a CPU, whichever engine serves it.

Each image is processed like a request: decoded, letterboxed, predicted as a batch of one, and
postprocessed. A detector predicts an image a second time for the curves if Ultralytics' validation
would letterbox it differently.
PyTorch is imported only if the engine needs it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from database import now
from dataset.class_matching import JoinedClasses, shown_names
from dataset.dataset import Dataset
from dataset.revisions import image_names
from errors import ValidationFailed
from evaluation.classification import ClassificationMetrics
from evaluation.detection import CONFIDENCE, IOU, DetectionMetrics
from evaluation.ground_truth import GroundTruth
from evaluation.matching import PAIRED
from evaluation.plots import write_plots
from evaluation.store import PLOTS, PREDICTIONS, REPORT, WORST
from evaluation.target import EvaluationTarget
from evaluation.worst_images import WorstImage, WorstImages, class_panel
from inference.engine import Engine, load_exact_engine
from inference.images import decode_at_least
from inference.postprocess import MAX_DET, postprocess
from inference.preprocess import Letterbox, needed_size, prepare
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
        ValidationFailed: The dataset's task is not the model's.
    """
    engine, description = loaded or load_exact_engine(target.model_folder, settings)
    if description.task != target.dataset.task:
        raise ValidationFailed(
            f"The model's task is {description.task}, the dataset's is {target.dataset.task}. "
            f"Evaluate the model on a dataset for {description.task}."
        )
    run = _EvaluationPass(engine, description, target.dataset, settings)
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
    report = _header(target, description, engine.backend, settings.decode) | {
        "figures": metrics,
        "notes": [*target.notes, *_class_notes(run.classes, description)],
        "unknown_classes": list(run.classes.unknown),
        "absent_classes": list(run.classes.absent),
        **found.report,
        "speed": speed,
        "worst": run.worst.write(output / WORST, settings.max_pixels),
        "definitions": (CLASSIFICATION if description.task == "classify" else DETECTION) | TIMES,
        "created_at": now(),
        "job_id": job_id,
    }
    report["dataset"]["instances"] = found.instances
    (output / PLOTS).mkdir(exist_ok=True)
    report["plots"] = write_plots(report, output / PLOTS)
    (output / REPORT).write_text(json.dumps(report, allow_nan=False), encoding="utf-8")
    return Evaluation(metrics, report)


@dataclass(frozen=True, slots=True)
class ValidationLetterbox(Letterbox):
    """A letterbox whose shorter side is rounded up, where `Letterbox` rounds to the nearest pixel.

    Equal to `BaseDataset.load_image` of Ultralytics 8.4.190, including its floating-point steps.
    The size differs for 3 of 64 COCO images, which changes mAP by 0.003.
    """

    @property
    def resized(self) -> tuple[int, int]:
        gain = self.imgsz / max(self.height, self.width)
        return (
            min(math.ceil(self.width * gain), self.imgsz),
            min(math.ceil(self.height * gain), self.imgsz),
        )


class _EvaluationPass:
    """A pass of a model over images; collects metrics, worst images and times."""

    def __init__(
        self, engine: Engine, description: ModelDescription, dataset: Dataset, settings: Settings
    ) -> None:
        self.engine, self.description, self.dataset = engine, description, dataset
        self.classes = JoinedClasses.of(description.names, dataset.names)
        self.metrics: ClassificationMetrics | DetectionMetrics
        if description.task == "classify":
            self.metrics = ClassificationMetrics(self.classes)
        else:
            self.metrics = DetectionMetrics(description, self.classes)
        self.worst = WorstImages()
        self._names = image_names(dataset.root)
        self._max_pixels = settings.max_pixels
        self._needed = needed_size(description, settings.decode)
        self._times: list[tuple[float, ...]] = []  # seconds of each step, per image

    def update(self, image: Path) -> None:
        """Predict one image, timed, and count it."""
        data = image.read_bytes()
        moments = [time.perf_counter()]
        decoded = decode_at_least(data, self._max_pixels, self._needed)
        width, height = decoded.width, decoded.height
        served = Letterbox.of(self.description, self.engine.letterbox, width, height)
        prepared = prepare(decoded.pixels, self.description, served, decoded.scale)[None]
        moments.append(time.perf_counter())
        outputs = [output[0] for output in self.engine.run(prepared, wide=True)]
        moments.append(time.perf_counter())
        prediction = postprocess(outputs, self.description, served)
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
            place = ValidationLetterbox(width, height, self.description.imgsz)
            if place.resized != Letterbox(width, height, self.description.imgsz).resized:
                again = prepare(decoded.pixels, self.description, place, decoded.scale)[None]
                outputs = [output[0] for output in self.engine.run(again, wide=True)]
            errors = self.metrics.update(name, outputs, place, objects, prediction)
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
    target: EvaluationTarget, description: ModelDescription, backend: str, decoding: str
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
