"""What Prometheus can read: counters and histograms of the gateway, gauges of this moment.

Imported only where `PROMETHEUS_MULTIPROC_DIR` is already as it should be, because
prometheus_client decides at import whether values live in memory or in files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from inference.agreement import Agreement
from monitoring.prediction_counts import BINS, PredictionCounts
from serving.prometheus_patches import BucketsFirstCollector, observe_counts

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STAGES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

REQUESTS = Counter(
    "visionloop_requests", "Requests by route template", ["route", "method", "status"]
)
LATENCY = Histogram(
    "visionloop_request_seconds", "From request to end of answer", ["route"], buckets=SECONDS
)
ERRORS = Counter("visionloop_errors", "Error answers by code", ["code"])
IMAGES = Counter("visionloop_images", "Pictures predicted", ["model"])
STAGE = Histogram(
    "visionloop_stage_seconds", "Time of one picture in a stage", ["model", "stage"], buckets=STAGES
)
BATCH_SIZE = Histogram(
    "visionloop_batch_size", "Pictures a call", ["runner"], buckets=(1, 2, 4, 8, 16, 32, 64)
)

EPOCH = Histogram(
    "visionloop_epoch_seconds",
    "Time of a training epoch",
    ["mode"],
    buckets=(1, 3, 10, 30, 60, 180, 600, 1800, 3600, 10800),
)

PREDICTIONS = Counter("visionloop_predictions", "Objects, or best classes, seen live", ["model"])
CLASSES = Counter(
    "visionloop_class_predictions",
    "Objects, or best classes, seen live by class; of models with few classes only",
    ["model", "class"],
)
CONFIDENCE = Histogram(
    "visionloop_confidence_ratio",
    "Confidence of what is seen live",
    ["model"],
    buckets=[(i + 1) / BINS for i in range(BINS)],
)

SHADOW_SEEN = Counter("visionloop_shadow_seen", "Live answers a shadow could look at", ["model"])
SHADOW_IMAGES = Counter(
    "visionloop_shadow_images",
    "Pictures chosen for a shadow: run, dropped, failed",
    ["model", "outcome"],
)
SHADOW_AGREEMENT = Histogram(
    "visionloop_shadow_agreement_ratio",
    "Agreement of a shadow with the live answer",
    ["model"],
    buckets=[i / 10 for i in range(1, 11)],
)
SHADOW_SECONDS = Histogram(
    "visionloop_shadow_seconds",
    "Model time of one picture: of the live answer, and of the shadow at low priority",
    ["model", "side"],
    buckets=STAGES,
)
SHADOW_OBJECTS = Counter(
    "visionloop_shadow_objects",
    "Objects by class: of the live answer, of the shadow, seen by both",
    ["model", "class", "side"],
)

PER_CLASS = 50  # classes a model may have, to have series of their own


def record(model: str, times: dict[str, float]) -> None:
    """One predicted picture; `times` are milliseconds by stage."""
    IMAGES.labels(model).inc()
    for stage, milliseconds in times.items():
        STAGE.labels(model, stage).observe(milliseconds / 1000)


def record_live(model: str, names: Sequence[str], tally: PredictionCounts) -> None:
    """What was counted of a model's live answers since the last time."""
    if not tally.predictions:
        return
    PREDICTIONS.labels(model).inc(tally.predictions)
    middles = (np.arange(BINS) + 0.5) / BINS  # each value counts as the middle of its bin
    total = float(tally.confidence @ middles)
    observe_counts(CONFIDENCE.labels(model), tally.confidence.tolist(), total)
    if len(names) <= PER_CLASS:
        for name, count in zip(names, tally.classes.tolist(), strict=True):
            if count:
                CLASSES.labels(model, name).inc(count)


def record_shadow(
    model: str, found: Agreement, by_class: bool, live_ms: float, shadow_ms: float
) -> None:
    """One picture that a shadow has seen; times are milliseconds."""
    SHADOW_IMAGES.labels(model, "run").inc()
    SHADOW_AGREEMENT.labels(model).observe(found.score)
    SHADOW_SECONDS.labels(model, "live").observe(live_ms / 1000)
    SHADOW_SECONDS.labels(model, "shadow").observe(shadow_ms / 1000)
    if by_class:
        sides = {"live": found.live, "shadow": found.candidate, "both": found.matched}
        for side, counts in sides.items():
            for name, count in counts.items():
                SHADOW_OBJECTS.labels(model, name, side).inc(count)


class _Moment(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def exposition(accept: str, gauges: Iterable[Metric]) -> tuple[bytes, str]:
    """Everything in the format `accept` asks for, with its content type. Reads files."""
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        BucketsFirstCollector(registry)
    else:
        registry.register(REGISTRY)
    registry.register(_Moment(gauges))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
