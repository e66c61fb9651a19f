"""Records changes and refused requests in the audit trail."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from access.entry import Entry, without_secrets
from api.middleware.request_state import NOBODY, Exchange, exchange
from request_id import REQUEST_ID
from settings import Settings

if TYPE_CHECKING:
    from access.control import AccessControl

log = logging.getLogger("visionloop")

REFUSALS = (401, 403)
SAME_SECONDS = 3600.0  # in which refusals of the same caller, route and status are one entry
MOST_REFUSALS = 100  # that are recorded at once
REFILL_SECONDS = 6.0  # for one more of them, so 14,400 a day at most
MOST_KEYS = 2000
SHORTEST_SECRET = 8  # characters of an environment token; shorter ones are words, too
LONGEST_PATH = 120  # characters of the path of a request without a route


class RefusalBound:
    """Bounds the entries of refused requests, so that nobody fills the database with them."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self._left = float(MOST_REFUSALS)
        self._filled = clock()
        self._since: OrderedDict[tuple[object, ...], float] = OrderedDict()
        self._again: dict[tuple[object, ...], int] = {}
        self._dropped = 0

    def admit(self, *key: object) -> str | None:
        """Whether a refusal is recorded: None if not, else what to add to its description.

        Args:
            key: What refusals have in common to be the same.
        """
        moment = self.clock()
        began = self._since.get(key)
        if began is not None and moment - began < SAME_SECONDS:
            self._again[key] = self._again.get(key, 0) + 1
            return None
        self._left = min(MOST_REFUSALS, self._left + (moment - self._filled) / REFILL_SECONDS)
        self._filled = moment
        if self._left < 1:
            self._dropped += 1
            return None
        self._left -= 1
        self._since[key] = moment
        self._since.move_to_end(key)
        again = self._again.pop(key, 0)
        while len(self._since) > MOST_KEYS:
            self._again.pop(self._since.popitem(last=False)[0], None)
        dropped, self._dropped = self._dropped, 0
        notes = f" And {again} times since the last entry." if again else ""
        return notes + (f" {dropped} other refusals are not recorded." if dropped else "")


class Audited:
    """ASGI middleware outside of the one for errors: it sees how each request ended.

    BentoML runs its tasks after their responses (`/tasks/…/submit`). What they change, or are
    refused, is recorded when it happens: see `Exchange.record_late`.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, access: Callable[[], AccessControl]
    ) -> None:
        self.app = app
        self.access = access
        # Apart, so that a stranger's flood does not hide what the bearer of a token tries.
        self.of_strangers, self.of_tokens = RefusalBound(), RefusalBound()
        tokens = (settings.token, settings.admin_token)
        values = [token.get_secret_value() for token in tokens if token]
        self.secrets = [value for value in values if len(value) >= SHORTEST_SECRET]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = exchange(scope)
        status = 500

        def record(status: int) -> None:
            try:
                self._record(scope, state, status)
            except Exception:  # never the request's fault
                log.exception("A request is not in the audit trail")

        def ended() -> None:
            if state.record_late is None:
                record(status)
                state.record_late = record

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                ended()

        try:
            await self.app(scope, receive, watched)
        finally:
            ended()

    def _record(self, scope: Scope, state: Exchange, status: int) -> None:
        what = state.what
        address = (scope.get("client") or ("",))[0]
        path = without_secrets(scope["path"], self.secrets)
        route = state.route or path[:LONGEST_PATH]
        if status in REFUSALS and state.refused is not None:
            bound = self.of_strangers if state.who == NOBODY else self.of_tokens
            more = bound.admit(state.who, address, scope["method"], route, status)
            if more is None:
                return
            what = state.refused + more
        elif not (state.what or (state.changes and status < 400)):
            return
        target = without_secrets(state.target, self.secrets) if state.target else None
        self.access().writer.add(
            Entry(
                who=state.who,
                route=route,
                what=without_secrets(what, self.secrets),
                target=target,
                address=address,
                method=scope["method"],
                status=status,
                request_id=REQUEST_ID.get(),
            )
        )
