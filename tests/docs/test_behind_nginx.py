"""The configuration of docs/how-to/behind-nginx.md, in a real nginx before a real server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from tests.docs.pages import DOCS, blocks
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import ROOT, Server

PAGE = DOCS / "how-to" / "behind-nginx.md"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
IMAGE = ROOT / "docs" / "street_scene.jpg"
TOKEN = {"Authorization": "Bearer use-me"}
WHOLE = """pid {folder}/pid;
daemon off;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {page}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path], request: pytest.FixtureRequest) -> Iterator[Server]:
    if NGINX is None:
        reason = f"{PAGE.name} is not tried: nginx is not installed (apt-get install nginx)"
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\nSKIPPED: {reason}")
        pytest.skip(reason)
    (start,) = [b.text for b in blocks(PAGE) if b.kind == "sh" and "make serve" in b.text]
    settings = dict(re.findall(r"(VISIONLOOP_\w+)=(\S+)", start))
    assert settings["VISIONLOOP_ROOT_PATH"] == "/visionloop"
    running = Server(new_home(), **settings, VISIONLOOP_KEEP_BELOW="1")
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture(scope="module", params=["taken off", "left in"])
def proxy(server: Server, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A client below the prefix, over TLS, with the token. nginx takes the prefix off, or not."""
    # Its workers are another user when root starts it: pytest's folders are closed to that.
    with tempfile.TemporaryDirectory(prefix="visionloop-nginx-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        port = free_port()
        found = blocks(PAGE)
        (sign,) = [b.text for b in found if b.kind == "sh" and "openssl" in b.text]
        subprocess.run(["sh", "-c", sign], cwd=folder, check=True, capture_output=True)
        (page,) = [b.text for b in found if b.kind == "nginx"]
        for old, new in (
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("/etc/nginx/visionloop/", f"{folder}/"),
            ("127.0.0.1:3000", f"127.0.0.1:{server.port}"),
        ):
            assert old in page
            page = page.replace(old, new)
        if request.param == "left in":
            kept = re.sub(rf"(127.0.0.1:{server.port})/;", r"\1;", page)
            kept = re.sub(r"location = /visionloop .*", "", kept)
            assert len(kept) < len(page) - 20
            page = kept.replace("location /visionloop/", "location /visionloop")
        (folder / "nginx.conf").write_text(WHOLE.format(folder=folder, page=page))
        command = [str(NGINX), "-p", name, "-c", f"{name}/nginx.conf", "-e", f"{name}/error.log"]
        process = subprocess.Popen(command)
        context = ssl.create_default_context(cafile=folder / "cert.pem")
        address = f"https://localhost:{port}/visionloop/"
        try:
            with httpx.Client(
                base_url=address, verify=context, timeout=PATIENCE, headers=TOKEN
            ) as client:
                wait_until(lambda: process.poll() is not None or _listens(port))
                assert process.poll() is None, (folder / "error.log").read_text()
                client.headers["X-Folder"] = name  # where the certificate is
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_an_image_gets_boxes(proxy: httpx.Client) -> None:
    answer = proxy.post("infer", files={"image": IMAGE.read_bytes()})
    assert answer.status_code == 200
    assert answer.json()["predictions"]


def test_without_the_token_it_is_refused(proxy: httpx.Client) -> None:
    answer = proxy.get("models", headers={"Authorization": ""})
    assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")


def test_the_prefix_alone_leads_to_the_page(proxy: httpx.Client) -> None:
    answer = proxy.get(str(proxy.base_url).rstrip("/"), follow_redirects=True)
    assert answer.status_code == 200
    assert f"{proxy.base_url}infer" in answer.text


@pytest.mark.parametrize("page", ["", "docs", "redoc"])
def test_what_pages_load_and_link_keeps_the_prefix(proxy: httpx.Client, page: str) -> None:
    answer = proxy.get(page, headers={"Accept": "text/html"})
    assert answer.status_code == 200
    addresses = re.findall(r"(?:src|href)=\"([^\"]+)\"", answer.text)
    addresses += re.findall(r"['\"](openapi\.json)['\"]", answer.text)
    assert addresses
    for address in addresses:
        whole = urljoin(str(answer.url), address)
        assert whole.startswith(str(proxy.base_url))
        assert proxy.get(whole).status_code == 200


def test_the_document_names_the_prefix_as_its_server(proxy: httpx.Client) -> None:
    answer = proxy.get("openapi.json")
    (server,) = answer.json()["servers"]
    assert urljoin(str(answer.url), server["url"]) == str(proxy.base_url)


def test_a_large_body_goes_through_to_our_own_limit(proxy: httpx.Client) -> None:
    answer = proxy.post("infer", files={"image": bytes(33 * 2**20)})
    assert (answer.status_code, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")


def test_a_page_of_this_origin_may_send_a_form_and_another_may_not(proxy: httpx.Client) -> None:
    origin = str(proxy.base_url).removesuffix("/visionloop/")
    files = {"image": IMAGE.read_bytes()}
    assert proxy.post("infer", files=files, headers={"Origin": origin}).status_code == 200
    foreign = {"Origin": "https://elsewhere.example"}
    other = proxy.post("infer", data={"image_url": "x"}, headers=foreign)
    assert (other.status_code, other.json()["code"]) == (403, "FORBIDDEN")


def test_the_address_that_a_trusted_proxy_tells_is_the_callers(server: Server) -> None:
    told = {**TOKEN, "X-Forwarded-For": "203.0.113.9"}
    assert httpx.get(f"{server.url}/models", headers=told, timeout=PATIENCE).status_code == 200
    wait_until(lambda: "203.0.113.9" in server.log.read_text())


def test_paths_in_answers_have_the_prefix_and_clients_may_put_it_before_them_again(
    proxy: httpx.Client,
) -> None:
    assert proxy.post("infer", files={"image": IMAGE.read_bytes()}).status_code == 200
    kept: list[dict[str, str]] = []

    def listed() -> bool:
        kept[:] = proxy.get("models/traffic_signs_yolov8n/live/kept").json()["kept"]
        return bool(kept)

    wait_until(listed)
    url = kept[0]["url"]
    assert url.startswith("/visionloop/api/annotation/kept/")
    for whole in (urljoin(str(proxy.base_url), url), str(proxy.base_url).rstrip("/") + url):
        answer = proxy.get(whole)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")


def test_the_tools_addresses_are_below_the_prefix(proxy: httpx.Client) -> None:
    assert proxy.get("label-studio/health").json()["status"] == "UP"
    assert proxy.get("v1/models").json()["success"] is True
    functions = proxy.get("api/functions").json()
    port = proxy.base_url.port
    assert functions
    assert all(one["status"]["httpPort"] == port for one in functions.values())


def test_messages_name_paths_as_the_caller_wrote_them(proxy: httpx.Client) -> None:
    message = proxy.get("nowhere").json()["message"]
    assert message == "There is no '/visionloop/nowhere'. /visionloop/docs lists the routes."


def test_the_drawn_image_and_several_images_go_through(proxy: httpx.Client) -> None:
    photo = IMAGE.read_bytes()
    drawn = proxy.post("infer", files={"image": photo}, headers={"Accept": "image/webp"})
    assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/webp")
    several = proxy.post("infer", files=[("image", photo), ("image", b"no image")])
    assert [one.get("code") for one in several.json()] == [None, "INVALID_IMAGE_FORMAT"]


def test_shell_commands_take_the_prefix_in_the_address(proxy: httpx.Client) -> None:
    environment = os.environ | {
        "VISIONLOOP_URL": str(proxy.base_url).rstrip("/"),
        "VISIONLOOP_TOKEN": "use-me",
        "SSL_CERT_FILE": f"{proxy.headers['X-Folder']}/cert.pem",
    }
    command = [sys.executable, "-m", "training", "list"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_nobody_behind_the_proxy_chooses_an_address(proxy: httpx.Client, server: Server) -> None:
    spoofed = [
        ("X-Forwarded-For", "198.51.100.7"),
        ("X-Forwarded-For", "198.51.100.8, 127.0.0.1"),
        ("X-Real-IP", "198.51.100.9"),
    ]
    mark = f"spoofed-{proxy.base_url.port}"
    assert proxy.get(f"models/{mark}", headers=spoofed).status_code == 404
    wait_until(lambda: mark in server.log.read_text())
    assert "198.51.100" not in server.log.read_text()


def test_no_file_dialog_opens_behind_the_proxy(proxy: httpx.Client) -> None:
    answer = proxy.get("api/training/select-local-file")
    assert answer.json()["path"] is None
