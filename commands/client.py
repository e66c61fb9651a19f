"""An HTTP client of a running server, for shell commands."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from files import atomic_path
from shell import Parser, said

URL = "http://127.0.0.1:3000"
LOCAL = ("127.0.0.1", "localhost", "::1")
FULL = 32  # characters of a job's id
SILENCE = 40.0  # seconds without a heartbeat, after which the log is requested again
STEP = 0.5

WHERE = """The server is found at --url or VISIONLOOP_URL (http://127.0.0.1:3000), the token in
VISIONLOOP_ADMIN_TOKEN or VISIONLOOP_TOKEN."""

Command = Callable[["Server", argparse.Namespace], int]


class Refused(Exception):
    """The server refused a request, or cannot be reached.

    Attributes:
        code: The error's code; empty if there was no answer.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class Server:
    """HTTP client of the commands."""

    def __init__(self, url: str, token: str | None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url
        self.client = httpx.Client(base_url=url, headers=headers, timeout=SILENCE)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Send a request; returns the JSON of the response. Raises Refused with the reason."""
        try:
            answer = self.client.request(method, path, **options)
        except httpx.TimeoutException:
            raise Refused(f"{self.url} did not answer within {SILENCE:g} seconds.") from None
        except httpx.TransportError as error:
            raise Refused(
                f"No server answers at {self.url} ({error}). Start one: make serve. If it is "
                "elsewhere, as on another port, name it with --url or VISIONLOOP_URL."
            ) from None
        if answer.status_code == 204:
            return None
        if answer.is_error:
            content = _content(answer, self.url)
            code = content.get("code", "") if isinstance(content, dict) else ""
            raise Refused(_reason(answer, self.url), str(code))
        return _content(answer, self.url)

    def may_read(self, path: Path) -> bool:
        """Whether the server runs on this machine and may read a path of it."""
        if (httpx.URL(self.url).host or "") not in LOCAL:
            return False
        folder = path if path.is_dir() else path.parent
        try:
            self.ask("GET", "/api/training/select-local-file", params={"dir": str(folder)})
        except Refused as refusal:
            if refusal.code in ("FORBIDDEN", "NOT_FOUND", "VALIDATION_ERROR"):
                return False
            raise
        return True

    def jobs(self, kind: str | None = None) -> list[dict[str, Any]]:
        """All jobs, or those of a kind, the newest first."""
        found: list[dict[str, Any]] = []
        only = {"kind": kind} if kind else {}
        while page := self.ask("GET", "/jobs", params=only | _older(found))["jobs"]:
            found += page
        return found

    def leader(self) -> dict[str, Any] | None:
        """The one of several servers that starts the jobs; None: there is one only, or none."""
        found: dict[str, Any] | None
        found = self.ask("GET", "/jobs", params={"limit": 1}).get("leader")
        return found

    def download(self, path: str, query: dict[str, Any], target: Path, force: bool) -> Path:
        """Save a response to a file; returns its path. A broken transfer leaves no file.

        Args:
            path: What is asked for.
            query: Its parameters.
            target: The file, or a folder, in which it gets the server's name for it.
            force: Overwrite an existing file.
        """
        try:
            with self.client.stream("GET", path, params=query, timeout=None) as answer:
                if answer.is_error:
                    answer.read()
                    raise Refused(_reason(answer, self.url))
                named = re.search(
                    r'filename="([^"/\\]+)"', answer.headers.get("content-disposition", "")
                )
                if target.is_dir():
                    target /= named[1] if named else "download"
                if target.exists() and not force:
                    raise Refused(f"{target} exists already; --force overwrites it.")
                with atomic_path(target) as partial, partial.open("wb") as file:
                    for piece in answer.iter_bytes():
                        file.write(piece)
        except httpx.TransportError as error:
            raise Refused(f"{self.url} broke the transfer off ({error}).") from None
        return target

    def find(self, start: str) -> str:
        """The full id of the job whose id begins with `start`. Raises Refused unless one does."""
        if len(start) == FULL:
            return start
        if not start.isalnum():
            raise Refused(f"{start!r} is no job's id. `visionloop jobs list` shows them.")
        return str(self.ask("GET", f"/jobs/{start}")["job_id"])

    def follow(self, job_id: str) -> Iterator[str]:
        """The lines of the log until the job ends. Reconnects if a connection breaks."""
        last = ""
        while True:
            try:
                with self.client.stream(
                    "GET",
                    f"/jobs/{job_id}/logs",
                    params={"follow": "true"},
                    headers={"Last-Event-ID": last} if last else {},
                ) as answer:
                    if answer.status_code != 200:  # 204: nothing more will come
                        return
                    ended = False
                    for line in answer.iter_lines():
                        name, _, value = line.partition(": ")
                        if name == "id":
                            last = value
                        elif line == "event: end":
                            ended = True
                        elif name == "data" and not ended:
                            yield value
                    if ended:
                        return
            except httpx.TransportError:
                pass
            time.sleep(STEP)


def _content(answer: httpx.Response, url: str) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise Refused(f"{url} is not a VisionLoop server.") from None


def _reason(answer: httpx.Response, url: str) -> str:
    """The server's sentence on why it refused."""
    content = _content(answer, url)
    return str(content.get("message", content) if isinstance(content, dict) else content)


def _older(jobs: Sequence[dict[str, Any]]) -> dict[str, str]:
    return {"before": jobs[-1]["job_id"]} if jobs else {}


def address() -> Parser:
    """A parent parser with the server's address."""
    parent = Parser(add_help=False)
    parent.add_argument(
        "--url",
        default=os.environ.get("VISIONLOOP_URL") or URL,
        help=f"address of the server; default: VISIONLOOP_URL, else {URL}",
    )
    return parent


def _with_scheme(url: str) -> str:
    """The address as httpx takes it: `127.0.0.1:3951` means http."""
    return (url if "://" in url else f"http://{url}").rstrip("/")


def run_command(options: argparse.Namespace, interrupted: str) -> int:
    """Run the command that was parsed; returns the exit code.

    Args:
        options: Its `run` is the command.
        interrupted: What is printed after Ctrl-C.
    """
    token = os.environ.get("VISIONLOOP_ADMIN_TOKEN") or os.environ.get("VISIONLOOP_TOKEN")
    try:
        server = Server(_with_scheme(options.url), token)
    except httpx.InvalidURL as error:
        print(f"error: {options.url!r} is no address of a server: {error}.", file=sys.stderr)
        return 1
    try:
        code: int = options.run(server, options)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `shell.run` ends the command
        raise
    except OSError as error:
        print(f"error: {said(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    finally:
        server.client.close()
    return code
