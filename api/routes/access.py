"""`/tokens` and `/audit`: named tokens, and who changed what."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, Field

from access import expiry
from access.audit import LARGEST, LISTED, MOST_LISTED, to_json
from access.scopes import ORDER, ScopeName, highest
from access.tables import LONGEST_NAME
from access.tokens import Token
from api.dependencies import GatewayDep
from api.groups import ACCESS
from api.middleware.auth import require_admin, require_use
from api.middleware.request_state import NOBODY, caller, changed, exchange
from api.requests import json_body
from api.schemas import RequestFields, errors, json_request_body
from errors import Forbidden

router = APIRouter(tags=[ACCESS], dependencies=[Depends(require_use)])

FIRST_IN_SHELL = (
    "This server asks nobody for a token, so anyone could create one here and keep it. Create the "
    "first on the server: visionloop tokens create NAME --scope admin. Or set "
    "VISIONLOOP_ADMIN_TOKEN."
)


class NewToken(RequestFields):
    """A token that is to be created."""

    name: str = Field(
        min_length=1,
        max_length=LONGEST_NAME,
        description="name of whoever or whatever will use it: letters, digits, `.`, `_`, `-`",
        examples=["anna"],
    )
    scope: ScopeName = Field(description=f"what it allows: {', '.join(ORDER)}")
    expires: str = Field(
        "",
        max_length=40,
        description=f"when it expires: {expiry.EXAMPLES}; empty: never",
        examples=["90d"],
    )


class Renewal(RequestFields):
    """How a token is renewed."""

    expires: str = Field(
        "",
        max_length=40,
        description=f"when the new one expires: {expiry.EXAMPLES}; empty: after as long as the old",
    )
    old_ends: str = Field(
        "",
        max_length=40,
        description="when every older text of the name ends at the latest: "
        f"{expiry.EXAMPLES}; empty: now",
        examples=["24h"],
    )


class ShownToken(BaseModel):
    """A named token, without its secret."""

    id: str = Field(description="a part of the token, which is not secret")
    name: str = Field(description="name of whoever or whatever uses it")
    scope: ScopeName = Field(description="what it allows, with all lower scopes")
    state: Literal["valid", "expired", "revoked"] = Field(description="whether it can be used")
    created_at: str
    created_by: str = Field(description="the caller or the user of the shell who created it")
    expires_at: str | None = Field(description="when it expires; null: never")
    last_used_at: str | None = Field(
        description="when it was last used, up to ten minutes late; null: never"
    )
    revoked_at: str | None = Field(description="when it was revoked; null: it was not")
    revoked_by: str | None = Field(description="who revoked it")


class CreatedToken(ShownToken):
    """A new token, with its secret."""

    token: str = Field(description="the token to send; it cannot be shown again")


class RenewedToken(CreatedToken):
    """A token with a new secret."""

    older: list[ShownToken] = Field(
        description="the texts that the name had before, the one that was renewed first: when each "
        "ends, or was revoked"
    )


class TokenList(BaseModel):
    tokens: list[ShownToken] = Field(description="the valid tokens, then the others")


class OwnAccess(BaseModel):
    """What the caller may do."""

    name: str = Field(
        description="name of the token; `environment token` and `environment admin token`: "
        "VISIONLOOP_TOKEN and VISIONLOOP_ADMIN_TOKEN; `open`: no token was needed"
    )
    scope: ScopeName = Field(description="the highest of the scopes")
    scopes: list[ScopeName] = Field(description="all that is allowed, the lowest first")
    expires_at: str | None = Field(description="when the token expires; null: never")


class AuditRow(BaseModel):
    """A change, or a refused request."""

    number: int = Field(description="increases with every entry")
    at: str = Field(description="when it happened")
    who: str = Field(
        description="name of a token, `environment token`, `environment admin token`, `open` "
        "without a valid token, or `command line, USER`"
    )
    address: str | None = Field(description="address of the client; null: a shell command")
    request_id: str | None = Field(description="id of the request in the log, if it has one")
    method: str | None = Field(description="HTTP method; null: a shell command")
    route: str = Field(description="template of the route's path, or the shell command")
    target: str | None = Field(description="id of the model, job or dataset, or a token's name")
    status: int | None = Field(description="HTTP status of the answer; null: a shell command")
    what: str = Field(description="what was changed, or why it was refused")
    decisions: str | None = Field(
        description="path of the log of promotion decisions, which has the reasons"
    )


class AuditPage(BaseModel):
    entries: list[AuditRow] = Field(description="the entries, the newest first")
    next: int | None = Field(description="`before` of the next page; null: this is the last")


@router.post(
    "/tokens",
    status_code=201,
    response_model=CreatedToken,
    responses=errors(400, 403, 409),
    dependencies=[Depends(require_admin)],
    openapi_extra=json_request_body(NewToken),
)
async def create_token(request: Request, gateway: GatewayDep) -> Any:
    """Create a named token. Its secret is in this response only.

    An open server refuses it: create its first token with `visionloop tokens create`.
    """
    body = await json_body(request, NewToken)
    if exchange(request.scope).who == NOBODY:
        raise Forbidden(FIRST_IN_SHELL)
    expires_at = expiry.after(body.expires, "expires") if body.expires else None
    create = partial(
        gateway.access.tokens.create, body.name, body.scope, caller(request), expires_at
    )
    token, secret = await asyncio.to_thread(create)
    changed(f"created a token with the scope {token.scope}", token.name)
    gateway.access.live.refresh()
    return token.to_json() | {"token": secret}


@router.get(
    "/tokens",
    response_model=TokenList,
    responses=errors(403),
    dependencies=[Depends(require_admin)],
)
async def list_tokens(gateway: GatewayDep) -> Any:
    """The named tokens, without their secrets; revoked and expired ones too."""
    found = await asyncio.to_thread(gateway.access.tokens.list)
    return {"tokens": [token.to_json() for token in found]}


@router.get("/tokens/self", response_model=OwnAccess)
async def own_access(request: Request) -> Any:
    """Which token this request has, and which scopes."""
    state = exchange(request.scope)
    token: Token | None = state.token
    return {
        "name": state.who,
        "scope": highest(state.scopes),
        "scopes": [scope for scope in ORDER if scope in state.scopes],
        "expires_at": token.expires_at if token else None,
    }


@router.post(
    "/tokens/{token}/renew",
    status_code=201,
    response_model=RenewedToken,
    responses=errors(400, 403, 404, 409),
    dependencies=[Depends(require_admin)],
    openapi_extra=json_request_body(Renewal, required=False),
)
async def renew_token(
    request: Request,
    gateway: GatewayDep,
    token: str = Path(max_length=200, description="name or id of the token"),
) -> Any:
    """Give a token a new secret: the same name and scope; the old one ends, at once or later.

    At once ends every older text of the name, even one that an earlier renewal let work longer.

    The secret is in this response only. Jobs, limits and drafts go by the name, and stay.
    """
    body = await json_body(request, Renewal)
    if exchange(request.scope).who == NOBODY:
        raise Forbidden(FIRST_IN_SHELL)
    expires_at = expiry.after(body.expires, "expires") if body.expires else None
    old_ends = expiry.after(body.old_ends, "old_ends") if body.old_ends else None
    renew = partial(gateway.access.tokens.renew, token, caller(request), expires_at, old_ends)
    renewed = await asyncio.to_thread(renew)
    changed(f"renewed the token; {renewed.ends}", renewed.token.name)
    gateway.access.live.refresh()
    older = [one.to_json() for one in renewed.older]
    return renewed.token.to_json() | {"token": renewed.text, "older": older}


@router.delete(
    "/tokens/{token}",
    response_model=ShownToken,
    responses=errors(403, 404),
    dependencies=[Depends(require_admin)],
)
async def revoke_token(
    request: Request,
    gateway: GatewayDep,
    token: str = Path(max_length=200, description="name or id of the token"),
) -> Any:
    """Revoke a token by its name or id: from now on requests with it get a 401.

    By the name, so do those with texts that it had before it was renewed.

    Requests that have begun are finished. The server stays closed, also without any token: see
    `visionloop tokens open`.
    """
    found = await asyncio.to_thread(gateway.access.tokens.revoke, token, caller(request))
    changed(f"revoked the token with the id {found.id}", found.name)
    gateway.access.live.refresh()
    return found.to_json()


@router.get(
    "/audit",
    response_model=AuditPage,
    responses=errors(403),
    dependencies=[Depends(require_admin)],
)
async def audit(
    gateway: GatewayDep,
    who: str = Query("", max_length=80, description="only entries of this token or caller"),
    what: str = Query(
        "",
        max_length=200,
        description="only entries with this text in route, target, `what` or `request_id`",
    ),
    since: str = Query(
        "", max_length=40, description="only entries since: 7d, 12h, or a date or time in UTC"
    ),
    limit: int = Query(LISTED, ge=1, le=MOST_LISTED, description="maximum number of entries"),
    before: int | None = Query(
        None, ge=1, le=LARGEST, description="only entries with a smaller number"
    ),
) -> Any:
    """The audit trail: changes and refused requests, the newest first.

    Predictions are not in it. A change is visible here within a second.
    """
    moment = expiry.since(since, "since") if since else ""
    find = partial(gateway.access.trail.list, who, what, moment, limit + 1, before)
    found = await asyncio.to_thread(find)
    page = found[:limit]
    return {
        "entries": [to_json(entry) for entry in page],
        "next": page[-1].number if len(found) > limit else None,
    }
