from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import httpx
import pytest

from errors import (
    BackendTimeout,
    Forbidden,
    PayloadTooLarge,
    ValidationFailed,
    VisionLoopError,
)
from serving.fetch import fetch, is_public
from serving.fetch import resolve as system_resolve
from settings import Settings
from tests.support.patience import PATIENCE

PUBLIC = "93.184.216.34"
NAMES = {
    "example.org": [PUBLIC],
    "six.example": ["2606:2800:220:1:248:1893:25c8:1946"],
    "inside.example": ["10.0.0.7"],
    "mixed.example": [PUBLIC, "127.0.0.1"],
    "nothing.example": [],
}


class Stream(httpx.AsyncByteStream):
    """A body that arrives in pieces, and counts those that were taken."""

    def __init__(self, *pieces: bytes, endless: bool = False) -> None:
        self.pieces = pieces
        self.endless = endless
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            for piece in self.pieces:
                self.taken += 1
                yield piece
            if not self.endless:
                return


def ok(*pieces: bytes) -> httpx.Response:
    return httpx.Response(200, stream=Stream(*pieces))


async def resolve(host: str, port: int) -> list[str]:
    if host in NAMES:
        return NAMES[host]
    try:
        return [str(ip_address(host))]
    except ValueError:
        raise OSError("no such name") from None


def get(
    url: str,
    answer: Callable[[httpx.Request], httpx.Response] = lambda _: ok(b"!"),
    **settings: object,
) -> bytes:
    chosen = Settings.model_validate({"image_url": "public"} | settings)
    return asyncio.run(fetch(url, chosen, resolve, httpx.MockTransport(answer)))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        (PUBLIC, True),
        ("1.1.1.1", True),
        ("2606:4700:4700::1111", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("192.0.0.8", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("239.1.1.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::127.0.0.1", False),
        ("::ffff:1.1.1.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::1", False),
        ("2002:7f00:1::", False),
        ("2001::1", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("2001:db8::1", False),
    ],
)
def test_only_addresses_of_the_open_internet_are_public(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public


def test_off_is_forbidden_and_names_the_setting() -> None:
    with pytest.raises(Forbidden, match="VISIONLOOP_IMAGE_URL"):
        get("http://example.org/a.jpg", image_url="off")


def test_it_connects_to_the_checked_address_under_the_urls_name() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return ok(b"by", b"tes")

    assert get("https://example.org:8443/a.jpg?b=1", answer) == b"bytes"
    assert get("https://six.example/a", answer) == b"bytes"
    first, second = seen
    assert first.url == f"https://{PUBLIC}:8443/a.jpg?b=1"
    assert first.headers["Host"] == "example.org:8443"
    assert first.extensions["sni_hostname"] == "example.org"
    assert second.url.host == NAMES["six.example"][0]


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("ftp://example.org/a", ValidationFailed),
        ("file:///etc/passwd", ValidationFailed),
        ("/etc/passwd", ValidationFailed),
        ("http://", ValidationFailed),
        ("http://[::1", ValidationFailed),
        ("http://example.org:99999/a.jpg", ValidationFailed),
        ("http://example.org:65536/a.jpg", ValidationFailed),
        ("http://example.org:0/a.jpg", ValidationFailed),
        ("http://example.org:-1/a.jpg", ValidationFailed),
        (f"http://example.org:{'9' * 400}/a.jpg", ValidationFailed),
        ("http://exa mple.org/", ValidationFailed),
        ("http://user:secret@example.org/a", ValidationFailed),
        ("http://unknown.example/a", ValidationFailed),
        ("http://" + "a" * 9000, ValidationFailed),
        ("http://nothing.example/a", Forbidden),
        ("http://inside.example/a", Forbidden),
        ("http://mixed.example/a", Forbidden),
        ("http://127.0.0.1:3000/models", Forbidden),
        ("http://[::1]/a", Forbidden),
        ("http://[::ffff:127.0.0.1]/a", Forbidden),
        ("http://169.254.169.254/latest/meta-data", Forbidden),
    ],
)
def test_urls_that_are_refused(url: str, error: type[VisionLoopError]) -> None:
    with pytest.raises(error):
        get(url)


def test_each_redirect_is_checked_again() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"Location": "http://inside.example/secret"})

    with pytest.raises(Forbidden):
        get("http://example.org/", answer)


@pytest.mark.parametrize(("hops", "arrives"), [(0, True), (3, True), (4, False)])
def test_three_redirects_are_followed_and_no_more(hops: int, arrives: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        step = int(request.url.path.strip("/") or 0)
        if step < hops:
            return httpx.Response(307, headers={"Location": f"/{step + 1}"})
        return ok(b"there")

    if arrives:
        assert get("http://example.org/0", answer) == b"there"
    else:
        with pytest.raises(ValidationFailed, match="redirects"):
            get("http://example.org/0", answer)


def test_a_body_above_the_limit_is_not_read_to_its_end() -> None:
    stream = Stream(b"\0" * 65536, endless=True)
    with pytest.raises(PayloadTooLarge):
        get("http://example.org/", lambda _: httpx.Response(200, stream=stream), max_body_mb=1)
    assert stream.taken == 17


def test_a_slow_server_times_out() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(PATIENCE)
        return httpx.Response(200)

    with pytest.raises(BackendTimeout):
        get("http://example.org/", answer, image_url_timeout=0.05)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [204, 304, 404, 500])
def test_an_answer_that_is_no_image_is_named_by_its_status(status: int) -> None:
    with pytest.raises(ValidationFailed, match=str(status)):
        get("http://example.org/", lambda _: httpx.Response(status))


def test_slow_name_servers_keep_nobody_else_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def look_up(*_: object, **__: object) -> list[tuple[object, ...]]:
        assert answered.wait(PATIENCE)
        return [(0, 0, 0, "", (PUBLIC, 80))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    async def run() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        asked = [asyncio.create_task(system_resolve("slow.example", 80)) for _ in range(3)]
        await asyncio.sleep(0.05)
        try:
            assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), PATIENCE) == 7
        finally:
            answered.set()
        assert await asyncio.gather(*asked) == [[PUBLIC]] * 3

    asyncio.run(run())
