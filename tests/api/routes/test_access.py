"""Named tokens against the routes, and what the audit trail has of it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from access.scopes import ORDER, ScopeName
from api.app import with_middleware
from api.middleware.audit import MOST_REFUSALS
from api.middleware.auth import require_for
from api.middleware.request_state import changed
from errors import Forbidden
from settings import Settings
from tests.support.patience import wait_until
from tests.support.training_app import FORM, UNKNOWN, Service

Call = Callable[..., httpx.Response]
PAST = "2020-01-01T00:00:00.000+00:00"
LOWEST: tuple[
    tuple[ScopeName, str, str, Any, int], ...
] = (  # a call of each scope, and what it answers to whoever may call it
    ("use", "GET", "/jobs", None, 200),
    ("use", "GET", "/tokens/self", None, 200),
    ("annotate", "POST", "/api/datasets/check", {}, 400),
    ("annotate", "POST", f"/jobs/{UNKNOWN}/cancel", None, 404),
    ("train", "POST", "/train", {}, 400),
    ("train", "POST", "/api/training/regular", {}, 400),
    ("train", "DELETE", f"/train/{UNKNOWN}", None, 404),
    ("train", "POST", "/metrics/nothing/evaluate", None, 404),
    ("train", "GET", "/tasks/train/status", None, 404),
    ("admin", "POST", "/models/active", {"model_id": "nothing"}, 404),
    ("admin", "POST", "/models/nothing/promote", None, 404),
    ("admin", "DELETE", f"/jobs/{UNKNOWN}", None, 404),
    ("admin", "GET", "/tokens", None, 200),
    ("admin", "GET", "/audit", None, 200),
)


def token(service: Service, scope: str, name: str = "", expires_at: str | None = None) -> str:
    made = service.gateway.access.tokens.create(name or scope, scope, "tests", expires_at)
    service.gateway.access.live.refresh()
    return made[1]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def trail(service: Service, count: int) -> list[Any]:
    """The entries, the oldest first, once there are as many."""
    log = service.gateway.access.trail
    wait_until(lambda: len(log.list(limit=1000)) >= count, pause=0.01)
    return log.list()[::-1]


def test_a_renewed_token_works_at_once_and_the_old_one_until_it_ends(
    service: Service, call: Call
) -> None:
    def status(secret: str) -> int:
        return call(service.app, "GET", "/jobs", headers=bearer(secret)).status_code

    admin, first = token(service, "admin"), token(service, "use", "anna")

    def renew(**body: str) -> httpx.Response:
        path = "/tokens/anna/renew"
        return call(service.app, "POST", path, json=body, headers=bearer(admin))

    later = renew(old_ends="1h")
    assert later.status_code == 201, later.text
    assert (later.json()["name"], later.json()["scope"]) == ("anna", "use")
    assert (status(first), status(later.json()["token"])) == (200, 200)
    now = renew()
    assert (status(later.json()["token"]), status(now.json()["token"])) == (401, 200)
    assert status(first) == 401, "at once is for every older text"
    assert [one["state"] for one in now.json()["older"]] == ["revoked", "revoked"]
    assert renew(old_ends="2020-01-01").status_code == 400
    whats = [entry.what for entry in trail(service, 3) if entry.route == "/tokens/{token}/renew"]
    assert [what.partition(" at ")[0] for what in whats[:2]] == [
        "renewed the token; the old text ends",
        "renewed the token; its 2 older texts have ended",
    ]


@pytest.mark.parametrize("scope", ORDER)
def test_a_token_may_do_what_its_scope_and_the_lower_ones_allow(
    service: Service, scope: ScopeName
) -> None:
    headers = bearer(token(service, scope))
    for needed, method, path, body, status in LOWEST:
        answer = service.call(service.app, method, path, json=body, headers=headers)
        if ORDER.index(scope) >= ORDER.index(needed):
            assert answer.status_code == status, (path, answer.text)
        else:
            assert answer.status_code == 403, path
            assert f"'{scope}' has the scope '{scope}'" in answer.json()["message"]
            assert f"needs '{needed}'" in answer.json()["message"]


@pytest.mark.parametrize(
    "headers",
    [
        lambda secret: {"Authorization": f"Bearer {secret}"},
        lambda secret: {"Authorization": f"Token {secret}"},
        lambda secret: {"Token": secret},
        lambda secret: {
            "Authorization": "Basic " + base64.b64encode(f"any:{secret}".encode()).decode()
        },
    ],
)
def test_a_token_is_taken_from_every_header(
    service: Service, headers: Callable[[str], dict[str, str]]
) -> None:
    own = service.get("/tokens/self", headers=headers(token(service, "train", "anna")))
    assert own == {
        "name": "anna",
        "scope": "train",
        "scopes": ["use", "annotate", "train"],
        "expires_at": None,
    }


def test_the_first_token_closes_the_server_and_nothing_but_the_shell_opens_it(
    service: Service,
) -> None:
    assert service.get("/tokens/self")["name"] == "open"
    secret = token(service, "admin")
    assert service.call(service.app, "GET", "/jobs").status_code == 401
    for path in ("/", "/docs", "/openapi.json", "/health"):
        assert service.call(service.app, "GET", path).status_code == 200, path
    assert service.call(
        service.app, "DELETE", "/tokens/admin", headers=bearer(secret)
    ).json()["state"] == "revoked"  # fmt: skip
    answer = service.call(service.app, "GET", "/jobs", headers=bearer(secret))
    assert answer.status_code == 401
    assert "'admin' was revoked" in answer.json()["message"]
    assert service.call(service.app, "GET", "/jobs").status_code == 401
    service.gateway.access.tokens.reopen()
    service.gateway.access.live.refresh()
    assert service.call(service.app, "GET", "/jobs").status_code == 200


@pytest.mark.parametrize("settings", [{}, {"admin_token": "env-admin"}])
def test_a_revoked_token_is_refused_where_none_is_needed(
    service: Service, settings: dict[str, str]
) -> None:
    secret = token(service, "admin", "gone")
    service.gateway.access.tokens.revoke("gone", "tests")
    service.gateway.access.tokens.reopen()
    service.gateway.access.live.refresh()
    given = Settings.model_validate({"home": service.gateway.settings.home} | settings)
    app = with_middleware(service.fastapi, given, lambda: service.gateway.access)
    assert service.call(app, "GET", "/tokens/self").status_code == 200
    for method, path in (("GET", "/tokens/self"), ("POST", "/tokens"), ("POST", "/tasks/train")):
        answer = service.call(
            app, method, path, json={"name": "mine", "scope": "admin"}, headers=bearer(secret)
        )
        assert answer.status_code == 401, path
        assert "'gone' was revoked" in answer.json()["message"]
    assert service.call(app, "GET", "/health", headers=bearer(secret)).status_code == 200
    assert [row.name for row in service.gateway.access.tokens.list()] == ["gone"]


def test_an_expired_token_is_told_so(service: Service) -> None:
    answer = service.call(
        service.app, "GET", "/jobs", headers=bearer(token(service, "use", "old", PAST))
    )
    assert answer.status_code == 401
    assert "'old' has expired (2020-01-01" in answer.json()["message"]


def test_an_open_server_gives_out_no_tokens(service: Service) -> None:
    answer = service.post("/tokens", {"name": "mine", "scope": "admin"})
    assert answer.status_code == 403
    assert "visionloop tokens create" in answer.json()["message"]
    assert service.get("/tokens")["tokens"] == []


def test_an_administrator_creates_lists_and_revokes(service: Service) -> None:
    headers = bearer(token(service, "admin", "root"))
    made = service.post(
        "/tokens", {"name": "anna", "scope": "annotate", "expires": "90d"}, headers=headers
    )
    assert made.status_code == 201
    secret = made.json()["token"]
    assert service.get("/tokens/self", headers=bearer(secret))["scope"] == "annotate"
    listed = service.get("/tokens", headers=headers)["tokens"]
    assert {row["name"]: row["created_by"] for row in listed}["anna"] == "API, token root"
    assert secret not in str(listed)
    for body in ({"name": "anna", "scope": "use"}, {"name": "b", "scope": "root"}, {"name": "b"}):
        refused = service.post("/tokens", body, headers=headers)
        assert refused.status_code in (400, 409), body
    service.call(service.app, "DELETE", f"/tokens/{made.json()['id']}", headers=headers)
    assert service.call(
        service.app, "GET", "/jobs", headers=bearer(secret)
    ).status_code == 401  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "headers", "scopes"),
    [
        ({"token": "env-use"}, bearer("env-use"), ORDER),
        ({"token": "env-use", "admin_token": "env-admin"}, bearer("env-use"), ("use",)),
        ({"token": "env-use", "admin_token": "env-admin"}, bearer("env-admin"), ORDER),
        ({"admin_token": "env-admin"}, bearer("env-admin"), ORDER),
        ({"admin_token": "env-admin"}, {}, None),  # `use` until there was a named token
    ],
)
def test_the_tokens_of_the_environment_go_on_beside_named_ones(
    service: Service,
    settings: dict[str, str],
    headers: dict[str, str],
    scopes: tuple[str, ...] | None,
) -> None:
    given = Settings.model_validate({"home": service.gateway.settings.home} | settings)
    app = with_middleware(service.fastapi, given, lambda: service.gateway.access)
    if scopes is None:
        assert service.call(app, "GET", "/tokens/self").json()["scopes"] == ["use"]
    named = token(service, "train")
    answer = service.call(app, "GET", "/tokens/self", headers=headers)
    assert answer.status_code == (401 if scopes is None else 200)
    if scopes is not None:
        assert answer.json()["scopes"] == list(scopes)
        assert answer.json()["name"].startswith("environment")
    assert service.call(
        app, "GET", "/tokens/self", headers=bearer(named)
    ).json()["scope"] == "train"  # fmt: skip


def test_a_training_token_cancels_its_own_jobs_only(service: Service) -> None:
    mine, other = (bearer(token(service, "train", name)) for name in ("mine", "other"))
    admin = bearer(token(service, "admin"))
    body = FORM | {"data_path": str(service.data)}
    jobs = [
        service.post("/api/training/regular", body, headers=mine).json()["task_id"]
        for _ in range(4)
    ]
    assert service.get(f"/jobs/{jobs[0]}", headers=other)["started_by"] == "mine"
    for path in (f"/jobs/{jobs[0]}/cancel", f"/api/training/tasks/{jobs[0]}/cancel"):
        refused = service.post(path, headers=other)
        assert refused.status_code == 403
        assert "another caller" in refused.json()["message"]
        assert "'admin'" in refused.json()["message"]
    stop = service.call(service.app, "DELETE", f"/train/{jobs[0]}", headers=other)
    assert stop.status_code == 403
    assert service.post(f"/jobs/{jobs[0]}/cancel", headers=mine).status_code == 200
    assert service.post(f"/api/training/tasks/{jobs[1]}/cancel", headers=mine).status_code == 200
    assert service.post(f"/jobs/{jobs[2]}/cancel", headers=admin).status_code == 200
    named = token(service, "train", "Mine2")
    service.gateway.access.tokens.revoke("mine", "tests")
    again = bearer(token(service, "train", "mine"))  # its secret was renewed
    assert service.post(f"/jobs/{jobs[3]}/cancel", headers=bearer(named)).status_code == 403
    assert service.post(f"/jobs/{jobs[3]}/cancel", headers=again).status_code == 200


@pytest.mark.parametrize("path", ["/train", "/api/training/regular"])
def test_a_training_token_has_nothing_promoted(service: Service, path: str) -> None:
    first = {"model_id": "s", "dataset_path": str(service.data), "epochs": 1, "batch_size": 1}
    bodies = {
        "/train": first | {"parameters": {"promote": "auto"}},
        "/api/training/regular": FORM | {"data_path": str(service.data), "promote": "auto"},
    }
    refused = service.post(path, bodies[path], headers=bearer(token(service, "train")))
    assert refused.status_code == 403, refused.text
    assert "'promote': 'auto' needs 'admin'" in refused.json()["message"]
    assert service.jobs.list() == []


def test_changes_are_in_the_trail_and_reading_is_not(service: Service) -> None:
    anna = bearer(token(service, "train", "anna"))
    job = service.post(
        "/api/training/regular", FORM | {"data_path": str(service.data)}, headers=anna
    ).json()["task_id"]
    service.get("/jobs", headers=anna)
    service.post("/api/training/regular", {}, headers=anna)  # 400: nothing was changed
    service.post("/api/datasets/check", {"data_path": str(service.data)}, headers=anna)
    service.post(f"/jobs/{job}/cancel", headers=anna | {"X-Request-ID": "cancel-1"})
    started, cancelled = trail(service, 2)
    service.gateway.access.stop()
    assert len(service.gateway.access.trail.list()) == 2
    assert (started.who, started.method, started.route, started.status, started.target) == (
        "anna", "POST", "/api/training/regular", 200, job,
    )  # fmt: skip
    assert started.address == "127.0.0.1"
    assert started.what.startswith("started a training (regular)")
    assert (cancelled.route, cancelled.target) == ("/jobs/{job_id}/cancel", job)
    assert cancelled.request_id == "cancel-1"
    assert started.request_id == service.jobs.get(job).request_id is not None


def test_what_a_task_does_is_in_the_trail_when_it_does_it(service: Service) -> None:
    """BentoML runs tasks in the background of their responses."""

    async def nothing() -> None: ...

    async def promote() -> None:
        with suppress(Forbidden):
            require_for("admin", "'promote': 'auto'")

    async def start() -> None:
        changed("started a training", "job1")
        await asyncio.to_thread(trail, service, 2)  # while the request has not ended

    async def submit(request: Request) -> JSONResponse:
        work = {"refused": promote, "started": start, "failed": nothing}
        return JSONResponse({}, background=BackgroundTask(work[request.path_params["how"]]))

    native = Starlette(routes=[Route("/tasks/{how}/submit", submit, methods=["POST"])])
    settings = Settings(home=service.gateway.settings.home)
    app = with_middleware(native, settings, lambda: service.gateway.access)
    headers = bearer(token(service, "train", "anna")) | {"X-Request-ID": "of-anna"}
    for how in ("failed", "refused", "started"):
        answer = service.call(app, "POST", f"/tasks/{how}/submit", headers=headers)
        assert answer.status_code == 200
    service.gateway.access.stop()
    found = [
        (row.who, row.route, row.status, row.target, row.what[:18], row.request_id)
        for row in service.gateway.access.trail.list()
    ]
    assert found == [
        ("anna", "/tasks/started/submit", 200, "job1", "started a training", "of-anna"),
        ("anna", "/tasks/refused/submit", 403, None, "The token 'anna' h", "of-anna"),
    ]


def test_refusals_are_in_the_trail_once_an_hour(service: Service) -> None:
    secret = token(service, "use", "ann")
    for _ in range(3):
        service.post("/models/nothing/promote", headers=bearer(secret))
        service.call(service.app, "DELETE", f"/tokens/{secret}")
    lacking, unknown = trail(service, 2)
    service.gateway.access.stop()
    assert len(service.gateway.access.trail.list()) == 2
    assert (lacking.who, lacking.status, lacking.target) == ("ann", 403, "nothing")
    assert "needs 'admin'" in lacking.what
    assert (unknown.who, unknown.status, unknown.route) == ("open", 401, "/tokens/vl_…")


def test_a_flood_of_strangers_is_bounded_and_hides_no_token(service: Service) -> None:
    headers = bearer(token(service, "use", "ann"))
    for number in range(MOST_REFUSALS + 20):
        assert service.call(service.app, "GET", f"/nothing/{number}").status_code == 401
    assert service.post("/models/nothing/promote", headers=headers).status_code == 403
    trail(service, MOST_REFUSALS + 1)
    service.gateway.access.stop()
    found = service.gateway.access.trail.list(limit=1000)
    assert [row.who for row in found if row.status == 403] == ["ann"]
    assert MOST_REFUSALS <= len(found) - 1 < MOST_REFUSALS + 20


def test_the_trail_is_read_in_pages(service: Service) -> None:
    admin = bearer(token(service, "admin"))
    for name in ("a", "b", "c"):
        service.post("/tokens", {"name": name, "scope": "use"}, headers=admin)
    trail(service, 3)
    page = service.get("/audit", params={"limit": 2}, headers=admin)
    assert [row["target"] for row in page["entries"]] == ["c", "b"]
    last = service.get("/audit", params={"limit": 2, "before": page["next"]}, headers=admin)
    assert [row["target"] for row in last["entries"]] == ["a"]
    assert last["next"] is None
    assert service.get("/audit", params={"who": "nobody"}, headers=admin)["entries"] == []
    assert service.get(
        "/audit", params={"what": "scope use", "since": "1h"}, headers=admin
    )["entries"]  # fmt: skip
    wrong = service.call(service.app, "GET", "/audit?since=monday", headers=admin)
    assert wrong.status_code == 400
    assert "'since'" in wrong.json()["message"]
    for number in ("0", str(2**63), "9" * 5000):
        wrong = service.call(service.app, "GET", f"/audit?before={number}", headers=admin)
        assert wrong.status_code == 400
        assert "'before'" in wrong.json()["message"]


def test_jobs_are_limited_by_the_tokens_name(service: Service) -> None:
    settings = service.gateway.settings.model_copy(update={"jobs_per_token": 1})
    service.gateway.registry.database.settings = settings
    body = FORM | {"data_path": str(service.data)}
    anna, bert = (bearer(token(service, "train", name)) for name in ("anna", "bert"))
    statuses = [
        service.post("/api/training/regular", body, headers=headers).status_code
        for headers in (anna, anna, bert)
    ]
    assert statuses == [200, 429, 200]


def test_a_closed_server_may_be_called_by_any_name(service: Service, call: Call) -> None:
    app: ASGIApp = service.app
    headers = {"Host": "labels.example"}
    assert call(app, "GET", "/tokens/self", headers=headers).status_code == 403
    secret = token(service, "use")
    open_names = Settings(home=service.gateway.settings.home)
    named = with_middleware(service.fastapi, open_names, lambda: service.gateway.access)
    assert call(named, "GET", "/tokens/self", headers=headers | bearer(secret)).status_code == 200
