"""A server with two gateway processes is one server, seen from outside, also if one is killed."""

from __future__ import annotations

import contextlib
import io
import re
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import Server

DETECTOR = "traffic_signs_yolov8n"
CLASSIFIER = "traffic_signs_mobilenet_v2"
TOKEN = "the token of the administrator"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}

Picture = Callable[..., bytes]


def gateways(server: Server) -> list[psutil.Process]:
    """The gateway processes that live, the oldest first."""
    assert server.process is not None
    found = []
    for child in psutil.Process(server.process.pid).children():
        try:
            line = child.cmdline()
        except psutil.Error:
            continue
        if "--service-name" in line and line[line.index("--service-name") + 1] == "VisionLoop":
            found.append(child)
    return sorted(found, key=lambda process: (process.create_time(), process.pid))


def client_of(server: Server, gateway: psutil.Process) -> httpx.Client:
    """A client whose one connection is to this gateway process."""

    def connected() -> httpx.Client | None:
        client = httpx.Client(base_url=server.url, headers=ADMIN, timeout=PATIENCE)
        with client.stream("GET", "/livez") as answer:
            stream = answer.extensions["network_stream"]
            port = stream.get_extra_info("client_addr")[1]
            answer.read()
        ends = {found.raddr.port for found in gateway.net_connections("tcp") if found.raddr}
        if port in ends:
            return client
        others.append(client)  # stays open, so that the next one goes elsewhere
        return None

    others: list[httpx.Client] = []
    try:
        found: httpx.Client = wait_until(connected, 0)
        return found
    finally:
        for other in others:
            other.close()


def two_gateways(server: Server) -> list[psutil.Process]:
    found: list[psutil.Process] = wait_until(
        lambda: len(found := gateways(server)) == 2 and found, 0.2
    )
    return found


@contextlib.contextmanager
def clients(server: Server) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """A client of each gateway process."""
    with contextlib.ExitStack() as stack:
        one, other = (
            stack.enter_context(contextlib.closing(client_of(server, gateway)))
            for gateway in two_gateways(server)
        )
        yield one, other


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Any]) -> Iterator[Server]:
    running = Server(
        new_home(),
        VISIONLOOP_GATEWAY_WORKERS="2",
        VISIONLOOP_ADMIN_TOKEN=TOKEN,
        VISIONLOOP_TOKEN="another token of this server",
        VISIONLOOP_KEEP_BELOW="1",
    )
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture
def pair(server: Server) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    with clients(server) as found:
        yield found


