"""Fetches images that an annotation tool refers to: `data:` URIs, paths on its host, and URLs."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from errors import BackendTimeout, Forbidden, PayloadTooLarge, ValidationFailed
from nesting import check_json_depth
from serving.base64_images import decoded
from serving.fetch import LONGEST, REDIRECTS, fetch, read_held
from settings import Settings

# Path prefixes under which Label Studio serves images; its token is sent to no other path.
IMAGE_PATHS = ("/data/", "/storage-data/", "/tasks/", "/projects/")
API_TIMEOUT = 120.0  # maximum seconds for a response of Label Studio's API
LARGEST = 256 * 2**20  # maximum bytes of such a response
ACCESS = 240.0  # seconds for which an access token is used
SECRET_PARTS = 3  # number of parts of a JSON web token, separated by dots


class ToolImages:
    """Fetches the images of tasks; Label Studio's token is sent to its own host only."""

    def __init__(
        self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.settings = settings
        self.transport = transport
        self.base = httpx.URL(settings.label_studio_url) if settings.label_studio_url else None
        self._access: tuple[str, float] | None = None
        self._lock = asyncio.Lock()

    async def get(self, address: str) -> bytes:
        """The bytes of an image.

        Args:
            address: A `data:` URI, a path of Label Studio (`/data/upload/…`) or a URL.

        Raises:
            Forbidden: Fetching from this address is not allowed.
            ValidationFailed: The address is invalid, or the server did not return the image.
            PayloadTooLarge: The image is too large.
            BackendTimeout: The server took too long.
            InvalidImage: The `data:` URI is not base64.
        """
        if address[:5].lower() == "data:":
            return await decoded(address, "image")
        if len(address) > LONGEST:
            raise ValidationFailed(
                f"The address {address[:80]!r}… has {len(address)} characters; allowed are "
                f"{LONGEST}. Use a shorter one."
            )
        try:
            own: httpx.URL | None
            if address.startswith("/") and not address.startswith("//"):
                own = self._joined(address)
            else:
                own = httpx.URL(address) if self._is_own(address) else None
                scheme = urlsplit(address).scheme
        except (httpx.InvalidURL, ValueError) as error:
            raise ValidationFailed(f"{address[:80]!r} is not a valid address: {error}.") from None
        if own is not None:
            return await self._own(own)
        if scheme not in ("http", "https"):
            raise ValidationFailed(
                f"{address[:80]!r} cannot be fetched. Allowed are data: URIs, http(s) addresses "
                "and Label Studio's own paths; for cloud storage turn on pre-signed URLs in "
                "Label Studio."
            )
        return await fetch(address, self.settings)

    async def document(self, path: str) -> Any:
        """The JSON response of Label Studio's API to a path.

        Raises:
            Forbidden: VISIONLOOP_LABEL_STUDIO_URL is not set.
            ValidationFailed: Label Studio refuses, or the response is not JSON.
            PayloadTooLarge: The response is larger than `LARGEST`.
            BackendTimeout: The request took longer than `API_TIMEOUT`.
        """
        url = self._joined(path)
        try:
            async with (
                asyncio.timeout(API_TIMEOUT),
                httpx.AsyncClient(
                    trust_env=False, timeout=None, transport=self.transport
                ) as client,
            ):
                headers = await self._headers(client)
                async with client.stream("GET", url, headers=headers) as response:
                    body = await self._body(response, url, LARGEST)
            return await asyncio.to_thread(_json, body, url.path)
        except TimeoutError:
            raise BackendTimeout(
                f"Label Studio took more than {API_TIMEOUT:g} s. Try again."
            ) from None
        except (httpx.HTTPError, OSError) as error:
            raise ValidationFailed(
                f"Label Studio at {self.base} cannot be reached ({type(error).__name__}). Check "
                "VISIONLOOP_LABEL_STUDIO_URL and whether it runs."
            ) from None
        except ValueError:
            raise ValidationFailed(
                f"Label Studio's response to {url.path[:120]} is not JSON. Check "
                "VISIONLOOP_LABEL_STUDIO_URL."
            ) from None

    def _joined(self, path: str) -> httpx.URL:
        """The URL of a path of Label Studio, whose base URL may itself contain a path."""
        if self.base is None:
            raise Forbidden(
                f"{path[:80]!r} is on Label Studio's own host. Have the operator set "
                "VISIONLOOP_LABEL_STUDIO_URL to its address and VISIONLOOP_LABEL_STUDIO_TOKEN "
                "to an access token."
            )
        below = self.base.path.rstrip("/")
        prefix = "" if not below or path.startswith(f"{below}/") else below
        return self.base.join(f"{prefix}{path}")

    def _is_own(self, address: str) -> bool:
        try:
            url = httpx.URL(address)
        except (httpx.InvalidURL, ValueError):
            return False
        return self.base is not None and _origin(url) == _origin(self.base)

    async def _own(self, url: httpx.URL) -> bytes:
        """Fetch from Label Studio; a redirect to another host is fetched without the token."""
        assert self.base is not None
        try:
            async with (
                asyncio.timeout(self.settings.image_url_timeout),
                httpx.AsyncClient(
                    trust_env=False, timeout=None, transport=self.transport
                ) as client,
            ):
                for _ in range(REDIRECTS + 1):
                    self._check(url)
                    headers = await self._headers(client)
                    async with client.stream("GET", url, headers=headers) as response:
                        target = response.headers.get("location")
                        if not (response.is_redirect and target):
                            return await self._body(response, url)
                    url = url.join(target)
                    if _origin(url) != _origin(self.base):
                        return await fetch(str(url), self.settings, transport=self.transport)
                raise ValidationFailed(
                    f"Label Studio redirected the request more than {REDIRECTS} times. Set "
                    "VISIONLOOP_LABEL_STUDIO_URL to its final address."
                )
        except TimeoutError:
            raise BackendTimeout(
                f"Label Studio did not return an image within "
                f"{self.settings.image_url_timeout:g} s. Try again, or raise "
                "VISIONLOOP_IMAGE_URL_TIMEOUT."
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise ValidationFailed(
                f"Label Studio at {self.base} cannot be reached ({type(error).__name__}). Check "
                "VISIONLOOP_LABEL_STUDIO_URL and whether it runs."
            ) from None

    def _check(self, url: httpx.URL) -> None:
        assert self.base is not None
        path = unquote(url.path).removeprefix(self.base.path.rstrip("/"))
        allowed = path.startswith(IMAGE_PATHS) and ".." not in PurePosixPath(path).parts
        if not allowed or url.userinfo or len(str(url)) > LONGEST:
            raise Forbidden(
                f"'{url.path[:80]}' is not a path of images in Label Studio. Allowed: "
                f"{', '.join(IMAGE_PATHS)}."
            )

    async def _headers(self, client: httpx.AsyncClient) -> dict[str, str]:
        headers = {"User-Agent": "VisionLoop"}  # no Accept: `image/*` makes it return 406
        secret = self.settings.label_studio_token
        if secret is None:
            return headers
        token = secret.get_secret_value().strip()
        if token.count(".") != SECRET_PARTS - 1:
            return headers | {"Authorization": f"Token {token}"}
        return headers | {"Authorization": f"Bearer {await self._access_token(client, token)}"}

    async def _access_token(self, client: httpx.AsyncClient, personal: str) -> str:
        """A short-lived access token in exchange for a personal token, cached while valid."""
        async with self._lock:
            if self._access is not None and time.monotonic() < self._access[1]:
                return self._access[0]
            assert self.base is not None
            url = self.base.copy_with(path=f"{self.base.path.rstrip('/')}/api/token/refresh")
            answer = await client.post(url, json={"refresh": personal})
            if answer.status_code != 200:
                raise ValidationFailed(
                    "Label Studio refuses VISIONLOOP_LABEL_STUDIO_TOKEN (status "
                    f"{answer.status_code}): create a new access token in its account settings."
                )
            try:
                token = str(answer.json()["access"])
            except (ValueError, KeyError, TypeError):
                raise ValidationFailed(
                    f"{url} returned no access token. VISIONLOOP_LABEL_STUDIO_URL must be Label "
                    "Studio's own address, not the address of a login page."
                ) from None
            self._access = token, time.monotonic() + ACCESS
            return token

    async def _body(
        self, response: httpx.Response, url: httpx.URL, most: float | None = None
    ) -> bytes:
        most = most or self.settings.max_body_bytes
        if response.status_code in (401, 403):
            self._access = None
            raise ValidationFailed(
                f"Label Studio refuses {url.path[:120]} (status {response.status_code}): set "
                "VISIONLOOP_LABEL_STUDIO_TOKEN to an access token of a user who sees the project."
            )
        if response.status_code != 200:
            raise ValidationFailed(
                f"Label Studio answered {url.path[:120]} with status {response.status_code}. Check "
                "that the image exists there."
            )
        return await read_held(
            response.aiter_bytes(),
            most,
            lambda: PayloadTooLarge(
                f"{url.path[:120]} is larger than {most / 2**20:g} MiB. Scale it down."
            ),
        )


def _json(body: bytes, path: str) -> Any:
    check_json_depth(body, f"Label Studio's answer to {path[:120]}")
    return json.loads(body)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)
