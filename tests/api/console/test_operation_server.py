"""Events and statistics of a running server, with a change that another process makes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import ROOT, Server

CLASSIFIER = "traffic_signs_mobilenet_v2"
PROMPT = 15.0  # seconds; a stream that is waited for would take minutes


class Stream(threading.Thread):
    """Reads `/events` until the server ends it."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.url = f"{server.url}/events"
        self.events: list[tuple[str, Any]] = []
        self.begun = threading.Event()
        self.start()
        assert self.begun.wait(PATIENCE)

    def run(self) -> None:
        kind = ""
        with httpx.stream("GET", self.url, timeout=PATIENCE) as answer:
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    self.begun.set()
                if name == "event":
                    kind = value
                if name == "data":
                    self.events.append((kind, json.loads(value)))


def test_what_happens_is_told_and_counted_and_the_server_ends_at_once(
    new_home: Callable[[], Path], picture: Callable[..., bytes]
) -> None:
    server = Server(new_home()).start()
    try:
        stream = Stream(server)
        command = [sys.executable, "-m", "models_store", "activate", CLASSIFIER]
        subprocess.run(command, cwd=ROOT, env=server.environment, check=True, capture_output=True)
        wait_until(lambda: any(kind == "model" for kind, _ in stream.events))
        [(_, model)] = [event for event in stream.events if event[0] == "model"]
        assert (model["name"], model["what"]) == (CLASSIFIER, "activated")
        timeline = httpx.get(f"{server.url}/models/{CLASSIFIER}/timeline", timeout=PATIENCE).json()
        assert timeline["entries"][0]["kind"] == "activated"

        def steps() -> list[dict[str, Any]]:
            found = httpx.get(f"{server.url}/stats", timeout=PATIENCE).json()
            return [step for step in found["steps"] if step["images_per_second"]]

        for seed in range(3):
            files = {"image": picture(seed=seed)}
            httpx.post(f"{server.url}/infer", files=files, timeout=PATIENCE).raise_for_status()
        httpx.post(f"{server.url}/infer", files={"image": b"no image"}, timeout=PATIENCE)
        wait_until(steps)
        seen = httpx.get(f"{server.url}/stats", timeout=PATIENCE).json()
        assert sum(step["images_per_second"] * step["seconds"] for step in seen["steps"]) > 0
        assert {one["kind"] for one in seen["processes"]} >= {"VisionLoop", "Detector", "Trainer"}
        assert any(step["p50_ms"] and step["batch_size"] for step in seen["steps"])
        assert any(row["model_id"].startswith(CLASSIFIER) for row in seen["loaded"])
    finally:
        began = time.monotonic()
        server.stop()
    assert time.monotonic() - began < PROMPT
    stream.join(PATIENCE)
    assert not stream.is_alive()
