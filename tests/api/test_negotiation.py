from __future__ import annotations

import pytest

from api.routes.metrics import prefers_exposition

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "exposition"),
    [
        (PROMETHEUS, True),
        ("text/plain", True),
        ("Text/Plain; version=0.0.4", True),
        ("application/openmetrics-text", True),
        ("text/*", True),
        ("text/plain, application/json;q=0.9", True),
        ("text/plain;q=0.5, */*;q=0.4", True),
        ("application/*;q=0.1, text/plain;q=0.2", True),
        ("text/plain, application/json;q=0, */*;q=0.5", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("application/json, text/plain, */*", False),
        ("text/plain, */*", False),
        ("text/plain;q=0.5, application/json;q=0.5", False),
        ("text/plain;q=0.4, */*;q=0.5", False),
        ("text/plain;q=0", False),
        ("text/plain;q=nonsense", False),
        ("text/html", False),
        (FIREFOX, False),
        (",;,=;q", False),
    ],
)
def test_prometheus_has_its_format_and_everyone_else_json(accept: str, exposition: bool) -> None:
    assert prefers_exposition(accept) is exposition
