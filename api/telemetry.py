"""What Prometheus can read: counters and histograms of the gateway, gauges of this moment.

Imported only where `PROMETHEUS_MULTIPROC_DIR` is already as it should be, because
prometheus_client decides at import whether values live in memory or in files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from timeit import default_timer

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.exchange import exchange

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

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED = "unmatched"


class Measured:
    """Outermost ASGI layer: counts every answer under its route's template."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = exchange(scope)
        status = 500
        began = default_timer()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "") or UNMATCHED
            method = scope["method"] if scope["method"] in METHODS else "other"
            REQUESTS.labels(route, method, status).inc()
            LATENCY.labels(route).observe(default_timer() - began)
            if state.code is not None:
                ERRORS.labels(state.code).inc()


def record(model: str, times: dict[str, float]) -> None:
    """One predicted picture; `times` are milliseconds by stage."""
    IMAGES.labels(model).inc()
    for stage, milliseconds in times.items():
        STAGE.labels(model, stage).observe(milliseconds / 1000)


class _Ordered(MultiProcessCollector):
    """Buckets before count and sum, as OpenMetrics asks; prometheus_client 0.26 has them after."""

    def collect(self) -> Iterable[Metric]:
        for metric in super().collect():
            if metric.type == "histogram":
                metric.samples.sort(key=_place)
            yield metric


def _place(sample: Sample) -> tuple[list[tuple[str, str]], bool, float, str]:
    others = sorted((k, v) for k, v in sample.labels.items() if k != "le")
    bound = float(sample.labels.get("le", "inf"))
    return others, not sample.name.endswith("_bucket"), bound, sample.name


class _Moment(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def exposition(accept: str, gauges: Iterable[Metric]) -> tuple[bytes, str]:
    """Everything in the format `accept` asks for, with its content type. Reads files."""
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        _Ordered(registry)
    else:
        registry.register(REGISTRY)
    registry.register(_Moment(gauges))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
