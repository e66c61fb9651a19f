"""Downloads from a local server that is slow, broken, lying or not there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from disk_space import free_bytes
from errors import InsufficientStorage
from models_store.pretrained.download import (
    FetchFailed,
    HostFailed,
    Limits,
    check_status,
    download,
    host_of,
)
from models_store.pretrained.hosts import REMEMBERED, FailedHosts
from settings import Settings
from tests.support.mirror import QUICK, Mirror, Told, mirror, silent_port, weights_file
from tests.support.patience import PATIENCE

CONTENT = bytes(range(256)) * 40
PATIENT = Limits(connect=PATIENCE, answer=PATIENCE, silence=PATIENCE, report=0.0)


@pytest.fixture
def served() -> Iterator[Mirror]:
    with mirror(yolov8n=CONTENT) as running:
        yield running


@pytest.fixture
def settings(served: Mirror, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", download_url=served.url + "/")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "target"
    made.mkdir()
    return made


def remembered(settings: Settings) -> FailedHosts:
    return FailedHosts(settings.paths.pretrained)


def test_a_file_comes_whole_and_is_reported(settings: Settings, folder: Path) -> None:
    told = Told()
    came = download(weights_file(), folder, settings, told.watch, limits=PATIENT)
    assert came.path.read_bytes() == CONTENT
    assert came.address == f"{settings.download_url}/yolov8n.pt"
    assert not came.verified
    assert came.sha256 in came.checked
    assert told.amounts[-1] == (len(CONTENT), len(CONTENT))
    assert "Fetched yolov8n.pt: 0.0 MB." in told.lines


@pytest.mark.parametrize("known", [64, 8])
def test_a_recorded_hash_is_compared(settings: Settings, folder: Path, known: int) -> None:
    file = weights_file(content=CONTENT)
    file = replace(file, sha256=file.sha256[:known])
    assert download(file, folder, settings, Told().watch, limits=PATIENT).verified


def test_a_file_of_another_hash_is_deleted(settings: Settings, folder: Path) -> None:
    file = weights_file(content=b"the real one")
    with pytest.raises(FetchFailed, match="not the file that is recorded"):
        download(file, folder, settings, Told().watch, limits=PATIENT)
    assert list(folder.iterdir()) == []
    assert remembered(settings).get(host_of(file, settings)) is None  # the host is there


def test_a_broken_connection_is_tried_again(
    settings: Settings, served: Mirror, folder: Path
) -> None:
    served.cut, served.cuts = 100, 2
    told = Told()
    came = download(weights_file(), folder, settings, told.watch, limits=PATIENT)
    assert came.path.read_bytes() == CONTENT
    assert len(served.asked) == 3
    assert "Attempt 3 of 3" in told.text


def test_no_half_file_is_kept(settings: Settings, served: Mirror, folder: Path) -> None:
    served.cut, served.cuts = 100, 100
    with pytest.raises(HostFailed, match=r"The connection broke after 0\.0 of 0\.0 MB.*3 attempts"):
        download(weights_file(), folder, settings, Told().watch, limits=PATIENT)
    assert list(folder.iterdir()) == []
    assert len(served.asked) == 3


@pytest.mark.parametrize(
    ("status", "failed_host"), [(404, False), (403, False), (500, True), (503, True), (429, True)]
)
def test_a_refusal_is_told(
    settings: Settings, served: Mirror, folder: Path, status: int, failed_host: bool
) -> None:
    served.status = status
    with pytest.raises(FetchFailed, match=f"answered {status}"):
        download(weights_file(), folder, settings, Told().watch, limits=PATIENT)
    known = remembered(settings).get(host_of(weights_file(), settings))
    assert (known is not None) == failed_host
    assert len(served.asked) == 1


def test_redirects_are_followed_but_not_for_ever(
    settings: Settings, served: Mirror, folder: Path
) -> None:
    served.files["/elsewhere"] = served.files.pop("/yolov8n.pt")
    served.redirects = {"/yolov8n.pt": "/hop", "/hop": f"{served.url}/elsewhere"}
    came = download(weights_file(), folder, settings, Told().watch, limits=PATIENT)
    assert came.path.read_bytes() == CONTENT
    served.redirects = {"/yolov8n.pt": "/yolov8n.pt"}
    with pytest.raises(HostFailed, match="redirects"):
        download(weights_file(), folder, settings, Told().watch, limits=PATIENT)


def test_a_redirect_to_another_scheme_is_refused(
    settings: Settings, served: Mirror, folder: Path
) -> None:
    served.redirects = {"/yolov8n.pt": "file:///etc/passwd"}
    with pytest.raises(HostFailed, match=r"/yolov8n\.pt"):
        download(weights_file(), folder, settings, Told().watch, limits=PATIENT)
    assert list(folder.iterdir()) == []


def full_backlog(stack: ExitStack) -> str:
    """A port whose queue of connections is full: the kernel answers no further one."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    for _ in range(4):
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(listener.getsockname())
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


