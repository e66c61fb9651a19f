"""`/session`: who the caller is, and a cookie that stands for a token in a browser."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from access.scopes import ORDER, USE, ScopeName
from access.sessions import BrowserSession, hash_of
from api.dependencies import GatewayDep
from api.groups import ACCESS
from api.middleware.auth import Known, environment_token, environment_tokens, named_token, not_valid
from api.middleware.request_state import NOBODY, Exchange, address_of, changed, exchange
from api.middleware.session_cookie import cookie_name, sent_cookies
from api.requests import json_body
from api.schemas import MOST_IMAGES, RequestFields, errors, json_request_body
from engines.availability import check_available
from engines.options import FORMATS, Format
from errors import Conflict, Unauthorized
from serving.gateway import Gateway
from settings import Settings
from source_tree import VERSION

router = APIRouter(prefix="/session", tags=[ACCESS])

UNKNOWN_TOKEN = (
    "This token is unknown. Sign in with one of the server's: visionloop tokens create NAME "
    "--scope annotate makes one."
)


class SignIn(RequestFields):
    """The token that the session is to stand for."""

    token: str = Field(
        min_length=1,
        max_length=1000,
        description="a named token, or one of the environment, as a header would have it",
    )


class Limits(BaseModel):
    """What one request may have at most."""

    body_bytes: int = Field(description="bytes of a request with images to recognise")
    upload_bytes: int = Field(description="bytes of an upload of a dataset or of annotations")
    model_bytes: int = Field(description="bytes of a model file to import")
    pixels: int = Field(description="pixels of an image")
    images: int = Field(description="images of a request of `POST /infer`")
    requests_per_second: float = Field(description="requests a second of a caller; 0: no limit")


class Parts(BaseModel):
    """Optional parts of this server, as it is set up."""

    image_url: bool = Field(description="whether images can be given by address")
    label_studio: bool = Field(description="whether a Label Studio is connected")
    webhooks: bool = Field(description="whether receivers are told when a job ends")
    kept_images: bool = Field(description="whether images with uncertain predictions are kept")
    gate: bool = Field(description="whether every promotion is checked with a gate")
    exports: list[Format] = Field(description="the formats in which this machine writes models")


class SessionAnswer(BaseModel):
    """Who the caller is, and what the server offers it."""

    token_needed: bool = Field(description="whether requests without a token are refused")
    can_sign_in: bool = Field(description="whether the server has any token to sign in with")
    signed_in: bool = Field(description="whether the request has a valid token or session")
    who: str = Field(
        description="name of the token; `environment token` and `environment admin token`: "
        "VISIONLOOP_TOKEN and VISIONLOOP_ADMIN_TOKEN; `open`: no valid token"
    )
    scopes: list[ScopeName] = Field(description="all that the caller may do, the lowest first")
    expires_at: str | None = Field(
        description="when the session, or the token that was sent, ends; null: never"
    )
    version: str | None = Field(
        description="version of the server; null, as what follows, if the caller may not use it"
    )
    limits: Limits | None = Field(description="bounds of requests")
    parts: Parts | None = Field(description="what is set up and installed")


@router.get("", response_model=SessionAnswer)
async def get_session(request: Request, response: Response, gateway: GatewayDep) -> Any:
    """Who the caller is, what it may do, and the server's limits. Open without a token."""
    response.headers["Cache-Control"] = "no-store"
    return await asyncio.to_thread(_described, exchange(request.scope), gateway)


