"""Metrics of detection, segmentation and pose models, accumulated image by image.

Detections are counted twice. The precision-recall curves use every detection above a confidence
of 0.001, as Ultralytics' validation does. The serving metrics use the predictions that a client
gets, at the model's own thresholds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.class_matching import JoinedClasses
from evaluation.average_precision import ClassCurves, ap_per_class, f1_of
from evaluation.ground_truth import GroundTruth, mask_predictions, served_masks
from evaluation.matching import keypoint_similarity, mask_iou, match, pair
from evaluation.results import ImageErrors, SplitMetrics
from formats.geometry import box_iou
from inference.nms import non_max_suppression
from inference.postprocess import MAX_DET, Outputs
from inference.prediction import Prediction
from inference.preprocess import Letterbox
from models_store.description import ModelDescription

CONFIDENCE = 0.001  # lowest confidence of a detection on the curves
IOU = 0.7  # NMS IoU threshold of the curves
BACKGROUND = "background"
CURVE_STEP = 10  # every tenth point of a curve is in the report, and the best one

Ids = NDArray[np.int64]


class DetectionMetrics:
    """Average precision, confusion matrix and serving metrics of one split.

    `update` counts one image, `compute` returns the metrics of the images so far, `reset` sets all
    counts to zero. Segmentation and pose models have metrics of boxes and of masks or poses; the
    names of the latter begin with `mask_` or `pose_`.
    """

    def __init__(self, description: ModelDescription, classes: JoinedClasses) -> None:
        """`classes`: the union of the model's and the dataset's classes."""
        self.description, self.classes = description, classes
        second = {"segment": "mask", "pose": "pose"}.get(description.task)
        self.kinds: tuple[str, ...] = ("box", second) if second else ("box",)
        absent = set(classes.absent)
        self._ignored = [i for i in range(classes.known) if classes.names[i] in absent]
        self.reset()

    def reset(self) -> None:
        """Set all counts to zero."""
        count = len(self.classes.names)
        self._tp: dict[str, list[NDArray[np.bool_]]] = {kind: [] for kind in self.kinds}
        self._conf: list[NDArray[np.float32]] = []
        self._pred: list[Ids] = []
        self._target: list[Ids] = []
        self._names: list[str] = []
        self._counts: list[tuple[int, int, int]] = []  # TP, FP, FN of each image
        self._served = {kind: np.zeros((count, 2), np.int64) for kind in self.kinds}  # TP, FP
        self._matrix = np.zeros((count + 1, count + 1), np.int64)

    def update(
        self,
        name: str,
        outputs: Outputs,
        place: Letterbox,
        truth: GroundTruth,
        prediction: Prediction,
    ) -> ImageErrors:
        """Count one image.

        Args:
            name: Path of the image in the dataset.
            outputs: Raw network outputs, without the batch dimension; for the curves.
            place: Letterbox of the image in the network's input for `outputs`.
            truth: The annotated objects, in pixels of the image.
            prediction: The served prediction, in pixels of the image.

        Returns:
            The false and missed boxes. The severity is the pair of their number and the highest
            confidence of a false box.
        """
        self._names.append(name)
        self._update_curves(outputs, truth, place)
        counted = ~np.isin(prediction.class_ids, self._ignored)
        if len(self.kinds) > 1:
            self._update_second_kind(outputs, place, truth, prediction, counted)
        return self._update_served(truth, prediction, counted)

    def _update_curves(self, outputs: Outputs, truth: GroundTruth, place: Letterbox) -> None:
        nc = len(self.description.names)
        boxes, scores, ids, extra = non_max_suppression(
            outputs[0], nc, CONFIDENCE, IOU, MAX_DET, multi_label=True
        )
        overlaps = {}
        if "mask" in self._tp:
            truth, masks = truth.by_area(place, outputs[1].shape[1:])
            found = mask_predictions(outputs[1], extra, boxes, place.frame)
            overlaps["mask"] = mask_iou(masks, found)
        objects = truth.boxes_in(place)
        overlaps["box"] = box_iou(objects, boxes)
        if "pose" in self._tp:
            assert self.description.keypoint_shape is not None
            points = extra.reshape(len(extra), *self.description.keypoint_shape)
            overlaps["pose"] = keypoint_similarity(truth.keypoints_in(place), points, objects)
        for kind, overlap in overlaps.items():
            self._tp[kind].append(match(ids, truth.class_ids, overlap))
        self._conf.append(scores)
        self._pred.append(ids)
        self._target.append(truth.class_ids)

    def _update_second_kind(
        self,
        outputs: Outputs,
        place: Letterbox,
        truth: GroundTruth,
        prediction: Prediction,
        counted: NDArray[np.bool_],
    ) -> None:
        """Count the served masks or poses."""
        kind = self.kinds[1]
        if kind == "mask":
            shape = outputs[1].shape[1:]
            truth, masks = truth.by_area(place, shape)
            overlap = mask_iou(masks, served_masks(prediction, place, shape))
        else:
            assert truth.keypoints is not None
            assert prediction.keypoints is not None
            overlap = keypoint_similarity(truth.keypoints, prediction.keypoints, truth.boxes)
        ids = prediction.class_ids[counted]
        right = match(ids, truth.class_ids, overlap[:, counted])[:, 0]
        np.add.at(self._served[kind], (ids, np.where(right, 0, 1)), 1)

    def _update_served(
        self, truth: GroundTruth, prediction: Prediction, counted: NDArray[np.bool_]
    ) -> ImageErrors:
        """Count the served boxes."""
        ids, scores = prediction.class_ids[counted], prediction.scores[counted]
        overlap = box_iou(truth.boxes, prediction.boxes[counted])
        right = match(ids, truth.class_ids, overlap)[:, 0]
        np.add.at(self._served["box"], (ids, np.where(right, 0, 1)), 1)
        paired = pair(overlap)
        none = len(self.classes.names)
        for true, j in zip(truth.class_ids, paired, strict=True):
            self._matrix[true, ids[j] if j >= 0 else none] += 1
        unpaired = np.setdiff1d(np.arange(len(ids)), paired)
        np.add.at(self._matrix[none], ids[unpaired], 1)

        missed = Counter(truth.class_ids.tolist())
        missed.subtract(ids[right].tolist())
        false = Counter(ids[~right].tolist())
        errors = int((~right).sum()), len(truth) - int(right.sum())
        self._counts.append((int(right.sum()), *errors))
        highest = float(scores[~right].max(initial=0))
        return ImageErrors((float(sum(errors)), highest), self._reason(missed, false, highest))

    def _reason(self, missed: Counter[int], false: Counter[int], highest: float) -> str:
        """A description such as "missed 2 car; false 1 tram (up to 0.81)"; empty without errors."""
        parts = []
        if names := self._by_class(missed):
            parts.append(f"missed {names}")
        if names := self._by_class(false):
            parts.append(f"false {names} (up to {highest:.2f})")
        return "; ".join(parts)

    def _by_class(self, counts: Counter[int]) -> str:
        return ", ".join(
            f"{count} {self.classes.names[i]}" for i, count in counts.most_common() if count > 0
        )

    def compute(self) -> SplitMetrics:
        """The metrics of the images so far."""
        curves = self._curves()
        return SplitMetrics(
            summary=self._summary(curves),
            report=self._report(curves),
            predictions=self._predictions(),
            instances=self._instances,
        )

    @property
    def _instances(self) -> int:
        return sum(map(len, self._target))

    def _curves(self) -> dict[str, ClassCurves]:
        """The curves of each kind."""
        rest = (
            _joined(self._conf, np.float32),
            _joined(self._pred, np.int64),
            _joined(self._target, np.int64),
        )
        return {kind: ap_per_class(_joined(self._tp[kind], bool, 10), *rest) for kind in self.kinds}

    def _at_serving(self, kind: str) -> dict[str, float]:
        """Serving metrics over all objects of all classes, and the serving confidence."""
        right, false = (int(n) for n in self._served[kind].sum(0))
        missed = self._instances - right
        return {"confidence": self.description.confidence} | shares(right, false, missed)

    def _summary(self, curves: Mapping[str, ClassCurves]) -> dict[str, float]:
        found: dict[str, float] = {"accuracy": self._at_serving("box")["accuracy"]}
        for kind, of_kind in curves.items():
            means = of_kind.mean_at_best()
            means |= {"f1_confidence": of_kind.confidence}
            means |= {"mAP50": of_kind.map50, "mAP50_95": of_kind.map50_95}
            found |= {_prefix(kind) + name: value for name, value in means.items()}
        return found

    def _report(self, curves: Mapping[str, ClassCurves]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for kind, of_kind in curves.items():
            best = {"confidence": of_kind.confidence} | of_kind.mean_at_best()
            found |= {f"{_prefix(kind)}at_best_f1": best}
            found |= {f"{_prefix(kind)}at_serving": self._at_serving(kind)}
        return found | {
            "classes": self._class_rows(curves),
            "confusion": {
                "labels": [*self.classes.names, BACKGROUND],
                "matrix": self._matrix.tolist(),
                "confidence": self.description.confidence,
            },
            "curves": {kind: self._sampled(of_kind) for kind, of_kind in curves.items()},
        }

    def _predictions(self) -> dict[str, NDArray[Any]]:
        lengths = [len(conf) for conf in self._conf]
        targets = [len(target) for target in self._target]
        order = np.arange(len(self._names))
        counts = np.array(self._counts, np.int64).reshape(-1, 3)
        seconds = {f"tp_{kind}": _joined(self._tp[kind], bool, 10) for kind in self.kinds[1:]}
        return seconds | {
            "images": np.array(self._names, np.str_),
            "image": np.repeat(order, lengths),
            "tp": _joined(self._tp["box"], bool, 10),
            "conf": _joined(self._conf, np.float32),
            "pred": _joined(self._pred, np.int64),
            "target": _joined(self._target, np.int64),
            "target_image": np.repeat(order, targets),
            "class_names": np.array(self.classes.names, np.str_),
            "right": counts[:, 0],
            "false": counts[:, 1],
            "missed": counts[:, 2],
        }

    def _class_rows(self, curves: Mapping[str, ClassCurves]) -> list[dict[str, Any]]:
        """A row for each class that has an object or a false detection."""
        instances = Counter(int(i) for target in self._target for i in target)
        images = Counter(int(i) for target in self._target for i in np.unique(target))
        rows = []
        for i, name in enumerate(self.classes.names):
            right, false = (int(n) for n in self._served["box"][i])
            if not instances[i] and not false:
                continue
            row: dict[str, Any] = {"class_id": i, "name": name}
            row |= {"images": images[i], "instances": instances[i]}
            for kind, of_kind in curves.items():
                row |= _class_metrics(of_kind, i, _prefix(kind))
                row |= {f"{_prefix(kind)}at_serving": self._class_at_serving(kind, i, instances[i])}
            missed = instances[i] - right
            row |= {"accuracy": row["at_serving"].pop("accuracy")}
            row |= {"true_positives": right, "false_positives": false, "missed": missed}
            rows.append(row)
        return rows

    def _class_at_serving(self, kind: str, class_id: int, instances: int) -> dict[str, float]:
        right, false = (int(n) for n in self._served[kind][class_id])
        return shares(right, false, instances - right)

    def _sampled(self, curves: ClassCurves) -> dict[str, Any]:
        """The mean curves over the classes, and those of each class.

        Sampled at every tenth point, and at the one that precision, recall and F1 are given for.
        """
        points = np.union1d(np.arange(0, len(curves.x), CURVE_STEP), curves.best)
        parts = {
            "precision": curves.precision,
            "recall": curves.recall,
            "f1_score": curves.f1,
            "precision_at_recall": curves.precision_at_recall,
        }
        names = [self.classes.names[i] for i in curves.classes]
        return {
            "x": _rounded(curves.x[points]),
            "mean": {
                name: _rounded(part.mean(0)[points]) if len(part) else []
                for name, part in parts.items()
            },
            "classes": {
                name: {
                    "f1_score": _rounded(curves.f1[i][points]),
                    "precision_at_recall": _rounded(curves.precision_at_recall[i][points]),
                }
                for i, name in enumerate(names)
            },
        }


def _prefix(kind: str) -> str:
    """The prefix of a kind's metric names."""
    return "" if kind == "box" else f"{kind}_"


