"""The metrics: of the service, for Prometheus, and of models."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

from docs_reference.markdown import code, table
from settings import Figure

ROOT = Path(__file__).parents[1]
KINDS = {
    "Counter": "counter",
    "Gauge": "gauge",
    "Histogram": "histogram",
    "GaugeMetricFamily": "gauge",
}
UNITS = {
    "seconds": "seconds",
    "bytes": "bytes",
    "ratio": "share, 0 to 1",
    "index": "index",
    "up": "0 or 1",
    "leader": "0 or 1",
}  # unit, by the last word of a metric's name
PACKAGES = ("api", "monitoring", "serving", "jobs", "inference")

HEAD = """# Metrics

## Of the service: Prometheus

`GET /metrics` answers with the metrics for Prometheus if the `Accept` header prefers plain text or
OpenMetrics to JSON, as Prometheus' header does.
[Watch it with Prometheus](../how-to/watch-with-prometheus.md) shows the configuration. A
counter's series end in `_total`, a histogram's in `_bucket`, `_sum` and `_count`. The unit is the
last word of the name; a name without a unit is a number of things. Series by class exist for
models of up to 50 classes. BentoML adds series of its own, whose names begin with `bentoml_`.

"""

MODELS = """
## Of a model: its evaluation

Every other client gets the metrics of each model's last evaluation from the same path, as JSON:
`GET /metrics`, `GET /metrics/{model_id}`. Shares are from 0 to 1, times are in milliseconds. A
model that was never evaluated has no metrics. [What is measured](../explanation/evaluation.md)
says how each metric is computed.

"""

EVALUATED = {
    "accuracy": "classifiers: top-1; others: TP / (TP + FP + FN) at serving confidence, IoU 0.5",
    "accuracy_top5": "classifiers: the true class is among the five best",
    "precision": "precision at `f1_confidence`; classifiers: macro average",
    "recall": "recall at `f1_confidence`; classifiers: macro average",
    "f1_score": "mean F1 of the classes at `f1_confidence`; classifiers: macro average",
    "mAP50": "mean average precision of boxes at IoU 0.5",
    "mAP50_95": "mean average precision of boxes over IoU 0.5 to 0.95",
    "mask_mAP50": "mean average precision of masks at IoU 0.5",
    "mask_mAP50_95": "mean average precision of masks over IoU 0.5 to 0.95",
    "pose_mAP50": "mean average precision of keypoints at object keypoint similarity 0.5",
    "pose_mAP50_95": (
        "mean average precision of keypoints over object keypoint similarity 0.5 to 0.95"
    ),
}  # every metric that a gate can use
POINT = (
    "the confidence at which precision, recall and F1 are given: where the mean F1 is best after "
    "smoothing over a tenth of the confidences, as in Ultralytics; none of classifiers. "
    "`mask_f1_confidence` and `pose_f1_confidence` are those of masks and keypoints"
)
TIMES = {
    "preprocess_time": "median time of one image before the network",
    "inference_time": "median time of one image in the network",
    "postprocess_time": "median time of one image after the network",
}


class Series(NamedTuple):
    """A metric, as it is declared in the code."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str

    @property
    def unit(self) -> str:
        return UNITS.get(self.name.removesuffix("_total").rpartition("_")[2], "count")


def metrics() -> str:
    """The whole page."""
    rows = [
        (code(one.name), one.kind, ", ".join(map(code, one.labels)), one.unit, one.text)
        for one in sorted(series())
    ]
    page = HEAD + table(("name", "type", "labels", "unit", "meaning"), rows)
    shares = [(code(name), "share, 0 to 1", EVALUATED[name]) for name in get_args(Figure)]
    shares.append((code("f1_confidence"), "confidence, 0 to 1", POINT))
    times = [(code(name), "milliseconds", text) for name, text in TIMES.items()]
    return page + MODELS + table(("name", "unit", "meaning"), shares + times)


def series() -> Iterator[Series]:
    """All declarations of our metrics, read from the source code."""
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and (found := _declared(node)):
                    yield found


def _declared(call: ast.Call) -> Series | None:
    kind = KINDS.get(call.func.id) if isinstance(call.func, ast.Name) else None
    values = [one.value for one in call.args if isinstance(one, ast.Constant)]
    texts = [value for value in values if isinstance(value, str)]
    if kind is None or not texts or not texts[0].startswith("visionloop_"):
        return None
    lists = [one for one in call.args if isinstance(one, ast.List)]
    lists += [k.value for k in call.keywords if k.arg == "labels" and isinstance(k.value, ast.List)]
    labels = tuple(str(ast.literal_eval(one)) for found in lists for one in found.elts)
    name = f"{texts[0]}_total" if kind == "counter" else texts[0]
    return Series(name, kind, labels, texts[1])
