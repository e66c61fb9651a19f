"""A webhook receiver on this machine, whose answers a test chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = "a secret of more than 16 characters"

Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """What came, and what is answered: `reply` is called with the number of the request, from 1."""

    reply: Callable[[int], Reply] = lambda _: (200, {}, b"thank you")
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    phrase: str | None = None  # of the answers; None: the usual one
    at_once: int = 0
    most_at_once: int = 0
    released: threading.Event = field(default_factory=threading.Event)  # ends answers that hang

    def hang(self, _: int) -> Reply:
        self.released.wait()
        return 200, {}, b""


def always(status: int, text: bytes = b"", **headers: str) -> Callable[[int], Reply]:
    """The same answer to every request; `retry_after` becomes the header `Retry-After`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: (status, named, text)


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver, lock = Receiver(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with lock:
                receiver.requests.append(Request(self.path, dict(self.headers.items()), body))
                number = len(receiver.requests)
                receiver.at_once += 1
                receiver.most_at_once = max(receiver.most_at_once, receiver.at_once)
            try:
                status, headers, text = receiver.reply(number)
                self.send_response(status, receiver.phrase)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            except OSError:  # the sender has gone
                pass
            finally:
                with lock:
                    receiver.at_once -= 1

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
