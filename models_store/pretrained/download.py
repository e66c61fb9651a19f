"""Downloads a file of pretrained weights: checked and whole, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from disk_space import MIB, check_room
from errors import BackendUnavailable
from models_store.foreign.importer import COPIES
from models_store.pretrained.catalogue import PretrainedFile
from models_store.pretrained.hosts import FailedHosts
from settings import Settings

LARGEST = 1024**3  # bytes of a file
ROOM_EVERY = 16 * MIB  # bytes between two checks of the free disk space
REDIRECTS = 5
RETRIED_LATER = frozenset({408, 429, *range(500, 600)})  # statuses of a host in trouble
POLL = 0.1  # seconds


class FetchFailed(BackendUnavailable):
    """Pretrained weights could not be fetched; the message is a reason, without a remedy."""


class HostFailed(FetchFailed):
    """Their host cannot be reached, or breaks off."""


@dataclass(frozen=True)
class Limits:
    """Times in seconds.

    Attributes:
        connect: Until there is a connection, name resolution included.
        answer: From then until the first byte of the answer.
        silence: Between two bytes of the file.
        window: Period over which the speed is measured.
        slowest: Lowest speed over a window, in bytes per second.
        attempts: How often a download is tried if the connection breaks in the middle.
        report: Between two lines on the progress.
    """

    connect: float = 10.0
    answer: float = 30.0
    silence: float = 30.0
    window: float = 60.0
    slowest: float = 4096.0
    attempts: int = 3
    report: float = 5.0


LIMITS = Limits()


@dataclass(frozen=True)
class Watch:
    """What a download tells, and asks, whoever waits for it.

    Attributes:
        log: Takes sentences on the progress.
        check: Called many times a second; raises to end the download.
        progress: Takes the bytes that came and their total, if that is known.
    """

    log: Callable[[str], None]
    check: Callable[[], None] = lambda: None
    progress: Callable[[int, int | None], None] = lambda done, total: None


@dataclass(frozen=True)
class Downloaded:
    """A file that came whole.

    Attributes:
        path: Where it lies.
        address: The address that was asked for.
        sha256: Its hash.
        verified: Whether the hash was compared with a recorded one.
    """

    path: Path
    address: str
    sha256: str
    verified: bool

    @property
    def checked(self) -> str:
        """Whether the hash was compared, for people."""
        if self.verified:
            return f"SHA-256 {self.sha256[:12]}…, as recorded"
        return f"SHA-256 {self.sha256}; none is recorded to compare it with"


def address_of(file: PretrainedFile, settings: Settings) -> str:
    """The address that a file is fetched from."""
    return f"{(settings.download_url or file.publisher).rstrip('/')}/{file.file}"


def host_of(file: PretrainedFile, settings: Settings) -> str:
    """The host of that address, with its port unless that is the usual one."""
    return httpx.URL(address_of(file, settings)).netloc.decode("ascii", "replace")


def download(
    file: PretrainedFile,
    folder: Path,
    settings: Settings,
    watch: Watch,
    *,
    retry: bool = False,
    limits: Limits = LIMITS,
) -> Downloaded:
    """Download a file into a folder. Proxies of the environment are used.

    Args:
        file: What to download.
        folder: Exists. A file that did not come whole is deleted.
        settings: Provide the mirror, the home and the disk reserve.
        watch: Is told and asked meanwhile.
        retry: Try a host even if it failed a moment ago.
        limits: How long to wait for what.

    Raises:
        HostFailed: The host cannot be reached, or could not within the last ten minutes.
        FetchFailed: The host does not have the file, or it is not the recorded one.
        InsufficientStorage: The disk has no room for the file, its conversion and the reserve.
    """
    address, host = address_of(file, settings), host_of(file, settings)
    hosts = FailedHosts(settings.paths.pretrained)
    if not retry and (failure := hosts.get(host)) is not None:
        raise HostFailed(
            f"{host} failed a moment ago ({failure.reason.rstrip('.')}) and is not asked again "
            f"before {failure.again_at}"
        )
    path = folder / file.file
    try:
        for attempt in range(1, limits.attempts + 1):
            try:
                sha256 = _attempt(address, path, settings, watch, limits)
                break
            except _Broken as error:
                if attempt == limits.attempts:
                    raise HostFailed(f"{error} ({limits.attempts} attempts)") from error
                watch.log(f"{error}. Attempt {attempt + 1} of {limits.attempts}.")
    except HostFailed as error:
        path.unlink(missing_ok=True)
        hosts.add(host, error.message)
        raise
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    hosts.remove(host)
    if not sha256.startswith(file.sha256):
        path.unlink()
        raise FetchFailed(
            f"{file.file} from {host} is not the file that is recorded: its SHA-256 is {sha256}, "
            f"not {file.sha256}; it was deleted"
        )
    return Downloaded(path, address, sha256, bool(file.sha256))


class _Broken(Exception):
    """The connection broke in the middle of the file."""


def _attempt(address: str, path: Path, settings: Settings, watch: Watch, limits: Limits) -> str:
    """Download the file once. Returns its SHA-256."""
    with _opened(address, watch, limits) as answer, path.open("wb") as target:
        check_status(answer, address)
        length = answer.headers.get("content-length", "")
        total = int(length) if length.isdecimal() else None
        if (total or 0) > LARGEST:
            raise FetchFailed(f"{address} is larger than {LARGEST / MIB:,.0f} MiB")
        check_room(settings, COPIES * (total or 0))
        transfer = _Transfer(address, total, watch, limits)
        digest = hashlib.sha256()
        unchecked = 0
        for chunk in _chunks(answer, transfer):
            target.write(chunk)
            digest.update(chunk)
            transfer.received(len(chunk))
            unchecked += len(chunk)
            if unchecked >= ROOM_EVERY:
                unchecked = 0
                check_room(settings)
    watch.log(f"Fetched {path.name}: {transfer.done / 1e6:.1f} MB.")
    return digest.hexdigest()


@dataclass
class _Transfer:
    """The bytes so far: reported, and bounded in size and speed."""

    address: str
    total: int | None
    watch: Watch
    limits: Limits
    done: int = 0
    reported: float = field(default_factory=time.monotonic)
    window: tuple[float, int] = field(default_factory=lambda: (time.monotonic(), 0))

    @property
    def shown(self) -> str:
        whole = f" of {self.total / 1e6:.1f}" if self.total else ""
        return f"{self.done / 1e6:.1f}{whole} MB"

    def received(self, count: int) -> None:
        self.watch.check()
        self.done += count
        if self.done > LARGEST:
            raise FetchFailed(f"{self.address} is larger than {LARGEST / MIB:,.0f} MiB")
        self.watch.progress(self.done, self.total)
        now = time.monotonic()
        if now - self.reported >= self.limits.report:
            self.reported = now
            self.watch.log(f"Fetching: {self.shown}.")
        began, before = self.window
        if now - began >= self.limits.window:
            speed = (self.done - before) / (now - began)
            if speed < self.limits.slowest:
                raise HostFailed(f"{self.address} sends {speed:,.0f} bytes a second only")
            self.window = now, self.done


def _chunks(answer: httpx.Response, transfer: _Transfer) -> Iterator[bytes]:
    try:
        yield from answer.iter_bytes()
    except httpx.TransportError as error:
        raise _Broken(f"The connection broke after {transfer.shown}: {_said(error)}") from error
    except httpx.HTTPError as error:  # a content encoding that cannot be decoded
        raise FetchFailed(f"{transfer.address} cannot be read: {_said(error)}") from error


def check_status(answer: httpx.Response, address: str) -> None:
    """Refuse an answer without the file, or that came by way of a redirect without TLS.

    Raises:
        FetchFailed: As described; HostFailed: the host may have it later.
    """
    plain = [one.url.host for one in (*answer.history, answer) if one.url.scheme != "https"]
    if address.startswith("https:") and plain:
        raise FetchFailed(f"{address} redirects to {plain[0]} without TLS")
    if answer.status_code == 200:
        return
    said = f"{answer.status_code} {answer.reason_phrase}".strip()
    where = "" if str(answer.url) == address else f", redirected to {answer.url.host}"
    sentence = f"{address} answered {said}{where}"
    raise (HostFailed if answer.status_code in RETRIED_LATER else FetchFailed)(sentence)


@contextlib.contextmanager
def _opened(address: str, watch: Watch, limits: Limits) -> Iterator[httpx.Response]:
    """The answer to a request, before its content is read.

    A thread sends the request, because neither a name server that does not answer nor a host of
    many addresses is bounded by httpx's timeout.

    Raises:
        HostFailed: There is no connection, or no answer, in time.
    """
    timeout = httpx.Timeout(limits.silence, connect=limits.connect)
    try:
        client = httpx.Client(timeout=timeout, follow_redirects=True, max_redirects=REDIRECTS)
    except (ImportError, ValueError) as error:  # a proxy that httpx cannot use
        raise HostFailed(f"The proxy of the environment cannot be used: {error}") from error
    sending = _Sending(client, address)
    try:
        began = time.monotonic()
        while not sending.done.wait(POLL):
            watch.check()
            waited = time.monotonic() - began
            if not sending.connected.is_set() and waited > limits.connect:
                raise HostFailed(f"{address}: no connection within {limits.connect:g} s")
            if waited > limits.connect + limits.answer:
                raise HostFailed(f"{address}: no answer within {limits.answer:g} s")
        with sending.result() as answer:
            yield answer
    finally:
        sending.abandon()


class _Sending:
    """A request that a thread of its own sends.

    Attributes:
        connected: Set when there is a connection, to the host or to a proxy.
        done: Set when there is an answer or an error.
    """

    def __init__(self, client: httpx.Client, address: str) -> None:
        self.connected, self.done = threading.Event(), threading.Event()
        self._client, self._address = client, address
        self._answer: httpx.Response | None = None
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._abandoned = False
        threading.Thread(target=self._send, name="fetch", daemon=True).start()

    def _send(self) -> None:
        try:
            request = self._client.build_request(
                "GET",
                self._address,
                headers={"User-Agent": "VisionLoop", "Accept-Encoding": "identity"},
                extensions={"trace": self._trace},
            )
            self._answer = self._client.send(request, stream=True)
        except Exception as error:  # httpx's errors, and those of a proxy's or redirect's address
            self._error = error
        finally:
            self.done.set()
            with self._lock:
                if self._abandoned:
                    self._client.close()

    def _trace(self, event: str, _: object) -> None:
        if event == "connection.connect_tcp.complete":
            self.connected.set()

    def result(self) -> contextlib.AbstractContextManager[httpx.Response]:
        """The answer, closed at the end of the context.

        Raises:
            HostFailed: There is none.
        """
        if self._answer is None:
            error = self._error
            raise HostFailed(f"{self._address}: {_said(error)}") from error
        return contextlib.closing(self._answer)

    def abandon(self) -> None:
        """Close the connection; if the thread is still waiting, it does so itself."""
        with self._lock:
            self._abandoned = True
            if self.done.is_set():
                self._client.close()


def _said(error: BaseException | None) -> str:
    """An error for people: httpx's timeouts have no text."""
    return (str(error) or type(error).__name__).rstrip(".")
