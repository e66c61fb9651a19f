"""Datasets through the whole server."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support.patience import PATIENCE
from tests.support.seeds import rng
from tests.support.serving import Server
from tests.support.shapes import write_shapes


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        yield client


def zipped(folder: Path, **more: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder))
        for name, data in more.items():
            file.writestr(f"images/train/{name}.png", data)
    return buffer.getvalue()


def test_an_upload_may_be_larger_than_other_bodies(client: httpx.Client, tmp_path: Path) -> None:
    """Those of this server are limited to 4 MiB."""
    write_shapes(tmp_path, "detect", 4, 2, imgsz=48)
    noise = rng(0).integers(0, 256, (1400, 1400, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    data = zipped(tmp_path, large=buffer.getvalue())
    assert len(data) > 5 * 2**20
    answer = client.post("/api/datasets", files={"file": ("Shapes.zip", data)})
    assert answer.status_code == 201
    card = answer.json()
    assert card["image_size"]["max_width"] == 1400
    train = card["splits"]["train"]
    assert (train["images"], train["usable"], train["unlabelled"]) == (5, 5, 1)
    sheet = client.get(f"/api/datasets/{card['id']}/sheet.png")
    assert Image.open(io.BytesIO(sheet.content)).format == "PNG"
    assert client.delete(f"/api/datasets/{card['id']}").status_code == 204
    assert client.get("/api/datasets").json() == {"datasets": []}


def test_inference_answers_while_a_data_set_is_unpacked(server: Server, tmp_path: Path) -> None:
    write_shapes(tmp_path, "detect", 300, 10, imgsz=96)
    data = zipped(tmp_path)

    async def both() -> tuple[httpx.Response, int]:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
            upload = asyncio.create_task(
                client.post("/api/datasets", files={"file": ("a.zip", data)})
            )
            alive = 0
            while not upload.done():
                alive += (await client.get("/livez", timeout=PATIENCE)).status_code == 200
            return await upload, alive

    answer, alive = asyncio.run(both())
    assert answer.status_code == 201
    assert alive > 0
    httpx.delete(f"{server.url}/api/datasets/{answer.json()['id']}").raise_for_status()


def test_a_listing_is_offered_where_there_is_no_desktop(client: httpx.Client) -> None:
    body = client.get("/api/training/select-local-file", params={"file_type": "model"}).json()
    assert body["path"] is None
    assert isinstance(body["entries"], list)
    outside = client.get("/api/training/select-local-file", params={"dir": "/etc"})
    assert (outside.status_code, outside.json()["code"]) == (403, "FORBIDDEN")
