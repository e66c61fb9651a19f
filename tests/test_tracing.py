from __future__ import annotations

import subprocess
import sys

import pytest

import tracing
from tests.support.serving import ROOT


def run(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


WHAT = """
import sys, tracing
tracing.configure("test")
with tracing.span("a", attributes={"b": 1}) as span:
    tracing.stage("c", 0.1)
    print(tracing.enabled(), span is not None, tracing.traceparent())
print([name for name in sys.modules if name.startswith("opentelemetry.exporter")])
"""


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_without_an_endpoint_nothing_is_recorded(environment: dict[str, str]) -> None:
    assert run(WHAT, **environment).splitlines() == ["False False None", "[]"]


def test_what_our_own_modules_import_is_no_part_of_opentelemetry() -> None:
    code = "import sys, tracing; tracing.start; print([m for m in sys.modules if 'opentele' in m])"
    assert run(code) == "[]"


def test_a_span_has_a_traceparent_and_continues_another() -> None:
    code = """
import tracing
tracing.configure("test")
trace = "0af7651916cd43dd8448eb211c80319c"
with tracing.span("a", f"00-{trace}-b7ad6b7169203331-01"):
    version, found, span, flags = tracing.traceparent().split("-")
    assert (version, found, flags) == ("00", trace, "01")
    assert tracing.trace_id() == trace
with tracing.span("a", "no traceparent"):
    assert tracing.trace_id() not in (None, trace)
tracing._provider.shutdown()
"""
    run(code, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="1")


def test_an_endpoint_that_is_down_is_told_once_and_holds_up_nobody() -> None:
    code = """
import logging, os, sys, threading
import tracing
logging.basicConfig(stream=sys.stdout, format="%(name)s %(message)s")
tracing.configure("test")
for _ in range(3):
    with tracing.span("a"):
        pass
    tracing.LAST_SPANS = 3600
    tracing.flush()
    waiting = [thread for thread in threading.enumerate() if thread.name == "spans"]
    print("still trying" if waiting else "given up")
sys.stdout.flush()
os._exit(0)
"""
    told, *states = run(
        code,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        OTEL_EXPORTER_OTLP_TIMEOUT="3600",
    ).splitlines()
    assert told.startswith("visionloop Spans cannot be sent, and are lost if it stays so: ")
    assert states == ["still trying"] * 3


@pytest.mark.parametrize(
    ("environment", "refused"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),  # nothing is sent
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318"}, False),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            },
            False,
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            },
            True,
        ),
    ],
)
def test_another_protocol_is_refused_with_the_remedy(
    environment: dict[str, str], refused: bool
) -> None:
    sentence = tracing.refusal(environment)
    assert (sentence is not None) == refused
    assert sentence is None or "'grpc' is not supported. Unset it" in sentence
