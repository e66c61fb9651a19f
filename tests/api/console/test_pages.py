"""`/` and the console's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from api.console import pages
from api.console.pages import Assets
from errors import NotFound
from tests.support.training_app import Service

HTML = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
SCRIPT = "console.log('a long line, so that it packs');\n" * 50


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A built console: a folder with its three files, which the pages come from."""
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>the console</title>\n")
    (folder / "main.js").write_text(SCRIPT)
    (folder / "main.css").write_text("body { margin: 0 }\n")
    monkeypatch.setattr(pages, "assets", Assets(folder))
    return folder


def get(service: Service, path: str = "/", **headers: str) -> httpx.Response:
    return service.call(service.app, "GET", path, headers=headers)


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (HTML["Accept"], True),
        ("text/html", True),
        ("application/json, text/html;q=0.1", True),
        ("text/html;q=0, */*", False),
        ("*/*", False),  # curl
        ("", False),
        ("text/*", False),
        ("application/json", False),
    ],
)
def test_browsers_get_the_console_and_others_what_the_service_is(
    service: Service, built: Path, accept: str, html: bool
) -> None:
    answer = get(service, Accept=accept)
    assert answer.status_code == 200
    assert "Accept" in answer.headers["Vary"]
    if html:
        assert "<title>the console</title>" in answer.text
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    else:
        told = answer.json()
        assert told["try"] == "curl -F image=@photo.jpg http://localhost/infer"
        for name in ("docs", "openapi", "session"):
            path = told[name].removeprefix("http://localhost")
            assert get(service, path).is_success, path


def test_the_policy_of_the_console_is_strict(service: Service, built: Path) -> None:
    for path in ("/", "/console/main.js", "/console/main.css"):
        headers = get(service, path, **HTML).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert headers["Cache-Control"] == "no-cache"
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert "'unsafe-inline'" in get(service, "/docs").headers["Content-Security-Policy"]


def test_files_are_packed_for_those_who_accept_it(service: Service, built: Path) -> None:
    packed = get(service, "/console/main.js", **{"Accept-Encoding": "br, gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < len(SCRIPT) / 4
    plain = get(service, "/console/main.js", **{"Accept-Encoding": "gzip;q=0"})
    assert "Content-Encoding" not in plain.headers
    assert packed.text == plain.text == SCRIPT
    assert packed.headers["ETag"] == plain.headers["ETag"]
    assert "Accept-Encoding" in plain.headers["Vary"]
    assert "javascript" in plain.headers["Content-Type"]


@pytest.mark.parametrize("form", ["{}", '"other", {}', "*"])
@pytest.mark.parametrize("path", ["/", "/console/main.js"])
def test_what_a_browser_has_is_not_sent_again(
    service: Service, built: Path, path: str, form: str
) -> None:
    tag = get(service, path, **HTML).headers["ETag"]
    again = get(service, path, **HTML, **{"If-None-Match": form.format(tag)})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["ETag"] == tag
    assert "Content-Security-Policy" in again.headers
    assert get(service, path, **HTML, **{"If-None-Match": '"other"'}).status_code == 200


def test_a_console_that_was_built_again_is_seen(service: Service, built: Path) -> None:
    before = get(service, "/console/main.js")
    (built / "main.js").write_text("changed()\n")
    after = get(service, "/console/main.js", **{"If-None-Match": before.headers["ETag"]})
    assert after.text == "changed()\n"
    assert after.headers["ETag"] != before.headers["ETag"]


def test_a_checkout_without_a_built_console_says_how_to_build_it(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "assets", Assets(tmp_path / "none"))
    page = get(service, **HTML)
    assert page.status_code == 200
    assert "make console" in page.text
    assert page.headers["Cache-Control"] == "no-store"
    missing = get(service, "/console/main.js")
    assert missing.status_code == 404
    assert "make console" in missing.json()["message"]


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fpackage.json", ".hidden", "a%00b", "x" * 300])
def test_nothing_else_is_served(service: Service, built: Path, name: str) -> None:
    (built / ".hidden").write_text("secret")
    (built.parent / "package.json").write_text("{}")
    assert get(service, f"/console/{name}").status_code in (400, 401, 404)


@pytest.mark.parametrize("name", ["../package.json", "a/../../b", "", ".", "..", "a\0b"])
def test_a_name_stays_in_the_folder(built: Path, name: str) -> None:
    with pytest.raises((NotFound, ValueError)):
        Assets(built).get(name)


def test_the_page_needs_no_token_and_a_foreign_method_is_named(
    service: Service, built: Path
) -> None:
    service.gateway.access.tokens.create("anna", "admin", "tests")
    for path in ("/", "/console/main.js", "/console/main.css"):
        assert get(service, path, **HTML).status_code == 200, path
    refused = service.call(service.app, "POST", "/console/main.js")
    assert refused.status_code == 405


def test_the_address_in_the_description_has_the_prefix(
    service: Service, call: Callable[..., httpx.Response]
) -> None:
    from api.app import with_middleware
    from settings import Settings

    settings = Settings(
        home=service.gateway.settings.home, root_path="/vision", hosts=("localhost",)
    )
    app = with_middleware(service.fastapi, settings, lambda: service.gateway.access)
    told = call(app, "GET", "/vision/").json()
    assert told["docs"] == "http://localhost/vision/docs"
