"""Prometheus metrics: counters and histograms of this process, and their exposition.

Import it only after `PROMETHEUS_MULTIPROC_DIR` is set: prometheus_client decides at import whether
it stores values in memory or in files.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import numpy as np
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from inference.agreement import Agreement
from monitoring.prediction_counts import BINS, PredictionCounts
from serving.gateways import model_series
from serving.gateways.model_series import of_model, shown
from serving.prometheus_patches import BucketsFirstCollector, observe_counts

log = logging.getLogger("visionloop")

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
STAGES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

REQUESTS = Counter(
    "visionloop_requests", "Requests by route template", ["route", "method", "status"]
)
LATENCY = Histogram(
    "visionloop_request_seconds",
    "Time from request to end of response, by route; routes that do not predict are one by their "
    "first part, as /models",
    ["route"],
    buckets=SECONDS,
)
ERRORS = Counter("visionloop_errors", "Error responses by code", ["code"])
IMAGES = Counter("visionloop_images", "Images predicted", ["model"])
STAGE = Histogram(
    "visionloop_stage_seconds", "Time of one image in a stage", ["model", "stage"], buckets=STAGES
)
BATCH_SIZE = Histogram(
    "visionloop_batch_size", "Images a batch", ["runner"], buckets=(1, 2, 4, 8, 16, 32, 64)
)

EPOCH = Histogram(
    "visionloop_epoch_seconds",
    "Time of a training epoch",
    ["mode"],
    buckets=(1, 3, 10, 30, 60, 180, 600, 1800, 3600, 10800),
)

WEBHOOKS = Counter(
    "visionloop_webhook_attempts",
    "Attempts to deliver a webhook: delivered, retried later, failed for good",
    ["outcome"],
)

LEADER = Gauge(
    "visionloop_leader",
    "Whether this server leads: it starts the jobs and sends the webhooks; 0: another one does, or "
    "it has no connection to the database",
    multiprocess_mode="mostrecent",  # a process that died without a word is followed by another
)

PREDICTIONS = Counter(
    "visionloop_predictions", "Objects, or top classes, predicted in live traffic", ["model"]
)
CLASSES = Counter(
    "visionloop_class_predictions",
    "Objects, or top classes, predicted in live traffic by class; models with few classes only",
    ["model", "class"],
)
CONFIDENCE = Histogram(
    "visionloop_confidence_ratio",
    "Confidence of predictions in live traffic",
    ["model"],
    buckets=[(i + 1) / BINS for i in range(BINS)],
)

SHADOW_SEEN = Counter(
    "visionloop_shadow_seen", "Live responses that a shadow model could be compared with", ["model"]
)
SHADOW_IMAGES = Counter(
    "visionloop_shadow_images",
    "Images sampled for a shadow model: run, dropped, failed",
    ["model", "outcome"],
)
SHADOW_AGREEMENT = Histogram(
    "visionloop_shadow_agreement_ratio",
    "Agreement of a shadow model with the live response",
    ["model"],
    buckets=[i / 10 for i in range(1, 11)],
)
SHADOW_SECONDS = Histogram(
    "visionloop_shadow_seconds",
    "Model time of one image: of the live response, and of the shadow at low priority",
    ["model", "side"],
    buckets=STAGES,
)
SHADOW_OBJECTS = Counter(
    "visionloop_shadow_objects",
    "Objects by class: of the live response, of the shadow model, found by both",
    ["model", "class", "side"],
)

OF_MODELS = (
    IMAGES,
    STAGE,
    PREDICTIONS,
    CLASSES,
    CONFIDENCE,
    SHADOW_SEEN,
    SHADOW_IMAGES,
    SHADOW_AGREEMENT,
    SHADOW_SECONDS,
    SHADOW_OBJECTS,
)
"""Those with a label `model`."""

PREDICTING = frozenset(
    {
        "/infer",
        "/infer/base64",
        "/predict",
        "/annotate",
        "/api/auto_annotate",
        "/api/auto_annotate/batch",
        "/api/function_invocations",
        "/label-studio/predict",
        "/v1/predict",
    }
)
PER_CLASS = 50  # maximum number of classes of a model with one time series per class


def timed_route(route: str) -> str:
    """The label of a route in the histogram of request times: its own if it predicts.

    The others share that of the first part of their paths, which has few values.
    """
    if route in PREDICTING or not route.startswith("/"):
        return route
    first, second = (*route.split("/")[1:], "")[:2]
    return f"/api/{second}" if first == "api" else f"/{first}"


def record(model: str, times: dict[str, float]) -> None:
    """Count a predicted image; `times` are milliseconds by stage."""
    of_model(IMAGES, model).inc()
    for stage, milliseconds in times.items():
        of_model(STAGE, model, stage).observe(milliseconds / 1000)


def record_live(model: str, names: Sequence[str], counts: PredictionCounts) -> None:
    """Add the counts of a model's live responses since the last call."""
    if not counts.predictions:
        return
    of_model(PREDICTIONS, model).inc(counts.predictions)
    middles = (np.arange(BINS) + 0.5) / BINS  # each value is approximated by the middle of its bin
    total = float(counts.confidence @ middles)
    observe_counts(of_model(CONFIDENCE, model), counts.confidence.tolist(), total)
    if len(names) <= PER_CLASS:
        for name, count in zip(names, counts.classes.tolist(), strict=True):
            if count:
                of_model(CLASSES, model, name).inc(count)


def count_shadow(model: str, outcome: Literal["run", "dropped", "failed"]) -> None:
    """Count an image that was sampled for a shadow model."""
    of_model(SHADOW_IMAGES, model, outcome).inc()


def record_shadow(
    model: str, found: Agreement, by_class: bool, live_ms: float, shadow_ms: float
) -> None:
    """Count an image on which a shadow model was compared; times are in milliseconds."""
    count_shadow(model, "run")
    of_model(SHADOW_AGREEMENT, model).observe(found.score)
    of_model(SHADOW_SECONDS, model, "live").observe(live_ms / 1000)
    of_model(SHADOW_SECONDS, model, "shadow").observe(shadow_ms / 1000)
    if by_class:
        sides = {"live": found.live, "shadow": found.candidate, "both": found.matched}
        for side, by_name in sides.items():
            for name, count in by_name.items():
                of_model(SHADOW_OBJECTS, model, name, side).inc(count)


class _Collected(Collector):
    """A collector that returns metrics computed beforehand for one scrape."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def remove_unused(stored: Collection[str]) -> set[str]:
    """Remove the series of deleted and of unused models; see `model_series.remove_unused`."""
    return model_series.remove_unused(OF_MODELS, stored)


def exposition(accept: str, gauges: Iterable[Metric], stored: Collection[str]) -> tuple[bytes, str]:
    """All metrics in the format that the `Accept` header requests, and the content type.

    Reads files.

    Args:
        accept: The header.
        gauges: What is not counted in the processes.
        stored: The ids of the models in the registry; the series of others are not shown.
    """
    registry = CollectorRegistry()
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        registry.register(_Collected(shown(REGISTRY.collect(), stored)))
    elif os.path.isdir(folder):
        counted = BucketsFirstCollector(CollectorRegistry(), folder).collect()
        registry.register(_Collected(shown(counted, stored)))
    else:  # systemd-logind clears /dev/shm when the user logs out (RemoveIPC)
        log.error("The folder of the metrics is gone: %s. Start the server again.", folder)
    registry.register(_Collected(gauges))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