def shares(right: int, false: int, missed: int) -> dict[str, float]:
    """Precision, recall, F1 and accuracy from the counts TP, FP and FN; 0 without a TP.

    Accuracy is TP / (TP + FP + FN).
    """
    precision = right / (right + false) if right else 0.0
    recall = right / (right + missed) if right else 0.0
    accuracy = right / (right + false + missed) if right else 0.0
    f1 = f1_of(precision, recall)
    return {"precision": precision, "recall": recall, "f1_score": f1, "accuracy": accuracy}


def _class_metrics(curves: ClassCurves, class_id: int, prefix: str) -> dict[str, float | None]:
    """The metrics of one class at the best F1; each is None where the class has no object."""
    found = np.flatnonzero(curves.classes == class_id)
    names = ("precision", "recall", "f1_score", "mAP50", "mAP50_95")
    if not len(found):
        return {prefix + name: None for name in names}
    i, best = int(found[0]), curves.best
    values = (curves.precision[i, best], curves.recall[i, best], curves.f1[i, best])
    return {
        prefix + name: float(value)
        for name, value in zip(names, (*values, curves.ap[i, 0], curves.ap[i].mean()), strict=True)
    }


def _joined(parts: Sequence[NDArray[Any]], kind: Any, width: int | None = None) -> NDArray[Any]:
    """The parts concatenated to an array (n,) or (n, width) of dtype `kind`."""
    if parts:
        return np.concatenate(parts).astype(kind, copy=False)
    return np.zeros((0,) if width is None else (0, width), kind)


def _rounded(values: NDArray[np.floating]) -> list[float]:
    return [round(float(value), 4) for value in values]
