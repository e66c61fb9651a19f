"""Makes a screenshot of Label Studio's editor with headless Chromium.

Chromium's command for screenshots accepts no cookies, so Chromium opens the page through a small
proxy that is logged in.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--window-size=1600,1000",
)  # fmt: skip
PATIENCE = 60_000  # milliseconds of the page's virtual time until the screenshot
LEFT_OUT = {"content-encoding", "transfer-encoding", "content-length", "connection"}


def screenshot(url: str, user: dict[str, str], project: int, task: int, target: Path) -> bool:
    """Write a PNG of a task in the editor; returns whether there is one (False: no Chromium)."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return False
    session = httpx.Client(base_url=url, timeout=60, follow_redirects=False)
    session.get("/user/login/")
    form = user | {"csrfmiddlewaretoken": str(session.cookies.get("csrftoken"))}
    session.post("/user/login/", data=form, headers={"Referer": url})

    class Proxy(BaseHTTPRequestHandler):
        def _pass(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            kept = {"accept", "content-type"}
            headers = {k: v for k, v in self.headers.items() if k.lower() in kept}
            headers |= {"X-CSRFToken": str(session.cookies.get("csrftoken")), "Referer": url}
            answer = session.request(
                self.command, self.path, content=self.rfile.read(length), headers=headers
            )
            self.send_response(answer.status_code)
            for name, value in answer.headers.multi_items():
                if name.lower() not in LEFT_OUT:
                    self.send_header(name, value.replace(url, ""))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do_HEAD = _pass

        def log_message(self, format: str, *args: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    page = f"http://127.0.0.1:{proxy.server_port}/projects/{project}/data?task={task}"
    try:
        with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
            command = [browser, *FLAGS, f"--user-data-dir={profile}", f"--screenshot={target}"]
            command += [f"--virtual-time-budget={PATIENCE}", page]
            subprocess.run(command, timeout=240, capture_output=True, check=False)
    finally:
        proxy.shutdown()
        session.close()
    return target.exists()
