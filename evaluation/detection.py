"""How well boxes, masks and key points are found, collected picture by picture.

Two ways of counting: the curve, from every detection above a confidence of 0.001, counted as
Ultralytics' validation does; and what is served, with the model's own thresholds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.class_matching import JoinedClasses
from evaluation.average_precision import ClassCurves, ap_per_class, f1_of
from evaluation.ground_truth import GroundTruth, mask_predictions, served_masks
from evaluation.matching import keypoint_similarity, mask_iou, match, pair
from formats.geometry import box_iou
from inference.nms import non_max_suppression
from inference.postprocess import MAX_DET, Outputs
from inference.prediction import Prediction
from inference.preprocess import Letterbox
from models_store.description import ModelDescription

CONFIDENCE = 0.001  # from which detections count for the curve
IOU = 0.7  # of its non-maximum suppression
BACKGROUND = "background"
CURVE_STEP = 10  # every tenth point of a curve goes into the report

Ids = NDArray[np.int64]


class DetectionMetrics:
    """Collects one split; `prefix` of the second kind of figures is `mask_` or `pose_`."""

    def __init__(self, description: ModelDescription, classes: JoinedClasses) -> None:
        self.description, self.classes = description, classes
        second = {"segment": "mask", "pose": "pose"}.get(description.task)
        self.kinds: tuple[str, ...] = ("box", second) if second else ("box",)
        count = len(classes.names)
        self._tp: dict[str, list[NDArray[np.bool_]]] = {kind: [] for kind in self.kinds}
        self._conf: list[NDArray[np.float32]] = []
        self._pred: list[Ids] = []
        self._target: list[Ids] = []
        self._names: list[str] = []
        self._errors: list[tuple[int, int, int]] = []  # right, false, missed
        self._served = {kind: np.zeros((count, 2), np.int64) for kind in self.kinds}  # right, false
        self.matrix = np.zeros((count + 1, count + 1), np.int64)
        names = set(classes.absent)
        self._unjudged = [i for i in range(classes.known) if classes.names[i] in names]

    def add(
        self,
        name: str,
        outputs: Outputs,
        place: Letterbox,
        truth: GroundTruth,
        prediction: Prediction,
    ) -> tuple[tuple[float, ...], str]:
        """Count one picture.

        Args:
            name: Of the picture.
            outputs: The network's for the curve, without a batch dimension.
            place: Where the picture lay in the network's square for those.
            truth: Its objects.
            prediction: What is served.

        Returns:
            How bad it is, to be sorted by, and why in words; empty if nothing is wrong.
        """
        self._names.append(name)
        self._add_curve(outputs, truth, place)
        judged = ~np.isin(prediction.class_ids, self._unjudged)
        if len(self.kinds) > 1:
            self._add_second(outputs, place, truth, prediction, judged)
        return self._add_served(truth, prediction, judged)

    def _add_curve(self, outputs: Outputs, truth: GroundTruth, place: Letterbox) -> None:
        nc = len(self.description.names)
        boxes, scores, ids, extra = non_max_suppression(
            outputs[0], nc, CONFIDENCE, IOU, MAX_DET, multi_label=True
        )
        overlaps = {}
        if "mask" in self._tp:
            truth, masks = truth.by_area(place, outputs[1].shape[1:])
            found = mask_predictions(outputs[1], extra, boxes, place.imgsz)
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

    def _add_second(
        self,
        outputs: Outputs,
        place: Letterbox,
        truth: GroundTruth,
        prediction: Prediction,
        judged: NDArray[np.bool_],
    ) -> None:
        """The served masks or poses."""
        kind = self.kinds[1]
        if kind == "mask":
            shape = outputs[1].shape[1:]
            truth, masks = truth.by_area(place, shape)
            overlap = mask_iou(masks, served_masks(prediction, place, shape))
        else:
            assert truth.keypoints is not None
            assert prediction.keypoints is not None
            overlap = keypoint_similarity(truth.keypoints, prediction.keypoints, truth.boxes)
        ids = prediction.class_ids[judged]
        right = match(ids, truth.class_ids, overlap[:, judged])[:, 0]
        np.add.at(self._served[kind], (ids, np.where(right, 0, 1)), 1)

    def _add_served(
        self, truth: GroundTruth, prediction: Prediction, judged: NDArray[np.bool_]
    ) -> tuple[tuple[float, ...], str]:
        ids, scores = prediction.class_ids[judged], prediction.scores[judged]
        overlap = box_iou(truth.boxes, prediction.boxes[judged])
        right = match(ids, truth.class_ids, overlap)[:, 0]
        np.add.at(self._served["box"], (ids, np.where(right, 0, 1)), 1)
        paired = pair(overlap)
        none = len(self.classes.names)
        for true, j in zip(truth.class_ids, paired, strict=True):
            self.matrix[true, ids[j] if j >= 0 else none] += 1
        alone = np.setdiff1d(np.arange(len(ids)), paired)
        np.add.at(self.matrix[none], ids[alone], 1)

        missed = Counter(truth.class_ids.tolist())
        missed.subtract(ids[right].tolist())
        false = Counter(ids[~right].tolist())
        errors = int((~right).sum()), len(truth) - int(right.sum())
        self._errors.append((int(right.sum()), *errors))
        surest = float(scores[~right].max(initial=0))
        return (float(sum(errors)), surest), self._reason(missed, false, surest)

    def _reason(self, missed: Counter[int], false: Counter[int], surest: float) -> str:
        parts = []
        if lacking := self._shown(missed):
            parts.append(f"missed {lacking}")
        if wrong := self._shown(false):
            parts.append(f"false {wrong} (up to {surest:.2f})")
        return "; ".join(parts)

    def _shown(self, counts: Counter[int]) -> str:
        return ", ".join(
            f"{count} {self.classes.names[i]}" for i, count in counts.most_common() if count > 0
        )

    # --- what comes of it

    @cached_property
    def curves(self) -> dict[str, ClassCurves]:
        """Of each kind, once the split is complete."""
        rest = (
            _joined(self._conf, np.float32),
            _joined(self._pred, np.int64),
            _joined(self._target, np.int64),
        )
        return {kind: ap_per_class(_joined(self._tp[kind], bool, 10), *rest) for kind in self.kinds}

    @property
    def instances(self) -> int:
        return sum(map(len, self._target))

    def serving(self, kind: str = "box") -> dict[str, float]:
        """Figures of what is served, over all objects of all classes."""
        right, false = (int(n) for n in self._served[kind].sum(0))
        missed = self.instances - right
        return {"confidence": self.description.confidence} | _counted(right, false, missed)

    def figures(self) -> dict[str, float]:
        """The flat summary."""
        found: dict[str, float] = {"accuracy": self.serving()["accuracy"]}
        for kind, curves in self.curves.items():
            means = curves.mean_at_best()
            means |= {"mAP50": curves.map50, "mAP50_95": curves.map50_95}
            found |= {_prefix(kind) + name: value for name, value in means.items()}
        return found

    def report(self) -> dict[str, Any]:
        """The parts of the report that are about detection."""
        found: dict[str, Any] = {}
        for kind, curves in self.curves.items():
            best = {"confidence": curves.confidence} | curves.mean_at_best()
            found |= {f"{_prefix(kind)}at_best_f1": best}
            found |= {f"{_prefix(kind)}at_serving": self.serving(kind)}
        return found | {
            "classes": self._class_rows(),
            "confusion": {
                "labels": [*self.classes.names, BACKGROUND],
                "matrix": self.matrix.tolist(),
                "confidence": self.description.confidence,
            },
            "curves": {kind: self._sampled(found) for kind, found in self.curves.items()},
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a comparison needs, picture by picture."""
        lengths = [len(conf) for conf in self._conf]
        targets = [len(target) for target in self._target]
        order = np.arange(len(self._names))
        counts = np.array(self._errors, np.int64).reshape(-1, 3)
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

    def _class_rows(self) -> list[dict[str, Any]]:
        """The classes that occur, as objects or as false detections."""
        instances = Counter(int(i) for target in self._target for i in target)
        images = Counter(int(i) for target in self._target for i in np.unique(target))
        rows = []
        for i, name in enumerate(self.classes.names):
            right, false = (int(n) for n in self._served["box"][i])
            if not instances[i] and not false:
                continue
            row: dict[str, Any] = {"class_id": i, "name": name}
            row |= {"images": images[i], "instances": instances[i]}
            for kind, found in self.curves.items():
                row |= _class_figures(found, i, _prefix(kind))
                row |= {f"{_prefix(kind)}at_serving": self._served_of(kind, i, instances[i])}
            missed = instances[i] - right
            row |= {"accuracy": row["at_serving"].pop("accuracy")}
            row |= {"true_positives": right, "false_positives": false, "missed": missed}
            rows.append(row)
        return rows

    def _served_of(self, kind: str, class_id: int, instances: int) -> dict[str, float]:
        right, false = (int(n) for n in self._served[kind][class_id])
        return _counted(right, false, instances - right)

    def _sampled(self, curves: ClassCurves) -> dict[str, Any]:
        """Means over the classes, and each class, at a hundred points."""
        points = slice(0, None, CURVE_STEP)
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
    """Of the kind's figures."""
    return "" if kind == "box" else f"{kind}_"


def _counted(right: int, false: int, missed: int) -> dict[str, float]:
    precision = right / (right + false) if right else 0.0
    recall = right / (right + missed) if right else 0.0
    accuracy = right / (right + false + missed) if right else 0.0
    shares = {"precision": precision, "recall": recall, "f1_score": f1_of(precision, recall)}
    return shares | {"accuracy": accuracy}


def _class_figures(curves: ClassCurves, class_id: int, prefix: str) -> dict[str, float | None]:
    """None where a class has no object."""
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
    if parts:
        return np.concatenate(parts).astype(kind, copy=False)
    return np.zeros((0,) if width is None else (0, width), kind)


def _rounded(values: NDArray[np.floating]) -> list[float]:
    return [round(float(value), 4) for value in values]