Place = Callable[[ExitStack], str]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (lambda stack: stack.enter_context(silent_port(accepts=False)), "refused"),
        (lambda stack: stack.enter_context(silent_port(accepts=True)), "(no answer|timed out)"),
        (full_backlog, "(no connection within|timed out)"),
        (lambda _: "http://no-such-host.invalid", r"no-such-host\.invalid"),
    ],
)
def test_a_host_that_failed_is_not_asked_again_for_a_while(
    settings: Settings, served: Mirror, folder: Path, place: Place, reason: str
) -> None:
    with ExitStack() as stack:
        there = settings.model_copy(update={"download_url": place(stack)})
        with pytest.raises(HostFailed, match=reason):
            download(weights_file(), folder, there, Told().watch, limits=QUICK)
        # every process of this home knows; the second failure comes at once, by itself
        with pytest.raises(HostFailed, match=r"failed a moment ago .* is not asked again before"):
            download(weights_file(), folder, there, Told().watch, limits=PATIENT)
        with pytest.raises(HostFailed, match=reason):  # somebody asks for it
            download(weights_file(), folder, there, Told().watch, retry=True, limits=QUICK)
    download(weights_file(), folder, settings, Told().watch, limits=PATIENT)  # another host


def test_failures_are_forgotten(tmp_path: Path) -> None:
    time = [1000.0]
    hosts = FailedHosts(tmp_path, lambda: time[0])
    hosts.add("a", "It was down.")
    hosts.add("b", "It was down, too.")
    assert (hosts.get("a") or hosts).reason == "It was down."  # type: ignore[union-attr]
    hosts.remove("b")
    assert hosts.get("b") is None
    assert FailedHosts(tmp_path, lambda: time[0]).get("a") is not None
    time[0] += REMEMBERED
    assert hosts.get("a") is None
    time[0] = 0.0  # a clock that was set back
    assert hosts.get("a") is None
    (tmp_path / "unreachable.json").write_text("[1")
    assert hosts.get("a") is None
    hosts.add("a", "Again.")
    assert hosts.get("a") is not None


def test_success_makes_a_failure_forgotten(settings: Settings, folder: Path) -> None:
    host = host_of(weights_file(), settings)
    remembered(settings).add(host, "It was down.")
    download(weights_file(), folder, settings, Told().watch, retry=True, limits=PATIENT)
    assert remembered(settings).get(host) is None


def test_a_transfer_that_falls_silent_or_slow_ends(
    settings: Settings, served: Mirror, folder: Path
) -> None:
    served.pause = threading.Event()
    with pytest.raises(HostFailed, match="timed out"):
        download(weights_file(), folder, settings, Told().watch, limits=replace(QUICK, attempts=1))
    served.pause = None
    slow = replace(PATIENT, window=0.0, slowest=1e12)
    with pytest.raises(HostFailed, match="bytes a second only"):
        download(weights_file(), folder, settings, Told().watch, retry=True, limits=slow)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("connected", [True, False])
def test_cancelling_ends_a_download_and_leaves_nothing(
    settings: Settings, served: Mirror, folder: Path, connected: bool
) -> None:
    class Cancelled(BaseException):
        pass

    told = Told()
    with silent_port(accepts=True) as silent:
        if connected:
            told.watch = replace(told.watch, progress=lambda *_: setattr(told, "stop", Cancelled()))
            served.files["/yolov8n.pt"] = CONTENT * 100  # several chunks
        else:
            settings = settings.model_copy(update={"download_url": silent})
            told.stop = Cancelled()
        with pytest.raises(Cancelled):
            download(weights_file(), folder, settings, told.watch, limits=PATIENT)
    assert list(folder.iterdir()) == []
    assert remembered(settings).get(host_of(weights_file(), settings)) is None


@pytest.mark.parametrize("length_known", [True, False])
def test_the_disk_reserve_is_respected(
    settings: Settings, served: Mirror, folder: Path, length_known: bool
) -> None:
    served.length_known = length_known
    reserve = free_bytes(folder) * 2
    full = settings.model_copy(update={"disk_reserve": reserve})
    with pytest.raises(InsufficientStorage, match="VISIONLOOP_DISK_RESERVE"):
        download(weights_file(), folder, full, Told().watch, limits=PATIENT)
    assert list(folder.iterdir()) == []


def test_a_proxy_of_the_environment_is_used(
    settings: Settings, served: Mirror, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = settings.model_copy(update={"download_url": "http://mirror.example/weights"})
    served.files["http://mirror.example/weights/yolov8n.pt"] = CONTENT
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", served.url)
    came = download(weights_file(), folder, elsewhere, Told().watch, limits=PATIENT)
    assert came.path.read_bytes() == CONTENT
    monkeypatch.setenv("HTTP_PROXY", "nonsense://x")
    with pytest.raises(HostFailed, match="proxy"):
        download(weights_file(), folder, elsewhere, Told().watch, limits=PATIENT)


@pytest.mark.parametrize(
    ("asked", "hops", "plain"),
    [
        ("https://a.example/f", ["https://a.example/f", "https://b.example/f"], None),
        ("https://a.example/f", ["https://a.example/f", "http://b.example/f"], "b.example"),
        ("https://a.example/f", ["https://a.example/f", "http://b.example/f", "https://c.example/f"],
         "b.example"),
        ("http://a.example/f", ["http://a.example/f", "http://b.example/f"], None),
    ],
)  # fmt: skip
def test_no_redirect_may_leave_tls(asked: str, hops: list[str], plain: str | None) -> None:
    *before, last = [httpx.Request("GET", hop) for hop in hops]
    history = [httpx.Response(302, request=one) for one in before]
    answer = httpx.Response(200, request=last, history=history)
    if plain is None:
        check_status(answer, asked)
        return
    with pytest.raises(FetchFailed, match=f"redirects to {plain} without TLS"):
        check_status(answer, asked)
