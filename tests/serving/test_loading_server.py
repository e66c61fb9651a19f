"""A server of which one model takes as long to load as the test says."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from models_store.description import ONNX_FILE
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import Server

DETECTOR = "traffic_signs_yolov8n"
CLASSIFIER = "traffic_signs_mobilenet_v2"


def waiting(server: Server) -> int:
    accept = {"Accept": "text/plain"}
    text = httpx.get(f"{server.url}/metrics", headers=accept, timeout=PATIENCE).text
    found = re.search(r'visionloop_images_waiting_for_load{runner="detector"} (\d+)', text)
    return int(found[1]) if found else -1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.slow
def test_a_model_that_loads_holds_up_no_request_for_another(
    new_home: Callable[[], Path], picture: Callable[..., bytes]
) -> None:
    server = Server(new_home(), VISIONLOOP_SESSIONS="1", VISIONLOOP_MAX_BATCH="2")
    (folder,) = (server.home / "bento" / "models" / CLASSIFIER).glob("*/")
    onnx = (folder / ONNX_FILE).read_bytes()
    (folder / ONNX_FILE).rename(folder / "kept")
    os.mkfifo(folder / ONNX_FILE)  # reading it waits until something is written
    os.link(folder / ONNX_FILE, folder / "pipe")

    def infer(model: str, seed: int) -> httpx.Response:
        form = {"model_id": model}
        files = {"image": picture(seed=seed)}
        return httpx.post(f"{server.url}/infer", data=form, files=files, timeout=PATIENCE)

    with ThreadPoolExecutor(16) as pool:
        try:
            server.start()
            cold = [pool.submit(infer, CLASSIFIER, seed) for seed in range(8)]  # 3 slots, 6 images
            wait_until(lambda: waiting(server) == len(cold))
            warm = list(pool.map(lambda seed: infer(DETECTOR, seed), range(12)))
            assert [answer.status_code for answer in warm] == [200] * 12
            assert not any(request.done() for request in cold)
            os.replace(folder / "kept", folder / ONNX_FILE)
            (folder / "pipe").write_bytes(onnx)
            answers = [request.result() for request in cold]
            assert [answer.status_code for answer in answers] == [200] * 8
            assert {answer.json()["model_id"].split(":")[0] for answer in answers} == {CLASSIFIER}
            assert waiting(server) == 0
        finally:
            server.stop()
