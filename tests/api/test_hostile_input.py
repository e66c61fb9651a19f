"""Generated requests against the OpenAPI document: never an error of ours, always our form."""

from __future__ import annotations

from contextlib import suppress

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from tests.api.serving import Server
from tests.patience import PATIENCE

EXAMPLES = 8  # for each operation and kind


def test_no_request_breaks_the_service(server: Server) -> None:
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    attacked = set()
    for found in document.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        for mode in GenerationMode:

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            @given(operation.as_strategy(generation_mode=mode))
            def attack(case: schemathesis.Case) -> None:
                answer = case.call(timeout=PATIENCE)
                case.validate_response(answer, checks=[not_a_server_error])
                if answer.status_code >= 400:
                    body = answer.json()
                    assert set(body) == {"error", "code", "message", "detail"}
                    assert body["detail"] == body["message"]

            with suppress(Unsatisfiable):  # GET /models takes nothing that could be wrong
                attack()
                attacked.add(operation.label)
    assert {"POST /infer", "POST /infer/base64", "DELETE /models/{model_id}"} <= attacked