@router.post(
    "",
    response_model=SessionAnswer,
    responses=errors(400, 401, 403),
    openapi_extra=json_request_body(SignIn),
)
async def sign_in(request: Request, response: Response, gateway: GatewayDep) -> Any:
    """Open a session for a browser: the answer sets a cookie that stands for the token.

    Scripts cannot read it, and other sites' pages do not send it. It lasts 7 days, and ends before
    that with the token, by `DELETE /session`, or if 100 newer ones of the token are opened. A token
    in a header comes before it. What changes something needs an `Origin` of this server with it.
    """
    text = (await json_body(request, SignIn)).token.strip()
    state = exchange(request.scope)
    known = environment_token(text, environment_tokens(gateway.settings)) or named_token(
        text, gateway.access.live
    )
    if not isinstance(known, Known):
        error = not_valid(known) if known else Unauthorized(UNKNOWN_TOKEN)
        state.refused = error.message
        raise error
    await asyncio.to_thread(gateway.access.sessions.end, _sent(request))
    identity = known.token.id if known.token else None
    until = known.token.expires_at if known.token else None
    cookie, session = await asyncio.to_thread(
        gateway.access.sessions.open, identity, known.digest, until
    )
    gateway.access.live.refresh()
    known.fill(state)
    state.session = session
    changed("signed in")
    response.headers["Cache-Control"] = "no-store"
    response.set_cookie(value=cookie, max_age=_seconds_to(session), **_cookie(request))
    return await asyncio.to_thread(_described, state, gateway)


@router.delete("", status_code=204, responses=errors(403))
async def sign_out(request: Request, gateway: GatewayDep) -> Response:
    """End the session whose cookie is sent, everywhere at once; the token stays valid."""
    if await asyncio.to_thread(gateway.access.sessions.end, _sent(request)):
        gateway.access.live.refresh()
        if exchange(request.scope).session is not None:
            changed("signed out")
    response = Response(status_code=204)
    response.delete_cookie(**_cookie(request))
    return response


def _sent(request: Request) -> list[str]:
    """The hashes of the cookies that a request has."""
    return [hash_of(cookie) for cookie in sent_cookies(request.headers)]


def _cookie(request: Request) -> dict[str, Any]:
    """Name and attributes of the cookie.

    The page's own scheme counts as well: a proxy with TLS need not be a trusted one.
    """
    origin = request.headers.get("origin", "")
    return {
        "key": cookie_name(request.headers),
        "path": address_of(request, "") or "/",
        "secure": request.url.scheme == "https" or origin.startswith("https://"),
        "httponly": True,
        "samesite": "strict",
    }


def _seconds_to(session: BrowserSession) -> int:
    left = datetime.fromisoformat(session.expires_at) - datetime.now(UTC)
    return max(int(left.total_seconds()), 0)


def _described(state: Exchange, gateway: Gateway) -> dict[str, Any]:
    settings, live = gateway.settings, gateway.access.live
    may_use = USE in state.scopes
    signed_in = may_use and state.who != NOBODY
    ends = state.session or state.token
    return {
        "token_needed": bool(settings.token) or live.closed,
        "can_sign_in": bool(environment_tokens(settings)) or live.any_valid,
        "signed_in": signed_in,
        "who": state.who if signed_in else NOBODY,
        "scopes": [scope for scope in ORDER if scope in state.scopes],
        "expires_at": ends.expires_at if ends and signed_in else None,
        "version": VERSION if may_use else None,
        "limits": _limits(settings) if may_use else None,
        "parts": _parts(settings) if may_use else None,
    }


def _limits(settings: Settings) -> dict[str, Any]:
    return {
        "body_bytes": settings.max_body_bytes,
        "upload_bytes": settings.max_upload_bytes,
        "model_bytes": settings.max_model_bytes,
        "pixels": settings.max_pixels,
        "images": MOST_IMAGES,
        "requests_per_second": settings.rate_limit,
    }


def _parts(settings: Settings) -> dict[str, Any]:
    return {
        "image_url": settings.image_url != "off",
        "label_studio": settings.label_studio_url is not None,
        "webhooks": bool(settings.webhook_url),
        "kept_images": settings.keep_below > 0,
        "gate": settings.gate,
        "exports": [wanted for wanted in FORMATS if _writes(wanted, settings)],
    }


def _writes(wanted: Format, settings: Settings) -> bool:
    try:
        check_available(wanted, settings)
    except Conflict:
        return False
    return True