def counted(client: httpx.Client, series: str) -> float:
    """The sum of a series over its labels."""
    text = client.get("/metrics", headers={"Accept": "text/plain"}).text
    found = re.findall(rf"^{series}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


def infer(client: httpx.Client, image: bytes, **form: str) -> dict[str, Any]:
    answer = client.post("/infer", data=form, files={"image": image})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_what_one_changes_the_other_serves_with_the_next_request(
    pair: tuple[httpx.Client, httpx.Client], picture: Picture
) -> None:
    one, other = pair
    for name in (CLASSIFIER, DETECTOR, CLASSIFIER, DETECTOR):
        changed = one.post("/models/active", json={"model_id": name})
        assert changed.status_code == 200, changed.text
        assert infer(other, picture())["model_id"].split(":")[0] == name
        one, other = other, one


def test_a_token_is_known_and_revoked_in_both_at_once(
    pair: tuple[httpx.Client, httpx.Client],
) -> None:
    one, other = pair
    for number in range(3):
        made = one.post("/tokens", json={"name": f"camera-{number}", "scope": "use"}).json()
        bearer = {"Authorization": f"Bearer {made['token']}"}
        for client in (other, one):
            assert client.get("/models", headers=bearer).status_code == 200
        assert one.delete(f"/tokens/camera-{number}").status_code in (200, 204)
        for client in (other, one):
            assert client.get("/models", headers=bearer).status_code == 401
        one, other = other, one


def test_images_kept_by_both_are_one_collection(
    pair: tuple[httpx.Client, httpx.Client], picture: Picture
) -> None:
    model = infer(pair[0], picture(seed=100), model_id=CLASSIFIER)["model_id"]
    path = f"/models/{model}/live/kept"

    def kept(client: httpx.Client) -> list[str]:
        return [row["id"] for row in client.get(path).json()["kept"]]

    for number in range(4):
        infer(pair[number % 2], picture(seed=200 + number), model_id=CLASSIFIER)
    wait_until(lambda: len(kept(pair[0])) >= 5, 0.1)
    assert kept(pair[0]) == kept(pair[1])
    assert pair[0].delete(path, params={"image": kept(pair[0])[0]}).status_code == 204
    assert kept(pair[0]) == kept(pair[1])
    assert len(set(kept(pair[1]))) == len(kept(pair[1]))


def test_a_job_runs_once_and_both_show_it(
    pair: tuple[httpx.Client, httpx.Client], picture: Picture
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.jpg", picture(seed=number))
    started = pair[0].post(
        "/api/auto_annotate/batch",
        data={"tool": "image_classification", "model": CLASSIFIER},
        files={"file": ("images.zip", buffer.getvalue())},
    )
    assert started.status_code == 202, started.text
    job_id = started.json()["job_id"]

    def final() -> dict[str, Any] | None:
        job: dict[str, Any] = pair[1].get(f"/jobs/{job_id}").json()
        return job if job["status"] in ("completed", "failed", "stopped") else None

    job = wait_until(final, 0.1)
    assert (job["status"], job["attempts"]) == ("completed", 1), job
    assert pair[0].get(f"/jobs/{job_id}").json() == job
    dataset = started.json()["dataset_id"]
    cards = [client.get(f"/api/datasets/{dataset}").json() for client in pair]
    assert cards[0] == cards[1]


def test_a_task_of_bentoml_is_answered_by_either(
    pair: tuple[httpx.Client, httpx.Client],
) -> None:
    wrong = {"parameters": {"mode": "nonsense"}}
    task = pair[0].post("/tasks/train/submit", json=wrong).json()["task_id"]

    def status(client: httpx.Client) -> str:
        answer = client.get("/tasks/train/status", params={"task_id": task})
        return str(answer.json()["status"])

    wait_until(lambda: status(pair[1]) != "in_progress", 0.1)
    assert status(pair[0]) == status(pair[1])


def test_one_is_killed_under_traffic(server: Server, picture: Picture) -> None:
    """No request fails but those that it was working on; counters add up; the other leads."""
    before = two_gateways(server)
    with contextlib.closing(client_of(server, before[0])) as client:
        images = counted(client, "visionloop_images_total")
    image, ended = picture(), threading.Event()
    answers: Counter[int | str] = Counter()

    def traffic(_: int) -> None:
        with httpx.Client(base_url=server.url, headers=ADMIN, timeout=PATIENCE) as client:
            while not ended.is_set():
                try:
                    answer = client.post(
                        "/infer", data={"model_id": CLASSIFIER}, files={"image": image}
                    )
                    answers[answer.status_code] += 1
                except httpx.TransportError:
                    answers["lost"] += 1

    def leader() -> psutil.Process | None:
        lock = str(server.home / "home" / "run" / "locks" / "leader.lock")
        leading = [
            process
            for process in gateways(server)
            if any(file.path == lock for file in process.open_files())
        ]
        return leading[0] if len(leading) == 1 else None

    led: psutil.Process = wait_until(leader, 0.1)
    with ThreadPoolExecutor(6) as pool:
        threads = [pool.submit(traffic, number) for number in range(6)]
        try:
            wait_until(lambda: answers[200] > 20)
            led.kill()
            known = answers[200]
            wait_until(lambda: answers[200] > known + 20)  # the other goes on
            wait_until(lambda: (now := leader()) and now.pid != led.pid, 0.1)
            wait_until(lambda: len(gateways(server)) == 2, 0.1)
        finally:
            ended.set()
        for thread in threads:
            thread.result()
    assert set(answers) <= {200, "lost"}, answers
    assert 0 <= answers["lost"] <= 6, answers  # what was in flight in the one that was killed
    with clients(server) as (one, other):
        for client in (one, other):
            infer(client, image, model_id=CLASSIFIER)
        total = images + answers[200] + 2
        # an image of a lost request may have been counted before its gateway was killed
        for client in (one, other):
            found = counted(client, "visionloop_images_total")
            assert total <= found <= total + answers["lost"]
            assert counted(client, "visionloop_runner_up") == 2
            assert client.get("/readyz").status_code == 200
        wait_until(lambda: counted(one, "visionloop_calls_in_flight") == 0, 0.1)
        assert counted(other, "visionloop_queue_length") == 0
