"""Generated requests against the OpenAPI document: never an error of ours, always our form."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error

from tests.api.serving import Server

EXAMPLES = 25  # for each operation


@pytest.fixture(scope="session")
def document(server: Server) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_the_service(case: schemathesis.Case) -> None:
    answer = case.call(timeout=30)
    case.validate_response(answer, checks=[not_a_server_error])
    if answer.status_code >= 400:
        body = answer.json()
        assert set(body) == {"error", "code", "message", "detail"}
        assert body["detail"] == body["message"]
