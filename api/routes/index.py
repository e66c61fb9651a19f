"""`/`: a page that describes the service, with links."""

from __future__ import annotations

from html import escape

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from api.middleware.request_state import address_of

router = APIRouter(include_in_schema=False)

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>VisionLoop</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }
pre { background: #8882; padding: 1rem; overflow-x: auto }
</style>
<h1>VisionLoop</h1>
<p>Image recognition: annotate, train, evaluate, promote, serve.</p>
<pre>curl -F image=@photo.jpg {base}infer</pre>
<ul>
<li><a href="docs">Try the API</a> (Swagger UI)</li>
<li><a href="redoc">Read the API</a> (ReDoc)</li>
<li><a href="models">Models</a> and their <a href="metrics">measured quality</a></li>
<li><a href="readyz">Readiness</a></li>
</ul>
"""


@router.get("/")
async def index(request: Request) -> HTMLResponse:
    """The page, with this server's address in the example."""
    base = str(request.base_url).rstrip("/") + address_of(request, "/")
    page = PAGE.replace("{base}", escape(base))
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})
