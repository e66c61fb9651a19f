"""Files that ended or held up a process of the server: it answers, and the process is the same."""

from __future__ import annotations

import struct
import zipfile
from io import BytesIO

import httpx
import pytest
from PIL import Image

from benchmarks.hostile.corpus import empty_png
from tests.support.correction_app import drawn, packed
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import Server


def processes(server: Server) -> dict[str, int]:
    """The id of every process of the service, by its name."""
    return {name: process.pid for name, process in server.workers().items()}


def jpeg_2000() -> bytes:
    """1 KB that claims 49 million pixels."""
    buffer = BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG2000", no_jp2=True)
    data = bytearray(buffer.getvalue())
    struct.pack_into(">II", data, 8, 7000, 7000)
    struct.pack_into(">II", data, 24, 7000, 7000)
    return bytes(data)


def of_zeros() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(100):
            archive.writestr(f"{number}.txt", bytes(2**20 - 1))
    return buffer.getvalue()


def deep_yaml() -> bytes:
    return packed({"data.yaml": b"train: " + b"[" * 50_000, "images/train/a.png": drawn(0)})


@pytest.mark.parametrize(
    ("path", "name", "data", "status", "code"),
    [
        ("/api/datasets", "file", deep_yaml(), 400, "DATASET_INVALID"),
        ("/api/datasets", "file", of_zeros(), 400, "DATASET_INVALID"),
        ("/infer", "image", jpeg_2000(), 413, "PAYLOAD_TOO_LARGE"),
        ("/infer", "image", empty_png(7000, 7000), 200, ""),
        ("/api/auto_annotate", "image", jpeg_2000(), 413, "PAYLOAD_TOO_LARGE"),
    ],
    ids=["yaml", "zip", "jpeg 2000", "png", "annotation"],
)
def test_a_hostile_file_is_answered_and_no_process_dies(
    server: Server, path: str, name: str, data: bytes, status: int, code: str
) -> None:
    before = processes(server)
    fields = {"tool": "object_detection"} if "annotate" in path else {}
    answer = httpx.post(server.url + path, files={name: ("a.zip", data)}, data=fields, timeout=120)
    assert answer.status_code == status, answer.text
    assert answer.json().get("code", "") == code
    assert processes(server) == before
    assert len(before) >= 4


def test_a_path_forges_no_line_of_the_log(server: Server) -> None:
    answer = httpx.get(f"{server.url}/models/a%0aFORGED%00%1b[2J", timeout=PATIENCE)
    assert answer.status_code in (400, 404)
    (line,) = wait_until(
        lambda: [line for line in server.log.read_text().split("\n") if "FORGED" in line]
    )
    assert r"GET /models/a\nFORGED\x00\x1b[2J 4" in line
