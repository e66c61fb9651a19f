"""Fetches an image by URL without giving access to private networks (SSRF)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx

from errors import BackendTimeout, Forbidden, PayloadTooLarge, ValidationFailed
from settings import Settings

# A separate thread pool: a slow name server must not block the default one.
_resolvers = ThreadPoolExecutor(8, thread_name_prefix="resolve")

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]

REDIRECTS = 3
HIGHEST_PORT = 65535
LONGEST = 8192  # maximum number of characters of a URL

# IPv6 ranges whose addresses contain an IPv4 address: the network decides where packets are sent.
_CARRIERS = tuple(
    map(IPv6Network, ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16"))
)
# Protocol assignments and 6to4 relays, which Python treats as global (3.11.7).
_ASSIGNED = tuple(map(IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host name, from the system's resolver."""
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_resolvers, look_up)
    return [str(info[4][0]) for info in found]


def is_public(address: Address) -> bool:
    """Whether an address is on the public Internet, and not in a range for special purposes."""
    if isinstance(address, IPv6Address):
        if address.scope_id or any(address in network for network in _CARRIERS):
            return False
        if address.is_site_local:
            return False
    elif any(address in network for network in _ASSIGNED):
        return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )


async def fetch(
    url: str,
    settings: Settings,
    resolve: Resolve = resolve,
    transport: httpx.AsyncBaseTransport | None = None,
) -> bytes:
    """The body at `url`, if the settings allow it and the host is public.

    The host of each redirect is resolved once, all its addresses must be public, and the
    connection goes to the address that was checked (no DNS rebinding). Proxies of the environment
    are not used.

    Args:
        url: An http or https URL.
        settings: Provide the URL policy, the timeout and the maximum body size.
        resolve: Resolves a host and port to addresses.
        transport: Replaces the network in tests.

    Raises:
        Forbidden: Fetching is disabled, or the address is not public.
        ValidationFailed: The URL is not http or https, or the server did not return a body.
        PayloadTooLarge: The body is larger than allowed.
        BackendTimeout: The download took longer than `settings.image_url_timeout`.
    """
    if settings.image_url == "off":
        raise Forbidden(
            "Fetching images by URL is disabled. Upload the image, or ask the operator to set "
            "VISIONLOOP_IMAGE_URL=public."
        )
    try:
        async with (
            asyncio.timeout(settings.image_url_timeout),
            httpx.AsyncClient(trust_env=False, timeout=None, transport=transport) as client,
        ):
            for _ in range(REDIRECTS + 1):
                request = await _pinned(client, url, resolve)
                response = await client.send(request, stream=True)
                try:
                    target = response.headers.get("location")
                    if response.is_redirect and target:
                        url = str(httpx.URL(url).join(target))
                        continue
                    return await _body(response, settings.max_body_bytes)
                finally:
                    await response.aclose()
            raise ValidationFailed(
                f"'image_url' redirects more than {REDIRECTS} times. Send the final address."
            )
    except TimeoutError:
        raise BackendTimeout(
            f"'image_url' did not deliver within {settings.image_url_timeout:g} s. Upload the "
            "image instead."
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, ValueError):
        raise ValidationFailed(
            "'image_url' could not be fetched. Check the address, or upload the image."
        ) from None


async def _pinned(client: httpx.AsyncClient, url: str, resolve: Resolve) -> httpx.Request:
    """A request that connects to one checked address and keeps the URL's host name (Host, SNI)."""
    parsed = httpx.URL(url)
    if len(url) > LONGEST or parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValidationFailed("'image_url' must be an http:// or https:// address.")
    if parsed.userinfo:
        raise ValidationFailed(
            "'image_url' must not contain a user name or password. Use a pre-signed address, or "
            "upload the image."
        )
    host = parsed.raw_host.decode("ascii").strip("[]")
    port = (443 if parsed.scheme == "https" else 80) if parsed.port is None else parsed.port
    if not 0 < port <= HIGHEST_PORT:  # httpx takes any number; the socket raises OverflowError
        raise ValidationFailed(f"'image_url' has a port that is not from 1 to {HIGHEST_PORT}.")
    addresses = await resolve(host, port)
    if not addresses or not all(is_public(ip_address(address)) for address in addresses):
        raise Forbidden("'image_url' must be at a public address. Upload the image instead.")
    request = client.build_request(
        "GET",
        parsed.copy_with(host=addresses[0]),
        headers={
            "Host": parsed.netloc.decode("ascii"),
            "Accept": "image/*",
            "Accept-Encoding": "identity",
            "User-Agent": "VisionLoop",
        },
    )
    request.extensions["sni_hostname"] = host
    return request


async def _body(response: httpx.Response, limit: int) -> bytes:
    if response.status_code != 200:
        raise ValidationFailed(
            f"'image_url' answered with status {response.status_code}. Check the address, or "
            "upload the image."
        )
    return await read_held(
        response.aiter_raw(),
        limit,
        lambda: PayloadTooLarge(
            f"The image at 'image_url' is larger than the {limit / 2**20:g} MiB allowed. Scale it "
            "down."
        ),
    )


# --- the memory that fetched images take until the request ends, counted like its body

HOLD: ContextVar[Callable[[int], None]] = ContextVar("hold", default=lambda _: None)
"""Counts bytes for the current request. The middleware that bounds the bodies sets it."""


def hold(length: int) -> None:
    """Count bytes that the current request keeps until it ends; a negative number gives some back.

    Raises:
        VisionLoopError: There is no memory left, for all requests or for this client.
    """
    HOLD.get()(length)


@contextmanager
def held_briefly() -> Iterator[None]:
    """A context that gives back, at its end, what is held in it."""
    outer, total = HOLD.get(), 0

    def counted(length: int) -> None:
        nonlocal total
        outer(length)
        total += length

    before = HOLD.set(counted)
    try:
        yield
    finally:
        HOLD.reset(before)
        outer(-total)


async def read_held(
    chunks: AsyncIterable[bytes], limit: float, refuse: Callable[[], Exception]
) -> bytes:
    """The whole of a response, held by the current request.

    Args:
        chunks: The response.
        limit: Maximum size in bytes.
        refuse: Makes the error for a larger one.
    """
    body = bytearray()
    try:
        async for chunk in chunks:
            hold(len(chunk))
            body += chunk
            if len(body) > limit:
                raise refuse()
    except BaseException:
        hold(-len(body))
        raise
    return bytes(body)
