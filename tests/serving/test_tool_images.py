"""Pictures of an annotation tool: its token goes to its own host, and nowhere else."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from errors import BackendTimeout, Forbidden, InvalidImage, PayloadTooLarge, ValidationFailed
from serving.tool_images import ToolImages
from settings import Settings
from tests.support.patience import PATIENCE

HOST = "http://labels.example:8080"
LEGACY = "0123456789abcdef"
PERSONAL = "head.payload.signature"

Handler = Callable[[httpx.Request], httpx.Response]


def images(handler: Handler, token: str | None = LEGACY, **more: object) -> ToolImages:
    values = {"label_studio_url": HOST, "label_studio_token": token} | more
    return ToolImages(Settings.model_validate(values), httpx.MockTransport(handler))


def get(tool: ToolImages, address: str) -> bytes:
    return asyncio.run(tool.get(address))


def picture(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=str(request.url).encode())


@pytest.mark.parametrize(
    ("address", "fetched"),
    [
        ("/data/upload/1/a.jpg", f"{HOST}/data/upload/1/a.jpg"),
        ("/data/local-files/?d=a/b.jpg", f"{HOST}/data/local-files/?d=a/b.jpg"),
        ("/tasks/3/resolve/?fileuri=czM6", f"{HOST}/tasks/3/resolve/?fileuri=czM6"),
        (f"{HOST}/data/upload/1/a.jpg", f"{HOST}/data/upload/1/a.jpg"),
    ],
)
def test_its_own_paths_are_fetched_there(address: str, fetched: str) -> None:
    assert get(images(picture), address) == fetched.encode()


def test_it_may_live_below_a_path_of_its_host() -> None:
    tool = images(picture, label_studio_url=f"{HOST}/labels/")
    assert get(tool, "/data/upload/a.jpg") == f"{HOST}/labels/data/upload/a.jpg".encode()
    assert get(tool, "/labels/data/upload/a.jpg") == f"{HOST}/labels/data/upload/a.jpg".encode()


def test_a_legacy_token_is_sent_as_it_is() -> None:
    seen = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        # the tool answers 406 to those who accept pictures only
        assert request.headers["accept"] == "*/*"
        return picture(request)

    get(images(handler), "/data/upload/1/a.jpg")
    assert seen == [f"Token {LEGACY}"]


def test_a_personal_token_is_exchanged_once() -> None:
    seen = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/token/refresh":
            assert json.loads(request.content) == {"refresh": PERSONAL}
            return httpx.Response(200, json={"access": "short"})
        seen.append(request.headers["authorization"])
        return picture(request)

    tool = images(handler, PERSONAL)

    async def twice() -> None:
        await asyncio.gather(tool.get("/data/a.jpg"), tool.get("/data/b.jpg"))

    asyncio.run(twice())
    assert seen == ["Bearer short"] * 2


@pytest.mark.parametrize(
    "address",
    [
        "/api/current-user/token",
        "/user/account",
        "/data/../api/current-user/token",
        "/data/%2e%2e/api/current-user/token",
        f"{HOST}/api/projects/1/export",
        f"{HOST}/admin/",
    ],
)
def test_with_its_token_nothing_but_pictures_is_asked_for(address: str) -> None:
    def never(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.url)

    with pytest.raises((Forbidden, ValidationFailed)):
        get(images(never), address)


@pytest.mark.parametrize(
    "address",
    [
        "http://labels.example/data/upload/1/a.jpg",  # another port
        "https://labels.example:8080/data/upload/1/a.jpg",
        "http://labels.example.evil:8080/data/upload/1/a.jpg",
        "http://elsewhere.example/a.jpg",
        "http://labels.example:8080@evil.example/data/a.jpg",
    ],
)
def test_everything_else_obeys_the_policy_for_addresses(address: str) -> None:
    with pytest.raises(Forbidden, match="VISIONLOOP_IMAGE_URL"):
        get(images(picture), address)


def test_a_redirect_to_elsewhere_takes_no_token_along() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"location": "http://169.254.169.254/a.jpg"})

    with pytest.raises(Forbidden, match="VISIONLOOP_IMAGE_URL"):
        get(images(handler), "/tasks/1/resolve/?fileuri=x")
    with pytest.raises(Forbidden, match="public address"):
        get(images(handler, image_url="public"), "/tasks/1/resolve/?fileuri=x")


class Body(httpx.AsyncByteStream):
    """A body that has not been read yet."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"elsewhere"


