from __future__ import annotations

import pytest

from api.negotiation import prefers_exposition, wanted_picture
from errors import ValidationFailed

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


CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
    "*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)


@pytest.mark.parametrize(
    ("accept", "picture"),
    [
        ("image/jpeg", "image/jpeg"),
        ("image/png", "image/png"),
        ("image/webp", "image/webp"),
        ("IMAGE/PNG", "image/png"),
        ("image/*", "image/jpeg"),
        ("image/png, image/webp", "image/webp"),
        ("image/webp;q=0.5, image/png", "image/png"),
        ("image/*, image/jpeg;q=0", "image/webp"),
        ("image/png, application/json;q=0.9", "image/png"),
        ("image/png, */*;q=0.1", "image/png"),
        ("image/png;q=0.2, application/*;q=0.1", "image/png"),
        (CHROME, "image/webp"),  # a browser that sends a form shows the answer
        ("image/png, application/json", None),
        ("image/png, */*", None),
        ("image/png;q=0.5, */*;q=0.6, application/json;q=0.1", None),
        ("image/avif, */*;q=0.1", None),
        ("image/gif;q=0", None),
        ("application/json", None),
        ("application/json, text/plain, */*", None),
        ("text/html", None),
        (FIREFOX, None),
        ("*/*", None),
        ("", None),
    ],
)
def test_a_picture_only_for_who_prefers_it(accept: str, picture: str | None) -> None:
    assert wanted_picture(accept) == picture


@pytest.mark.parametrize("accept", ["image/gif", "image/avif, image/svg+xml;q=0.5, text/html"])
def test_a_picture_that_cannot_be_drawn_is_refused(accept: str) -> None:
    with pytest.raises(ValidationFailed, match=r"image/jpeg, image/webp, image/png or application"):
        wanted_picture(accept)
