"""The log and the traces of a whole server: gateway, runner, and the process of a job."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.otlp import Span, receiver
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import Server

Picture = Callable[..., bytes]

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


class Observed:
    def __init__(self, server: Server, client: httpx.Client, folder: Path, spans: list[Span]):
        self.server, self.client, self.folder, self.spans = server, client, folder, spans

    def log(self) -> list[dict[str, Any]]:
        """Every line that any process has written, all of them JSON."""
        return [json.loads(line) for line in self.server.log.read_text().splitlines()]

    def lines(self, request_id: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line.get("request_id") == request_id]

    def access(self, request_id: str) -> dict[str, Any]:
        """The line of a request; it is written after the response has been sent."""

        def found() -> list[dict[str, Any]]:
            lines = self.lines(request_id)
            return [line for line in lines if line["logger"] == "visionloop.access"]

        (line,) = wait_until(found)
        return dict(line)

    def span(self, process: str, name: str, **attributes: Any) -> Span:
        """A span with these attributes, once it has been received."""

        def found() -> Span | None:
            for span in list(self.spans):
                if (span.process, span.name) == (process, name):
                    given = {key.replace("__", "."): value for key, value in attributes.items()}
                    if given.items() <= span.attributes.items():
                        return span
            return None

        received: Span = wait_until(found)
        return received


@pytest.fixture(scope="module")
def observed(
    new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("roots")
    with receiver() as (address, spans):
        server = Server(
            new_home(),
            VISIONLOOP_LOG_FORMAT="json",
            VISIONLOOP_LOG_LEVEL="DEBUG",
            VISIONLOOP_DATA_ROOTS=str(folder),
            OTEL_EXPORTER_OTLP_ENDPOINT=address,
            OTEL_BSP_SCHEDULE_DELAY="100",
        )
        try:
            server.start()
            with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
                made = Observed(server, client, folder, spans)
                yield made
        finally:
            server.stop()
    assert {"supervisor", "VisionLoop"} <= {line["process"] for line in made.log()}  # to the end


def test_an_image_is_one_trace_from_the_caller_through_gateway_and_runner(
    observed: Observed, picture: Picture
) -> None:
    headers = {**CALLER, "X-Request-ID": "image-1"}
    answer = observed.client.post("/infer", files={"image": picture()}, headers=headers)
    assert answer.status_code == 200
    assert answer.headers.get_list("X-Request-ID") == ["image-1"]
    line = observed.access("image-1")
    assert line["process"] == "VisionLoop"
    assert (line["method"], line["route"], line["status"]) == ("POST", "/infer", 200)
    assert (line["bytes"], line["trace_id"]) == (len(answer.content), TRACE)

    request = observed.span("VisionLoop", "POST /infer", visionloop__request_id="image-1")
    assert (request.trace, request.parent) == (TRACE, "b7ad6b7169203331")
    assert request.attributes["http.response.status_code"] == 200
    children = [span for span in observed.spans if span.parent == request.id]
    assert {span.name for span in children} == {"queue", "runner call"}
    (call,) = [span for span in children if span.name == "runner call"]

    def stages() -> list[Span]:
        predicts = [span for span in list(observed.spans) if span.parent == call.id]
        return [span for span in list(observed.spans) if predicts and span.parent == predicts[0].id]

    wait_until(lambda: len(stages()) == 3)
    assert [span.name for span in stages()] == ["preprocess", "inference", "postprocess"]
    assert {(span.process, span.trace) for span in stages()} == {("Detector", TRACE)}


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nowhere"), ("POST", "/predict"), ("GET", "/models/none")]
)
def test_errors_of_every_layer_name_their_request(
    observed: Observed, method: str, path: str
) -> None:
    request_id = f"error-{path.replace('/', '_')}"
    answer = observed.client.request(method, path, headers={"X-Request-ID": request_id})
    assert answer.status_code in (400, 404)
    assert answer.headers["X-Request-ID"] == answer.json()["request_id"] == request_id
    assert observed.access(request_id)["path"] == path


def test_an_id_of_the_servers_own_replaces_one_that_is_not_sane(observed: Observed) -> None:
    answer = observed.client.get("/models", headers={"X-Request-ID": 'a"b c'})
    assert observed.access(answer.headers["X-Request-ID"])["path"] == "/models"


def test_probes_are_written_with_debug(observed: Observed) -> None:
    observed.client.get("/livez", headers={"X-Request-ID": "probe-1"})
    assert observed.access("probe-1")["level"] == "DEBUG"


def test_a_job_has_the_id_and_the_trace_of_its_request(
    observed: Observed, picture: Picture
) -> None:
    (observed.folder / "street").mkdir()
    (observed.folder / "street" / "a.jpg").write_bytes(picture())
    body = {
        "dataset": str(observed.folder / "street"),
        "tool": "object_detection",
        "model": "traffic_signs_yolov8n",
        "bands": {"accept": 0.9, "review": 0.2},
        "format": "coco",
    }
    headers = {**CALLER, "X-Request-ID": "job-1"}
    started = observed.client.post("/api/auto_annotate/batch", json=body, headers=headers)
    assert started.status_code == 202, started.text
    path = f"/jobs/{started.json()['job_id']}"
    wait_until(lambda: observed.client.get(path).json()["status"] in ("completed", "failed"))
    job = observed.client.get(path).json()
    log = observed.client.get(f"{path}/logs").json()["logs"]
    assert (job["status"], job["request_id"]) == ("completed", "job-1"), log
    assert log[0].endswith("Request job-1.")

    made = observed.span("job", "job annotation", visionloop__job_id=job["job_id"])
    asked = observed.span("VisionLoop", "POST /api/auto_annotate/batch")
    assert (made.trace, made.parent) == (TRACE, asked.id)
    assert made.attributes["visionloop.request_id"] == "job-1"
    processes = {span.process for span in observed.spans if span.trace == TRACE}
    assert {"VisionLoop", "job"} <= processes

    def ours() -> list[dict[str, Any]]:  # with DEBUG, libraries write as well
        return [line for line in observed.lines("job-1") if line["logger"].startswith("visionloop")]

    wait_until(lambda: len(ours()) == 3)
    request, start, end = ours()
    assert request["process"] == "VisionLoop"
    assert (start["process"], end["process"]) == ("Trainer", "Trainer")
    assert end["message"].endswith("annotation: completed")


def test_a_process_that_dies_of_a_signal_leaves_json_only(observed: Observed) -> None:
    before = observed.server.workers()["Annotator"]
    os.kill(before.pid, signal.SIGSEGV)
    wait_until(lambda: observed.server.workers().get("Annotator", before) != before)
    wait_until(lambda: observed.client.get("/readyz").status_code == 200)
    told = [line for line in observed.log() if line["process"] == "supervisor"]
    assert any("service_Annotator has ended" in line["message"] for line in told)
