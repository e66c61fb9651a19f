"""Checks the names of query parameters on every route, by the same rules as body fields."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import Request, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute

from api.groups import TOOLS
from api.middleware.request_state import exchange
from api.request_text import PLAIN_TEXT, plain_text
from api.schemas import BODIES, RequestFields
from errors import ValidationFailed
from field_names import Unknown, UnknownField, meant, notes_on

MOST_PARAMETERS = 64  # maximum number of parameters in a query

log = logging.getLogger("visionloop")


async def known_query(request: Request) -> None:
    """FastAPI dependency of every route that checks the names of query parameters.

    A misspelt name is refused, and so is the name of a body field. Any other unknown name is
    refused, unless the route's body notes unknown fields: then it is ignored, with a note in the
    response. Not checked are requests of annotation tools, links to pages, and names with a leading
    `_`, which clients add to bypass a cache.

    Raises:
        ValidationFailed: A name is refused, there are too many, or a text is not valid Unicode.
    """
    if len(request.query_params.multi_items()) > MOST_PARAMETERS:
        raise ValidationFailed(
            f"A query may have {MOST_PARAMETERS} parameters, not more. Send the others in the "
            "body, or leave them out."
        )
    texts = [*request.path_params.values(), *request.query_params.keys()]
    if not all(map(plain_text, [*texts, *request.query_params.values()])):
        raise ValidationFailed(f"The URL is not plain Unicode: {PLAIN_TEXT}")
    if request.url.query:
        route = request.scope.get("route")
        if isinstance(route, APIRoute):
            exchange(request.scope).notes = check_query(route, list(request.query_params))


def check_query(route: APIRoute, names: list[str]) -> list[str]:
    """Check the names in a query. Returns notes on those that have no effect.

    Raises:
        ValidationFailed: A name is refused.
    """
    known, body = _names(route), _body(route)
    passes = TOOLS in route.tags or not route.include_in_schema  # tools, and pages for browsers
    unknown: Unknown = "pass" if passes else "refuse"
    if body is not None:
        unknown = body.unknown
    if unknown == "pass":
        return []
    names = [name for name in names if not name.startswith("_")]
    inside = [] if body is None else body.known()
    for name in names:
        if name not in known and name in inside:
            raise ValidationFailed(
                f"{name!r} belongs in the body, not in the query: send it there."
            )
    for name in names:
        if name not in known and (guess := meant(name, inside)):
            raise ValidationFailed(
                f"Unknown field {name[:60]!r}: did you mean {guess!r}, in the body?"
            )
    try:
        notes = notes_on(names, known, unknown)
    except UnknownField as error:
        raise ValidationFailed(str(error)) from None
    if notes:
        log.info("%s: %s", route.path, " ".join(notes))
    return notes


def _names(route: APIRoute) -> tuple[str, ...]:
    """The names of a route's query parameters, including those of a query model."""
    others = (params.Path, params.Header, params.Cookie)
    found = get_flat_params(route.dependant)
    return tuple(field.alias for field in found if not isinstance(field.field_info, others))


def _body(route: APIRoute) -> type[RequestFields] | None:
    """The route's body model; if there are several, the one with the most fields."""
    kinds: list[Any] = [field.field_info.annotation for field in route.dependant.body_params]
    extra = route.openapi_extra or {}
    contents = extra.get("requestBody", {}).get("content", {}).values()
    kinds += [BODIES.get(content["schema"].get("title", "")) for content in contents]
    found = [k for k in kinds if isinstance(k, type) and issubclass(k, RequestFields)]
    return max(found, key=lambda kind: len(kind.model_fields), default=None)