@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
def test_the_host_of_a_redirect_never_sees_the_token(token: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/token/refresh":
            return httpx.Response(200, json={"access": "short"})
        if request.headers["host"] == "labels.example:8080":
            assert request.headers["authorization"] in (f"Token {LEGACY}", "Bearer short")
            return httpx.Response(302, headers={"location": "http://93.184.215.14/a.jpg"})
        assert "authorization" not in request.headers
        assert "cookie" not in request.headers
        return httpx.Response(200, stream=Body())

    tool = images(handler, token, image_url="public")
    assert get(tool, "/tasks/1/resolve/?fileuri=x") == b"elsewhere"


@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
def test_its_api_and_the_exchange_of_tokens_follow_no_redirect(token: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["host"] == "labels.example:8080"
        return httpx.Response(307, headers={"location": "http://93.184.215.14/"})

    with pytest.raises(ValidationFailed, match=r"30[27]"):
        asyncio.run(images(handler, token).document("/api/projects/1"))


def test_a_redirect_within_it_is_followed() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/data/a":
            return httpx.Response(302, headers={"location": "/storage-data/b"})
        return picture(request)

    assert get(images(handler), "/data/a") == f"{HOST}/storage-data/b".encode()


@pytest.mark.parametrize("address", ["/data/upload/1/a.jpg", "/x"])
def test_without_its_address_its_paths_are_refused_with_the_remedy(address: str) -> None:
    tool = ToolImages(Settings(), httpx.MockTransport(picture))
    with pytest.raises(Forbidden, match="VISIONLOOP_LABEL_STUDIO_URL"):
        get(tool, address)


@pytest.mark.parametrize(
    "address", ["//labels.example/a.jpg", "s3://bucket/a.jpg", "file:///etc/passwd", "a.jpg", ""]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValidationFailed, match="cannot be fetched"):
        get(images(picture), address)


def test_data_uris_need_no_host() -> None:
    packed = base64.b64encode(b"bytes").decode()
    assert get(ToolImages(Settings()), f"data:image/png;base64,{packed}") == b"bytes"
    with pytest.raises(InvalidImage):
        get(ToolImages(Settings()), "data:image/png,plain")


@pytest.mark.parametrize(
    ("status", "message"), [(401, "VISIONLOOP_LABEL_STUDIO_TOKEN"), (404, "404"), (500, "500")]
)
def test_its_refusals_are_told(status: int, message: str) -> None:
    with pytest.raises(ValidationFailed, match=message):
        get(images(lambda _: httpx.Response(status)), "/data/a.jpg")


def test_a_token_that_it_refuses_is_told() -> None:
    with pytest.raises(ValidationFailed, match="new access token"):
        get(images(lambda _: httpx.Response(401), PERSONAL), "/data/a.jpg")


def test_a_picture_above_the_limit_is_refused() -> None:
    tool = images(lambda _: httpx.Response(200, content=bytes(3000)), max_body_mb=0.002)
    with pytest.raises(PayloadTooLarge):
        get(tool, "/data/a.jpg")


def test_a_slow_or_absent_host_is_told() -> None:
    async def slow(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(PATIENCE)
        return httpx.Response(200)

    settings = Settings.model_validate({"label_studio_url": HOST, "image_url_timeout": 0.05})
    with pytest.raises(BackendTimeout):
        get(ToolImages(settings, httpx.MockTransport(slow)), "/data/a.jpg")

    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(ValidationFailed, match="cannot be reached"):
        get(images(gone), "/data/a.jpg")


@pytest.mark.parametrize(
    "url", ["labels.example", "ftp://x", "http://a b", "http://u:p@host", "http://host:99999"]
)
def test_an_unusable_address_of_the_tool_stops_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="label_studio_url"):
        Settings.model_validate({"label_studio_url": url})


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/a\nb.jpg",
        "https://[x/y.png",
        f"{HOST}/data/\x00.jpg",
        "/data/" + "a" * 70_000,
        "http://elsewhere.example/" + "a" * 70_000,
    ],
)
def test_an_odd_address_is_refused_like_any_other(address: str) -> None:
    with pytest.raises((Forbidden, ValidationFailed)):
        get(images(picture), address)


@pytest.mark.parametrize("page", ["<html>Log in</html>", "[]", "{}"])
def test_a_page_in_place_of_a_token_is_told(page: str) -> None:
    with pytest.raises(ValidationFailed, match="VISIONLOOP_LABEL_STUDIO_URL"):
        get(images(lambda _: httpx.Response(200, text=page), PERSONAL), "/data/a.jpg")
