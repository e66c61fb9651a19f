"""Content negotiation: what a request's `Accept` header asks for."""

from __future__ import annotations

from errors import ValidationFailed
from inference.prediction import DrawnFormat

JSON_TYPE = "application/json"
PICTURES: dict[str, DrawnFormat] = {"image/jpeg": "JPEG", "image/webp": "WEBP", "image/png": "PNG"}
"""Content types of drawn images; if several are wanted alike, the first."""


def wanted_picture(accept: str) -> str | None:
    """The content type of the image that an `Accept` header prefers to JSON; None: JSON.

    Its quality value must be higher than that of JSON and that of `*/*`.

    Raises:
        ValidationFailed: Only images are accepted, and none that can be drawn.
    """
    ranges = _ranges(accept)
    others = max(_quality(ranges, JSON_TYPE), ranges.get("*/*", 0.0))
    best = max(PICTURES, key=lambda kind: _quality(ranges, kind))
    if _quality(ranges, best) > others:
        return best
    images = [kind for kind, quality in ranges.items() if kind.startswith("image/") and quality]
    if images and not others:
        raise ValidationFailed(
            f"'Accept' wants {', '.join(images)[:100]}, which cannot be drawn. Accept "
            f"{', '.join(PICTURES)} or {JSON_TYPE}."
        )
    return None


def prefers_exposition(accept: str) -> bool:
    """Whether an `Accept` header prefers plain text or OpenMetrics to JSON."""
    ranges = _ranges(accept)
    json = _quality(ranges, "application/json")
    texts = (_quality(ranges, t) for t in ("text/plain", "application/openmetrics-text"))
    return max(texts) > json


def accepts_html(accept: str) -> bool:
    """Whether an `Accept` header names HTML, as browsers do for pages; `*/*` is not enough."""
    return _ranges(accept).get("text/html", 0.0) > 0


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an `Accept-Encoding` header allows gzip."""
    ranges = _ranges(accept_encoding)
    return ranges.get("gzip", ranges.get("*", 0.0)) > 0


def _ranges(accept: str) -> dict[str, float]:
    """The quality values (`q`) by media range; of a repeated range, the highest."""
    found: dict[str, float] = {}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    quality = min(max(float(value), 0.0), 1.0)
                except ValueError:
                    quality = 0.0
        if kind:
            found[kind] = max(quality, found.get(kind, 0.0))
    return found


def _quality(ranges: dict[str, float], kind: str) -> float:
    """The quality value of a media type: that of the most specific range (RFC 9110, 12.5.1)."""
    for candidate in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        if candidate in ranges:
            return ranges[candidate]
    return 0.0
