"""Authentication by tokens, and the scope that each call needs."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from access.scopes import ADMIN, ANNOTATE, ORDER, TRAIN, USE, ScopeName, highest, including
from api.middleware.errors import answer
from api.middleware.limits import RateLimit
from api.middleware.request_state import CURRENT, Exchange, caller, exchange
from errors import Forbidden, Unauthorized, VisionLoopError
from jobs.caller import CALLER
from settings import Settings

if TYPE_CHECKING:
    from access.control import AccessControl
    from access.tokens import Token
    from jobs.store import Job

# Paths that need no token, for probes and browsers; none reveals anything about models.
PROBES = frozenset({"/livez", "/readyz", "/healthz", "/health"})  # the last is X-AnyLabeling's
OPEN = PROBES | {"/", "/docs", "/redoc", "/openapi.json"}
OPEN_FOLDER = "/static/"
TASKS_FOLDER = "/tasks/"  # BentoML's own routes, which train and evaluate

EVERYTHING = frozenset(ORDER)
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

TOKEN_NAME, ADMIN_TOKEN_NAME = "environment token", "environment admin token"

Access = Callable[[], "AccessControl"]


class Auth:
    """ASGI middleware that determines the caller's scopes; responds with 401 if there are none.

    If neither the settings contain a token nor a named one was ever created, no request needs one.
    If only `VISIONLOOP_TOKEN` is set, it allows everything. If `VISIONLOOP_ADMIN_TOKEN` is set as
    well, the former allows use only. `limit` limits the rate of refused requests, so that tokens
    cannot be guessed. `access` has the named tokens; None: there are none.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, limit: RateLimit, access: Access | None = None
    ) -> None:
        self.app = app
        self.limit = limit
        self.access = access
        self.allowed: dict[bytes, tuple[frozenset[str], str]] = {}
        if settings.token:
            scopes = including(USE) if settings.admin_token else EVERYTHING
            self.allowed[_digest(settings.token)] = scopes, TOKEN_NAME
        if settings.admin_token:
            self.allowed[_digest(settings.admin_token)] = EVERYTHING, ADMIN_TOKEN_NAME
        self.anonymous = frozenset() if settings.token else including(USE)
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
        invalid = self._identify(scope, state)
        CALLER.set(caller(Request(scope)))
        CURRENT.set(state)
        path = scope["path"]
        if USE not in state.scopes and path not in OPEN and not path.startswith(OPEN_FOLDER):
            state.changes = scope["method"] not in SAFE
            error = _unauthorized(scope, invalid)
            state.refused = error.message
            refusal = self.limit.count(state.client) or error
            await answer(scope, refusal)(scope, receive, send)
            return
        if path.startswith(TASKS_FOLDER):
            try:
                require_tasks.check(state, scope)
            except VisionLoopError as error:
                await answer(scope, error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _identify(self, scope: Scope, state: Exchange) -> Token | None:
        """Store who the caller is. Returns a named token that is no longer valid, if it sent one.

        Raises:
            DatabaseBusy: The named tokens were never read, and cannot be read now.
        """
        invalid = None
        for token in presented(Headers(scope=scope)):
            digests = _digests(token)
            for known, (scopes, name) in self.allowed.items():
                if any(hmac.compare_digest(digest, known) for digest in digests):
                    state.scopes, state.who, state.client = scopes, name, name
                    return None
            live = self.access().live if self.access else None
            found = live.find(token) if live else None
            if live and found and found.state == "valid":
                live.used(found)
                state.scopes, state.who, state.token = found.scopes, found.name, found
                state.client = f"token {found.name}"
                return None
            invalid = found or invalid
        state.client = f"address {(scope.get('client') or ('',))[0]}"
        if invalid is not None:  # refused, even by a server that would serve it without a token
            state.scopes, state.who = frozenset(), invalid.name
            return invalid
        closed = self.access is not None and self.access().live.closed
        state.scopes = frozenset() if closed else self.anonymous
        return None


def _digests(token: str) -> list[bytes]:
    """The digests of a sent token: as it was read, and as bytes, which clients write in UTF-8."""
    forms = [token.encode("utf-8", "surrogateescape")]
    if not token.isascii():
        with suppress(UnicodeEncodeError):
            forms.append(token.encode("latin-1"))  # headers are read so
    return [sha256(form).digest() for form in forms]


def _digest(token: SecretStr) -> bytes:
    return sha256(token.get_secret_value().encode()).digest()


def _unauthorized(scope: Scope, invalid: Token | None) -> VisionLoopError:
    if invalid is not None:
        when = invalid.revoked_at or invalid.expires_at or ""
        verb = "was revoked" if invalid.revoked_at else "has expired"
        return Unauthorized(f"The token '{invalid.name}' {verb} ({when[:19]} UTC). Use another.")
    if any(presented(Headers(scope=scope))):
        return Unauthorized(
            "This token is unknown. Send one of the server's: 'Authorization: Bearer <token>'."
        )
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


class Needs:
    """FastAPI dependency that declares the scope a route needs, and refuses callers without it.

    A route that needs more than `use`, by a method that changes things, is recorded in the audit
    trail when it succeeds, unless `changes` is false.

    Raises:
        Unauthorized: The request has no valid token.
        Forbidden: The request's token lacks the scope.
    """

    def __init__(self, scope: ScopeName, changes: bool = True) -> None:
        self.scope = scope
        self.changes = changes and scope != USE

    async def __call__(self, request: Request) -> None:
        self.check(exchange(request.scope), request.scope)

    def check(self, state: Exchange, scope: Scope) -> None:
        """Refuse the caller if it lacks the scope. Raises as the class says."""
        state.changes = self.changes and scope["method"] not in SAFE
        state.route = getattr(scope.get("route"), "path", None)
        state.target = " ".join(map(str, scope.get("path_params", {}).values())) or None
        if self.scope in state.scopes:
            return
        error = _lacking(state, self.scope)
        state.refused = error.message
        raise error


def _lacking(state: Exchange, needed: ScopeName, why: str = "this call needs") -> VisionLoopError:
    """The error for a caller without a scope: it names the scope and the caller's token."""
    has = highest(state.scopes)
    if state.token is not None:
        return Forbidden(
            f"The token '{state.token.name}' has the scope '{has}'; {why} '{needed}'. Use another "
            "token, or have an administrator create one with that scope."
        )
    if state.who == TOKEN_NAME:
        return Forbidden(
            f"This token (VISIONLOOP_TOKEN) allows the scope '{has}' only; {why} '{needed}': send "
            "the admin token, or a named token with that scope."
        )
    return Unauthorized(
        f"Without a token the scope '{has}' is allowed only; {why} '{needed}': send "
        "'Authorization: Bearer <token>'."
    )


require_use = Needs(USE)
require_annotate = Needs(ANNOTATE)
require_annotate_to_read = Needs(ANNOTATE, changes=False)
require_train = Needs(TRAIN)
require_tasks = Needs(TRAIN, changes=False)  # what a task changes, it records when it runs
require_admin = Needs(ADMIN)


def declared(dependencies: Sequence[Any]) -> Needs | None:
    """The highest scope that a route's dependencies declare; None if none does."""
    found = [one.dependency for one in dependencies if isinstance(one.dependency, Needs)]
    return max(found, key=lambda needs: ORDER.index(needs.scope), default=None)


def allows(request: Request, scope: ScopeName) -> bool:
    """Whether the caller has a scope."""
    return scope in exchange(request.scope).scopes


def require_for(scope: ScopeName, why: str) -> None:
    """Refuse the caller of the request being handled if it lacks a scope; `why` says what needs it.

    Raises:
        Unauthorized, Forbidden: It lacks the scope.
    """
    state = CURRENT.get()
    if state is not None and scope not in state.scopes:
        error = _lacking(state, scope, f"{why} needs")
        state.refused = error.message
        if state.record_late is not None:
            state.record_late(error.status)
        raise error


def require_own(job: Job) -> None:
    """Refuse the caller of the request being handled if the job is another's, unless it may all.

    Raises:
        Unauthorized, Forbidden: The job was started by another token, or by a job of before.
    """
    if job.caller is None or job.caller != CALLER.get():
        require_for(ADMIN, f"job {job.id} was started by another caller, and cancelling it")
