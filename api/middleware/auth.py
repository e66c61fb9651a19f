"""Authentication by tokens, with one scope for use and one for administration."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterator
from hashlib import sha256

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.middleware.errors import answer
from api.middleware.limits import RateLimit
from api.middleware.request_state import ADMIN, USE, caller, exchange
from errors import Forbidden, Unauthorized, VisionLoopError
from jobs.caller import CALLER
from settings import Settings

# Paths that need no token, for probes and browsers; none reveals anything about models.
PROBES = frozenset({"/livez", "/readyz", "/healthz", "/health"})  # the last is X-AnyLabeling's
OPEN = PROBES | {"/", "/docs", "/redoc", "/openapi.json"}
OPEN_FOLDER = "/static/"
ADMIN_FOLDER = "/tasks/"  # BentoML's own routes; ours declare `require_admin`

EVERYTHING = frozenset({USE, ADMIN})


class Auth:
    """ASGI middleware that determines the caller's scopes; responds with 401 if there are none.

    If the settings contain no token, no request needs one. If only `VISIONLOOP_TOKEN` is set, it
    allows everything. If `VISIONLOOP_ADMIN_TOKEN` is set as well, only that one allows
    administration. `limit` limits the rate of refused requests, so that tokens cannot be guessed.
    """

    def __init__(self, app: ASGIApp, settings: Settings, limit: RateLimit) -> None:
        self.app = app
        self.limit = limit
        self.allowed = {}
        if settings.token:
            scopes = frozenset({USE}) if settings.admin_token else EVERYTHING
            self.allowed[_digest(settings.token)] = scopes
        if settings.admin_token:
            self.allowed[_digest(settings.admin_token)] = EVERYTHING
        self.anonymous = frozenset() if settings.token else frozenset({USE})
        if not self.allowed:
            self.anonymous = EVERYTHING

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # no route uses them, but BentoML's router would accept
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = exchange(scope)
        state.scopes, state.client = self._identify(scope)
        CALLER.set(caller(Request(scope)))
        path = scope["path"]
        if USE not in state.scopes and path not in OPEN and not path.startswith(OPEN_FOLDER):
            refusal = self.limit.count(state.client) or _unauthorized(scope)
            await answer(scope, refusal)(scope, receive, send)
            return
        if path.startswith(ADMIN_FOLDER):
            try:
                require_admin(Request(scope))
            except VisionLoopError as error:
                await answer(scope, error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _identify(self, scope: Scope) -> tuple[frozenset[str], str]:
        """The caller's scopes, and the name under which the rate limit counts it."""
        for token in presented(Headers(scope=scope)):
            digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
            for known, scopes in self.allowed.items():
                if hmac.compare_digest(digest, known):
                    return scopes, f"token {known.hex()}"
        return self.anonymous, f"address {(scope.get('client') or ('',))[0]}"


def _digest(token: SecretStr) -> bytes:
    return sha256(token.get_secret_value().encode()).digest()


def _unauthorized(scope: Scope) -> VisionLoopError:
    if any(presented(Headers(scope=scope))):
        return Unauthorized("This token is unknown.")
    return Unauthorized("A token is needed: send 'Authorization: Bearer <token>'.")


def presented(headers: Headers) -> Iterator[str]:
    """The tokens in a request's headers, from every header in which clients send them."""
    scheme, _, value = headers.get("authorization", "").strip().partition(" ")
    value = value.strip()
    if scheme.lower() in ("bearer", "token") and value:
        yield value
    elif scheme.lower() == "basic" and value:
        try:
            pair = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            pair = ""
        password = pair.partition(":")[2]
        if password:
            yield password
    if headers.get("token"):
        yield headers["token"]


def is_admin(request: Request) -> bool:
    """Whether the caller has the admin scope."""
    return ADMIN in exchange(request.scope).scopes


def require_admin(request: Request) -> None:
    """FastAPI dependency of routes that need the admin token.

    Raises:
        Unauthorized: The request has no valid token.
        Forbidden: The request's token does not allow administration.
    """
    if is_admin(request):
        return
    if exchange(request.scope).client.startswith("token "):
        raise Forbidden("This token allows use only; this call needs the admin token.")
    raise Unauthorized("This call needs the admin token: send 'Authorization: Bearer <token>'.")
