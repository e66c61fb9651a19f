"""Spans (OpenTelemetry) of a process: of requests, of images in a runner, of jobs.

Nothing is recorded, and nothing of OpenTelemetry is imported here, unless an endpoint is
configured: by the standard variables (`OTEL_EXPORTER_OTLP_ENDPOINT`; the other `OTEL_…` configure
sampling, headers and attributes), or else by the `tracing` part of BentoML's configuration.

A span of another process is named by a `traceparent`, as the W3C header of that name has it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import MappingProxyType
from typing import Any

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
LAST_SPANS = 3.0  # seconds at the end of a job's process to send its spans
POLL = 0.05  # seconds
TROUBLE_AGAIN = 600.0  # seconds between two lines on spans that cannot be sent
EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
NANO = 1_000_000_000

Attributes = Mapping[str, Any]
NONE: Attributes = MappingProxyType({})

log = logging.getLogger("visionloop")

_tracer: Any = None  # None: nothing is recorded
_provider: Any = None


class _Trouble(logging.Filter):
    """Replaces the lines of the exporter, several a second of trouble, by one of ours in a while.

    Attributes:
        found: Set once spans could not be sent at the first attempt.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found = threading.Event()
        self._told = -TROUBLE_AGAIN

    def filter(self, record: logging.LogRecord) -> bool:
        self.found.set()
        if time.monotonic() - self._told >= TROUBLE_AGAIN:
            self._told = time.monotonic()
            reason = record.getMessage()
            log.warning("Spans cannot be sent, and are lost if it stays so: %s", reason)
        return False


_trouble = _Trouble()


def refusal(environment: Mapping[str, str]) -> str | None:
    """Why the variables cannot be used; None if they can."""
    for name in PROTOCOLS:
        protocol = environment.get(name, "").strip()
        if protocol not in ("", "http/protobuf") and _endpoint(environment):
            return (
                f"{name}: {protocol!r} is not supported. Unset it: spans are sent as http/protobuf "
                "(usually to port 4318)."
            )
    return None


def configure(process: str) -> None:
    """Record the spans of this process from now on, if an endpoint is configured.

    Args:
        process: The name of the process, an attribute of all its spans; the spans' `service.name`
            is `visionloop` unless the variables have another.
    """
    global _tracer, _provider
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    if os.environ.get("OTEL_TRACES_EXPORTER", "").strip() == "none":
        return
    _provider = _of_variables(process) if _endpoint(os.environ) else _of_bentoml()
    if _provider is not None:
        _tracer = _provider.get_tracer("visionloop")


def _endpoint(environment: Mapping[str, str]) -> bool:
    return any(environment.get(name, "").strip() for name in ENDPOINTS)


def _of_variables(process: str) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    attributes: dict[str, str | int] = {"visionloop.process": process, "process.pid": os.getpid()}
    named = os.environ.get("OTEL_SERVICE_NAME") or (
        "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    )
    if not named:
        attributes["service.name"] = "visionloop"
    provider = TracerProvider(resource=Resource.create(attributes))
    logging.getLogger(EXPORTER).addFilter(_trouble)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _of_bentoml() -> Any:
    """The provider of BentoML's configuration, if that has an exporter."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    if not BentoMLContainer.tracing.exporter_type.get():
        return None
    return BentoMLContainer.tracer_provider.get()


def enabled() -> bool:
    return _tracer is not None


def traceparent(of: Any = None) -> str | None:
    """The `traceparent` of a span, by default of the current one; None: there is no span."""
    if _tracer is None:
        return None
    from opentelemetry import trace

    context = (trace.get_current_span() if of is None else of).get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def trace_id() -> str | None:
    """The id of the current trace; None: there is none."""
    parent = traceparent()
    return None if parent is None else parent.split("-")[1]


@contextmanager
def span(
    name: str, parent: str | None = None, kind: str = "INTERNAL", attributes: Attributes = NONE
) -> Iterator[Any]:
    """A context that is recorded as a span, and is the current one. Gives the span, or None.

    Args:
        name: Of few different values.
        parent: A `traceparent`; None: the current span.
        kind: A name of OpenTelemetry's `SpanKind`.
        attributes: Of the span.
    """
    if _tracer is None:
        yield None
        return
    from opentelemetry import trace

    made = start(name, parent, kind, attributes)
    with trace.use_span(made, end_on_exit=True):
        yield made


def start(
    name: str,
    parent: str | None = None,
    kind: str = "INTERNAL",
    attributes: Attributes = NONE,
    at: int | None = None,
) -> Any:
    """Start a span that the caller ends (`.end()`); `at`: nanoseconds since 1970. See `span`."""
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = None
    if parent is not None:
        context = TraceContextTextMapPropagator().extract({"traceparent": parent})
    kept = {key: value for key, value in attributes.items() if value is not None}
    return _tracer.start_span(
        name, context=context, kind=SpanKind[kind], attributes=kept, start_time=at
    )


def stage(
    name: str, seconds: float, parent: str | None = None, attributes: Attributes = NONE
) -> None:
    """Record a span that ends now and has taken `seconds`."""
    if _tracer is not None:
        now = time.time_ns()
        start(name, parent, attributes=attributes, at=now - int(seconds * NANO)).end(now)


def waited(name: str, since: str, parent: str | None) -> None:
    """Record a span that ends now and has begun at `since`, a time in ISO 8601."""
    if _tracer is not None:
        at = int(datetime.fromisoformat(since).timestamp() * NANO)
        start(name, parent, at=at).end()


def failed(of: Any, reason: str) -> None:
    """Mark a span as failed."""
    from opentelemetry.trace import Status, StatusCode

    of.set_status(Status(StatusCode.ERROR, reason))


def caller(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The `traceparent` that a caller sent; the propagator checks its form."""
    return next(
        (value.decode("latin-1") for name, value in headers if name == b"traceparent"), None
    )


def flush() -> None:
    """Send what is recorded, for a process that ends at once.

    It takes LAST_SPANS seconds at most, and ends when the first attempt fails.
    """
    if _provider is not None:
        sending = threading.Thread(target=_provider.force_flush, name="spans", daemon=True)
        sending.start()
        end = time.monotonic() + LAST_SPANS
        while sending.is_alive() and not _trouble.found.is_set() and time.monotonic() < end:
            sending.join(POLL)
