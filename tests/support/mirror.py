"""A mirror of pretrained weights on loopback, which can be slow, broken or lying."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from models_store.pretrained.catalogue import PretrainedFile
from models_store.pretrained.download import Limits, Watch

QUICK = Limits(connect=0.5, answer=0.5, silence=0.5, report=0.0)
"""Limits for hosts of which a test knows that they never answer."""


@dataclass
class Mirror:
    """A server of files.

    Attributes:
        files: Path → content.
        redirects: Path → address.
        status: Status of every answer; 200: as the files are.
        cut: Bytes after which the connection is closed, as often as `cuts` says.
        pause: If set, a transfer stops after its first bytes until this event is set.
        stopped: Set once a transfer has stopped.
        asked: The paths that were asked for.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    status: int = 200
    cut: int = 0
    cuts: int = 0
    length_known: bool = True
    pause: threading.Event | None = None
    stopped: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        content = self.files.get(request.path)
        target = self.redirects.get(request.path)
        status = self.status if self.status != 200 else 302 if target else 404
        if self.status != 200 or target or content is None:
            request.send_response(status)
            if target:
                request.send_header("Location", target)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(200)
        if self.length_known:
            request.send_header("Content-Length", str(len(content)))
        request.send_header("Connection", "close")
        request.end_headers()
        if self.cuts:
            self.cuts -= 1
            request.wfile.write(content[: self.cut])
            return
        if self.pause is not None:
            request.wfile.write(content[:10])
            request.wfile.flush()
            self.stopped.set()
            self.pause.wait()
            content = content[10:]
        request.wfile.write(content)


@contextmanager
def mirror(**files: bytes) -> Iterator[Mirror]:
    """A running mirror; `yolov8n=b"…"` is its file yolov8n.pt."""
    served = Mirror(files={f"/{name.replace('_', '-')}.pt": data for name, data in files.items()})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # the client has left
                served.answer(self)

        def log_message(self, *_: Any) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield served
    finally:
        if served.pause is not None:
            served.pause.set()
        server.shutdown()
        server.server_close()


@contextmanager
def silent_port(accepts: bool) -> Iterator[str]:
    """The address of a port that says nothing, or (not `accepts`) where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if accepts:
            listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def weights_file(network: str = "yolov8n", content: bytes = b"") -> PretrainedFile:
    """The entry of a network's file; with the hash of the content, if some is given."""
    known = hashlib.sha256(content).hexdigest() if content else ""
    return PretrainedFile(network, f"{network}.pt", "http://unused/", "yolo", "detect", known)


class Told:
    """A watch that keeps what it was told; `check` raises what `stop` is set to."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.amounts: list[tuple[int, int | None]] = []
        self.stop: BaseException | None = None
        self.watch = Watch(
            self.lines.append, self._check, lambda *amounts: self.amounts.append(amounts)
        )

    def _check(self) -> None:
        if self.stop is not None:
            raise self.stop

    @property
    def text(self) -> str:
        return "\n".join(self.lines)
