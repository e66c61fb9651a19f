"""`/session`, and requests by its cookie."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers
from starlette.types import ASGIApp

from access.control import AccessControl
from api.app import create_app, with_middleware
from api.middleware.session_cookie import cookie_name, same_origin, sent_cookies
from database import Database
from models_store.registry import Registry
from serving.gateway import Gateway
from settings import Settings
from tests.support.patience import wait_until
from tests.support.training_app import Service

Call = Callable[..., httpx.Response]
OURS = {"Origin": "http://localhost"}
CHANGE = ("POST", "/models/active", {"model_id": "nothing"})  # a 404 to whoever may change it
NAME = "visionloop_session"


@pytest.fixture
def app_with(service: Service) -> Iterator[Callable[..., ASGIApp]]:
    """The application with other settings, on the home of `service`, and its access control."""
    opened: list[Gateway] = []

    def build(**values: Any) -> ASGIApp:
        values = {"home": service.gateway.settings.home, "device": "cpu"} | values
        settings = Settings.model_validate(values)
        nobody: Any = {"detector": None, "annotator": None}
        gateway = Gateway(settings, Registry(Database(settings)), nobody)
        opened.append(gateway)
        return with_middleware(create_app(gateway), settings, lambda: gateway.access)

    yield build
    for gateway in opened:
        gateway.access.stop()
        gateway.registry.database.close()


def named(service: Service, scope: str = "admin", name: str = "anna", until: Any = None) -> str:
    made = service.gateway.access.tokens.create(name, scope, "tests", until)
    return made[1]


def sign_in(call: Call, app: ASGIApp, token: str, **options: Any) -> httpx.Response:
    headers = OURS | options.pop("headers", {})
    return call(app, "POST", "/session", json={"token": token}, headers=headers, **options)


def cookie_of(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 200, answer.text
    return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}


def status(call: Call, app: ASGIApp, headers: dict[str, str], path: str = "/jobs") -> int:
    return call(app, "GET", path, headers=headers).status_code


# --- what GET /session tells


def test_an_open_server_says_so(service: Service) -> None:
    told = service.get("/session")
    assert (told["token_needed"], told["can_sign_in"], told["signed_in"]) == (False, False, False)
    assert told["who"] == "open"
    assert told["scopes"] == ["use", "annotate", "train", "admin"]
    assert told["version"]
    assert told["limits"]["pixels"] == service.gateway.settings.max_pixels
    assert "onnx" in told["parts"]["exports"]
    assert told["parts"]["image_url"] is False


def test_a_closed_server_tells_a_stranger_nothing_but_that(service: Service) -> None:
    named(service, name="secretive")
    answer = service.call(service.app, "GET", "/session")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json() == {
        "token_needed": True,
        "can_sign_in": True,
        "signed_in": False,
        "who": "open",
        "scopes": [],
        "expires_at": None,
        "version": None,
        "limits": None,
        "parts": None,
    }
    assert "secretive" not in answer.text


def test_a_session_tells_whose_it_is(service: Service) -> None:
    answer = sign_in(service.call, service.app, named(service, "train"))
    told = answer.json()
    assert (told["signed_in"], told["who"]) == (True, "anna")
    assert told["scopes"] == ["use", "annotate", "train"]
    assert told["expires_at"]
    assert service.get("/session", headers=cookie_of(answer)) == told
    assert service.get("/tokens/self", headers=cookie_of(answer))["name"] == "anna"


# --- the cookie


def test_the_cookie_is_not_the_token_and_scripts_cannot_read_it(service: Service) -> None:
    token = named(service)
    line = sign_in(service.call, service.app, token).headers["Set-Cookie"]
    assert token not in line
    assert token.rpartition("_")[2] not in line
    value, *attributes = line.split("; ")
    assert re.fullmatch(rf"{NAME}=[\w-]{{43}}", value)
    found = dict(part.lower().partition("=")[::2] for part in attributes)
    assert found.pop("httponly") == ""
    assert 6 * 24 * 3600 < int(found.pop("max-age")) <= 7 * 24 * 3600
    assert found == {"samesite": "strict", "path": "/"}


@pytest.mark.parametrize(
    ("origin", "secure"), [("https://localhost", True), ("http://localhost", False)]
)
def test_the_cookie_is_secure_over_https(service: Service, origin: str, secure: bool) -> None:
    answer = sign_in(service.call, service.app, named(service), headers={"Origin": origin})
    assert ("secure" in answer.headers["Set-Cookie"].lower().split("; ")) is secure


def test_behind_a_prefix_the_cookie_is_sent_below_it_only(
    service: Service, app_with: Callable[..., ASGIApp]
) -> None:
    app = app_with(root_path="/vision")
    answer = sign_in(service.call, app, named(service))
    assert "Path=/vision;" in answer.headers["Set-Cookie"]
    assert status(service.call, app, cookie_of(answer), "/vision/jobs") == 200
    ended = service.call(app, "DELETE", "/vision/session", headers=cookie_of(answer) | OURS)
    assert "Path=/vision;" in ended.headers["Set-Cookie"]


def test_servers_on_several_ports_of_a_host_have_cookies_of_their_own() -> None:
    assert cookie_name(Headers({"host": "localhost:3001"})) == f"{NAME}_3001"
    assert cookie_name(Headers({"host": "[::1]:3001"})) == f"{NAME}_3001"
    assert cookie_name(Headers({"host": "[::1]"})) == NAME
    sent = Headers({"host": "a:1", "cookie": f"x=1; {NAME}_1=one; {NAME}_2=two; {NAME}_1=old"})
    assert list(sent_cookies(sent)) == ["one", "old"]


def test_the_cookie_of_the_longest_path_may_have_ended(service: Service) -> None:
    good = cookie_of(sign_in(service.call, service.app, named(service)))["Cookie"]
    assert status(service.call, service.app, {"Cookie": f"{NAME}={'x' * 43}; {good}"}) == 200


# --- wrong tokens


def test_a_wrong_token_opens_nothing_and_is_in_the_audit_trail(service: Service) -> None:
    named(service)
    answer = sign_in(service.call, service.app, "vl_" + "0" * 12 + "_" + "a" * 43)
    assert answer.status_code == 401
    assert "unknown" in answer.json()["message"]
    assert "Set-Cookie" not in answer.headers
    log = service.gateway.access.trail
    assert wait_until(lambda: log.list(what="unknown"), pause=0.01)
    (entry,) = log.list(what="unknown")
    assert (entry.who, entry.route, entry.status) == ("open", "/session", 401)


def test_guesses_count_towards_the_rate_limit(call: Call, app_with: Callable[..., ASGIApp]) -> None:
    app = app_with(token="t", rate_limit=0.02)  # one in 50 seconds, however slow the machine is
    found = [sign_in(call, app, f"guess {number}").status_code for number in range(3)]
    assert found == [401, 429, 429]


def test_a_revoked_token_opens_no_session(service: Service) -> None:
    token = named(service)
    service.gateway.access.tokens.revoke("anna", "tests")
    answer = sign_in(service.call, service.app, token)
    assert answer.status_code == 401
    assert "'anna' was revoked" in answer.json()["message"]


def test_a_body_that_is_not_understood_is_refused(service: Service) -> None:
    for body in ({}, {"token": ""}, {"token": 3}, {"tokn": "a"}):
        answer = service.call(service.app, "POST", "/session", json=body, headers=OURS)
        assert answer.status_code == 400, body
    form = service.call(service.app, "POST", "/session", data={"token": "a"}, headers=OURS)
    assert form.status_code == 400


# --- requests by cookie


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, False),
        ({"Origin": "http://localhost"}, True),
        ({"Origin": "https://localhost"}, True),  # a proxy took TLS
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "http://localhost:8000"}, False),
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Origin": "https://allowed.example"}, False),  # named for tokens, not for cookies
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}, False),
    ],
)
def test_what_changes_something_must_come_from_our_own_pages(
    service: Service,
    app_with: Callable[..., ASGIApp],
    headers: dict[str, str],
    allowed: bool,
) -> None:
    app = app_with(cors_origins=("https://allowed.example",))
    cookie = cookie_of(sign_in(service.call, app, named(service)))
    method, path, body = CHANGE
    answer = service.call(app, method, path, json=body, headers=cookie | headers)
    assert answer.status_code == (404 if allowed else 403), answer.text
    if not headers:
        assert "Authorization: Bearer" in answer.json()["message"]
    assert status(service.call, app, cookie | headers) == 200  # reading is fine


def test_a_token_in_a_header_needs_no_origin_and_comes_first(service: Service) -> None:
    admin, reader = named(service, "admin"), named(service, "use", "reader")
    cookie = cookie_of(sign_in(service.call, service.app, admin))
    method, path, body = CHANGE
    bearer = {"Authorization": f"Bearer {admin}"}
    both = service.call(service.app, method, path, json=body, headers=cookie | bearer)
    assert both.status_code == 404
    bearer = {"Authorization": f"Bearer {reader}"}
    assert service.get("/tokens/self", headers=cookie | bearer)["name"] == "reader"
    wrong = cookie | {"Authorization": "Bearer wrong"}
    assert status(service.call, service.app, wrong) == 401


def test_a_session_may_do_what_its_token_may(service: Service) -> None:
    cookie = cookie_of(sign_in(service.call, service.app, named(service, "annotate")))
    method, path, body = CHANGE
    answer = service.call(service.app, method, path, json=body, headers=cookie | OURS)
    assert answer.status_code == 403
    assert "'anna' has the scope 'annotate'" in answer.json()["message"]


def test_the_audit_trail_names_the_token(service: Service) -> None:
    cookie = cookie_of(sign_in(service.call, service.app, named(service)))
    made = {"name": "bob", "scope": "use"}
    answer = service.call(service.app, "POST", "/tokens", json=made, headers=cookie | OURS)
    assert answer.status_code == 201
    assert service.call(service.app, "DELETE", "/session", headers=cookie | OURS).is_success
    log = service.gateway.access.trail
    assert wait_until(lambda: len(log.list(who="anna")) == 3, pause=0.01)
    told = [entry.what for entry in log.list(who="anna")]
    assert told == ["signed out", "created a token with the scope use", "signed in"]


def test_the_rate_limit_is_that_of_the_token(
    service: Service, app_with: Callable[..., ASGIApp]
) -> None:
    token = named(service, "use")
    app = app_with(rate_limit=2)
    cookie = cookie_of(sign_in(service.call, app, token))
    found = [status(service.call, app, cookie) for _ in range(2)]
    bearer = {"Authorization": f"Bearer {token}"}
    found += [status(service.call, app, bearer) for _ in range(2)]
    assert found[:2] == [200, 200]
    assert found[-1] == 429


# --- its end


def test_signing_out_ends_the_session_for_every_gateway(
    service: Service, app_with: Callable[..., ASGIApp]
) -> None:
    other = app_with()
    cookie = cookie_of(sign_in(service.call, service.app, named(service)))
    assert status(service.call, other, cookie) == 200
    answer = service.call(other, "DELETE", "/session", headers=cookie | OURS)
    assert answer.status_code == 204
    assert "Max-Age=0" in answer.headers["Set-Cookie"]
    for app in (service.app, other):
        refused = service.call(app, "GET", "/jobs", headers=cookie)
        assert refused.status_code == 401
        assert "Sign in again" in refused.json()["message"]


def test_nobody_else_can_sign_out(service: Service) -> None:
    cookie = cookie_of(sign_in(service.call, service.app, named(service)))
    for headers in ({}, {"Origin": "http://localhost:8000"}):
        answer = service.call(service.app, "DELETE", "/session", headers=cookie | headers)
        assert answer.status_code == 403
    assert status(service.call, service.app, cookie) == 200


def test_signing_out_without_a_session_is_no_error(service: Service) -> None:
    assert service.call(service.app, "DELETE", "/session").status_code == 204


def test_signing_in_again_ends_the_session_of_before(service: Service) -> None:
    token = named(service)
    first = cookie_of(sign_in(service.call, service.app, token))
    second = cookie_of(sign_in(service.call, service.app, token, headers=first))
    assert status(service.call, service.app, first) == 401
    assert status(service.call, service.app, second) == 200


def test_a_session_ends_with_its_token(service: Service, app_with: Callable[..., ASGIApp]) -> None:
    other = app_with()
    cookie = cookie_of(sign_in(service.call, service.app, named(service)))
    assert status(service.call, other, cookie) == 200
    service.gateway.access.tokens.revoke("anna", "tests")
    for app in (service.app, other):
        refused = service.call(app, "GET", "/jobs", headers=cookie)
        assert refused.status_code == 401
        assert "'anna' was revoked" in refused.json()["message"]
    told = service.get("/session", headers=cookie)
    assert (told["signed_in"], told["who"], told["scopes"]) == (False, "open", [])


def test_a_session_ends_when_its_token_expires(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = "2100-01-01T00:00:00.000+00:00"
    cookie = cookie_of(sign_in(service.call, service.app, named(service, until=until)))
    assert status(service.call, service.app, cookie) == 200
    monkeypatch.setattr("access.tokens.now", lambda: until)
    refused = service.call(service.app, "GET", "/jobs", headers=cookie)
    assert refused.status_code == 401
    assert "'anna' has expired" in refused.json()["message"]


def test_a_session_ends_when_the_token_of_the_environment_changes(
    call: Call, app_with: Callable[..., ASGIApp]
) -> None:
    before = {"token": "use-me", "admin_token": "change-me"}
    cookie = cookie_of(sign_in(call, app_with(**before), "change-me"))
    method, path, body = CHANGE
    for settings, expected in (
        (before, 404),
        ({"token": "change-me"}, 404),  # the same token, under the other name
        ({"token": "use-me", "admin_token": "another"}, 401),
        ({"token": "use-me"}, 401),
    ):
        answer = call(app_with(**settings), method, path, json=body, headers=cookie | OURS)
        assert answer.status_code == expected, settings


def test_two_access_controls_on_one_database(service: Service) -> None:
    cookie = cookie_of(sign_in(service.call, service.app, named(service)))
    other = AccessControl.open(Settings(home=service.gateway.settings.home))
    value = cookie["Cookie"].partition("=")[2]
    assert other.live.session(value) is not None
    service.call(service.app, "DELETE", "/session", headers=cookie | OURS)
    assert other.live.session(value) is None
    other.tokens.database.close()


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({"host": "a:3000", "origin": "http://a:3000"}, True),
        ({"host": "A:3000", "origin": "http://a:3000"}, True),
        ({"host": "a", "origin": "http://a:3000"}, False),
        ({"host": "a", "origin": "null"}, False),
        ({"origin": "null"}, False),
        ({"host": "", "origin": ""}, False),
        ({"host": "a"}, False),
        ({"host": "a", "sec-fetch-site": "same-origin"}, True),
        ({"host": "a", "origin": "http://b", "sec-fetch-site": "same-origin"}, False),
    ],
)
def test_what_comes_from_our_own_pages(headers: dict[str, str], same: bool) -> None:
    assert same_origin(Headers(headers)) is same
