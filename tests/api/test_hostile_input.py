"""Generated requests against the OpenAPI document: what it says is what happens.

Every check of schemathesis but one: that what fits the schema is accepted. Whether bytes are an
image, or a text is a path that is there, no schema says; such a request gets a 4xx, whose status,
content type and form the other checks look at. In uploads of images every value is a text, so what
violates the schema may be accepted, too.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from errors import BackendUnavailable
from inference.prediction import InferenceItem
from tests.support.patience import PATIENCE
from tests.support.serving import Server
from tests.support.training_app import Service

EXAMPLES = 8  # for each operation and kind
SERVED = ("POST /infer", "POST /infer/base64", "POST /predict", "POST /annotate")
UPLOADS = ("POST /api/datasets", "POST /api/datasets/{dataset_id}/images")
ENDLESS = ("GET /events",)  # a stream; tests/api/console/test_events.py reads it
BENTOML = ("POST /predict", "POST /annotate", "GET /livez", "GET /readyz")


class Nobody:
    """In the runners' place: they are not there."""

    up = False
    batchers: tuple[Any, ...] = ()

    async def status(self) -> dict[str, Any]:
        raise BackendUnavailable("There is no runner.", retry_after=1)

    async def predict(self, item: InferenceItem) -> None:
        raise AssertionError("a request without an image reached a runner")


def attack(
    document: schemathesis.BaseSchema, only: tuple[str, ...], but: tuple[str, ...]
) -> set[str]:
    """Which operations were tried."""
    tried = set()
    fixed = {path for path in document.raw_schema["paths"] if "{" not in path}
    for found in document.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if operation.label in but or (only and operation.label not in only):
            continue
        for mode in GenerationMode:

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            @given(operation.as_strategy(generation_mode=mode))
            def one(case: schemathesis.Case) -> None:
                # Hypothesis takes words of the code as ids: /models/shadow is another route.
                assume("{" not in case.operation.path or case.formatted_path not in fixed)
                answer = case.call(timeout=PATIENCE)
                native = case.operation.label in BENTOML  # BentoML's own 415 and the like
                checks: Any = [not_a_server_error] if native else None
                excluded: list[Any] = [positive_data_acceptance]
                if case.operation.label in UPLOADS:
                    excluded.append(negative_data_rejection)
                case.validate_response(answer, checks=checks, excluded_checks=excluded)
                if answer.status_code >= 400:
                    body = answer.json()
                    assert set(body) == {"error", "code", "message", "detail", "request_id"}
                    assert body["detail"] == body["message"]

            with suppress(Unsatisfiable):  # GET /models takes nothing that could be wrong
                one()
                tried.add(operation.label)
    return tried


@pytest.mark.slow
def test_what_is_described_is_what_happens(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.gateway, "runners", {"detector": Nobody(), "annotator": Nobody()})
    document = schemathesis.openapi.from_asgi("/openapi.json", service.app)
    tried = attack(document, (), (*BENTOML, *ENDLESS))
    assert len(tried) > 70
    assert {"POST /infer", "POST /train", "DELETE /models/{model_id}"} <= tried


def test_no_request_breaks_a_server_with_models(server: Server) -> None:
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    assert attack(document, SERVED, ()) == set(SERVED)
