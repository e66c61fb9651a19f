"""`/`: the console for browsers, a description of the service for everybody else.

The console's files are what `make console` builds. They are read once, compressed once, and read
again if they change on disk. They are open without a token and tell nothing about models.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import mimetypes
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, Request, Response

from api.middleware.request_state import address_of
from api.negotiation import accepts_gzip, accepts_html
from errors import NotFound
from source_tree import ROOT, VERSION

router = APIRouter(include_in_schema=False)

DIST = ROOT / "console" / "dist"
PAGE = "index.html"
LONGEST_NAME = 100

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",  # the names are stable: ask each time, by ETag
    "Vary": "Accept, Accept-Encoding",
}

NOT_BUILT = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>VisionLoop</title>
<h1>VisionLoop</h1>
<p>The console is not built in this checkout. Build it with <code>make console</code>, and load this
page again.</p>
<p>The service itself needs no console: <a href="docs">try the API</a>, or
<a href="redoc">read about it</a>.</p>
"""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the console, as it is sent."""

    stamp: tuple[int, int]  # of the file: time of its last change, size
    media_type: str
    plain: bytes
    packed: bytes
    etag: str


class Assets:
    """The files of a folder, in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[str, Asset] = {}

    def get(self, name: str) -> Asset:
        """A file by its name in the folder.

        Raises:
            NotFound: There is none.
        """
        path = self.folder / name
        try:
            if name.startswith(".") or path.name != name or len(name) > LONGEST_NAME:
                raise FileNotFoundError
            state = path.stat()
            stamp = state.st_mtime_ns, state.st_size
            found = self._found.get(name)
            if found is None or found.stamp != stamp:
                found = self._found[name] = _read(path, stamp)
        except OSError:
            raise NotFound(
                f"The console has no file {name[:LONGEST_NAME]!r}. `make console` builds it."
            ) from None
        return found


def _read(path: Path, stamp: tuple[int, int]) -> Asset:
    plain = path.read_bytes()
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    text = kind.startswith("text/") or kind in ("application/javascript", "image/svg+xml")
    return Asset(
        stamp,
        f"{kind}; charset=utf-8" if text else kind,
        plain,
        gzip.compress(plain, mtime=0),
        f'W/"{sha256(plain).hexdigest()[:16]}"',
    )


assets = Assets(DIST)


@router.get("/")
async def front(request: Request) -> Response:
    """The console, to whoever accepts HTML by that name; else what the service is, as JSON."""
    if not accepts_html(request.headers.get("accept", "")):
        return _description(request)
    try:
        page = await asyncio.to_thread(assets.get, PAGE)
    except NotFound:
        headers = HEADERS | {"Cache-Control": "no-store"}
        return Response(NOT_BUILT, headers=headers, media_type="text/html")
    return _sent(request, page)


@router.get("/console/{name}")
async def console_file(request: Request, name: str) -> Response:
    """A script or style of the console."""
    return _sent(request, await asyncio.to_thread(assets.get, name))


def _sent(request: Request, asset: Asset) -> Response:
    headers = HEADERS | {"ETag": asset.etag}
    known = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
    if asset.etag in known or asset.etag.removeprefix("W/") in known or "*" in known:
        return Response(status_code=304, headers=headers)
    body = asset.plain
    if accepts_gzip(request.headers.get("accept-encoding", "")):
        body = asset.packed
        headers |= {"Content-Encoding": "gzip"}
    return Response(body, headers=headers, media_type=asset.media_type)


def _description(request: Request) -> Response:
    """What the service is, with links as this caller reaches them, and a first command."""
    base = str(request.base_url).rstrip("/") + address_of(request, "/")
    told = {
        "service": "VisionLoop",
        "version": VERSION,
        "about": "Image recognition: annotate, train, evaluate, promote, serve.",
        "console": f"{base} (in a browser)",
        "docs": f"{base}docs",
        "openapi": f"{base}openapi.json",
        "models": f"{base}models",
        "ready": f"{base}readyz",
        "session": f"{base}session",
        "try": f"curl -F image=@photo.jpg {base}infer",
    }
    text = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
    return Response(text, headers={"Vary": "Accept"}, media_type="application/json")
