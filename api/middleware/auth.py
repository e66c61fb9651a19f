"""Authentication by tokens and session cookies, and the scope that each call needs."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from access.scopes import ADMIN, ANNOTATE, ORDER, TRAIN, USE, ScopeName, highest, including
from access.sessions import binding_of
from api.middleware.errors import answer
from api.middleware.limits import RateLimit
from api.middleware.request_state import CURRENT, Exchange, caller, exchange
from api.middleware.session_cookie import FOREIGN, same_origin, sent_cookies
from errors import Forbidden, Unauthorized, VisionLoopError
from jobs.caller import CALLER
from settings import Settings

if TYPE_CHECKING:
    from access.control import AccessControl
    from access.live_tokens import LiveTokens
    from access.sessions import BrowserSession
    from access.tokens import Token
    from jobs.job import Job

# Paths that need no token, for probes and browsers; none reveals anything about models.
PROBES = frozenset({"/livez", "/readyz", "/healthz", "/health"})  # the last is X-AnyLabeling's
OPEN = PROBES | {"/", "/docs", "/redoc", "/openapi.json", "/session"}
OPEN_FOLDERS = ("/static/", "/console/")  # scripts and styles of pages
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

    A cookie of a session is read if no header has a token. Browsers add it to requests of other
    pages of this host too, whatever their port. So a request by cookie that may change something
    must say that it comes from this server's own pages.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, limit: RateLimit, access: Access | None = None
    ) -> None:
        self.app = app
        self.limit = limit
        self.access = access
        self.allowed = environment_tokens(settings)
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
        if state.session is not None and scope["method"] not in SAFE:
            headers = Headers(scope=scope)
            if not same_origin(headers):
                foreign = Forbidden(FOREIGN.format(headers.get("origin", "none")[:100]))
                state.refused = foreign.message
                await answer(scope, foreign)(scope, receive, send)
                return
        if USE not in state.scopes and path not in OPEN and not path.startswith(OPEN_FOLDERS):
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
        sent = list(presented(Headers(scope=scope)))
        for token in sent:
            known = environment_token(token, self.allowed) or named_token(token, self._live())
            if isinstance(known, Known):
                known.fill(state)
                return None
            invalid = known or invalid
        for cookie in () if sent else sent_cookies(Headers(scope=scope)):
            live = self._live()
            session = live.session(cookie) if live else None
            known = _of_session(cookie, session, self.allowed, live) if live and session else None
            if isinstance(known, Known):
                known.fill(state)
                state.session = session
                return None
            invalid = known or invalid
        state.client = f"address {(scope.get('client') or ('',))[0]}"
        if invalid is not None:  # refused, even by a server that would serve it without a token
            state.scopes, state.who = frozenset(), invalid.name
            return invalid
        live = self._live()
        closed = live is not None and live.closed
        state.scopes = frozenset() if closed else self.anonymous
        return None

    def _live(self) -> LiveTokens | None:
        """The named tokens and the sessions; opened late, as an environment token needs neither."""
        return self.access().live if self.access else None


@dataclass(frozen=True, slots=True)
class Known:
    """A valid token that was sent.

    Attributes:
        name: In the audit trail.
        digest: Its SHA-256.
        token: The named token; None: it is one of the environment.
    """

    scopes: frozenset[str]
    name: str
    digest: bytes
    token: Token | None = None

    def fill(self, state: Exchange) -> None:
        """Have the request be one of this token."""
        state.scopes, state.who, state.token = self.scopes, self.name, self.token
        state.client = self.name if self.token is None else f"token {self.name}"


EnvironmentTokens = dict[bytes, tuple[frozenset[str], str]]
"""SHA-256 of a token → its scopes, and its name in the audit trail."""


def environment_tokens(settings: Settings) -> EnvironmentTokens:
    """The tokens of the settings."""
    found: EnvironmentTokens = {}
    if settings.token:
        scopes = including(USE) if settings.admin_token else EVERYTHING
        found[_digest(settings.token)] = scopes, TOKEN_NAME
    if settings.admin_token:
        found[_digest(settings.admin_token)] = EVERYTHING, ADMIN_TOKEN_NAME
    return found


def environment_token(text: str, allowed: EnvironmentTokens) -> Known | None:
    """The token of the environment that a text is; None if it is none."""
    digests = _digests(text)
    for digest, (scopes, name) in allowed.items():
        if any(hmac.compare_digest(sent, digest) for sent in digests):
            return Known(scopes, name, digest)
    return None


def named_token(text: str, live: LiveTokens | None) -> Known | Token | None:
    """The named token that a text is, noted as used; as it is stored, if it is not valid any more.

    Raises:
        DatabaseBusy: The named tokens were never read, and cannot be read now.
    """
    found = live.find(text) if live else None
    return _in_use(found, live) if live and found else None


def _in_use(token: Token, live: LiveTokens) -> Known | Token:
    """The named token as a valid one, noted as used; as it is, if it is not valid."""
    if token.state != "valid":
        return token
    live.used(token)
    return Known(token.scopes, token.name, token.digest, token)


def _of_session(
    cookie: str, session: BrowserSession, allowed: EnvironmentTokens, live: LiveTokens
) -> Known | Token | None:
    """The token that a session stands for, as `named_token` has it; None if it is gone."""
    if session.token_id is not None:
        token = live.by_id(session.token_id)
        return _in_use(token, live) if token else None
    for digest, (scopes, name) in allowed.items():
        if hmac.compare_digest(binding_of(cookie, digest), session.binding or ""):
            return Known(scopes, name, digest)
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


def not_valid(token: Token) -> VisionLoopError:
    """The error for a named token that is revoked or expired."""
    when = token.revoked_at or token.expires_at or ""
    verb = "was revoked" if token.revoked_at else "has expired"
    return Unauthorized(f"The token '{token.name}' {verb} ({when[:19]} UTC). Use another.")


def _unauthorized(scope: Scope, invalid: Token | None) -> VisionLoopError:
    if invalid is not None:
        return not_valid(invalid)
    headers = Headers(scope=scope)
    if any(presented(headers)):
        return Unauthorized(
            "This token is unknown. Send one of the server's: 'Authorization: Bearer <token>'."
        )
    if any(sent_cookies(headers)):
        return Unauthorized("This session has ended. Sign in again, with a token.")
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
