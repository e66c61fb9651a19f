"""Images that a browser cannot show, or shows otherwise than training reads them: in the console
people see what training reads."""

from __future__ import annotations

import base64
import io
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

from inference.images import decode
from tests.console.conftest import OpenConsole
from tests.support.odd_images import HEIGHT, SHOWN_ALIKE, WIDTH, odd_images
from tests.support.serving import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

ODD = odd_images()
LOSSY = 6.0  # largest mean difference of two decoders of a lossy file

PIXELS = """async (url) => {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    return [canvas.width, canvas.height, btoa(String.fromCharCode(...data))];
}"""


def uploaded(server: Server) -> str:
    """A dataset of all odd images, each with a box. Returns its id."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.yaml", "train: images/train\nval: images/train\nnames: [car]\n")
        for number, (name, data) in enumerate(ODD.items()):
            suffix = name.rpartition(".")[2]
            archive.writestr(f"images/train/{number}.{suffix}", data)
            archive.writestr(f"labels/train/{number}.txt", "0 0.5 0.5 0.25 0.25\n")
    sent = {"file": ("odd.zip", buffer.getvalue())}
    answer = httpx.post(f"{server.url}/api/datasets", files=sent, timeout=120)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def seen(page: Page, url: str) -> Any:
    """The pixels that the browser shows, RGB."""
    width, height, data = page.evaluate(PIXELS, url)
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[..., :3]


def test_the_browser_shows_what_training_reads(console: OpenConsole, live: Server) -> None:
    dataset = uploaded(live)
    page = console().open("#/data")
    for name, data in ODD.items():
        content = sha256(data).hexdigest()
        shown = seen(page, f"{live.url}/api/datasets/{dataset}/pictures/{content}?as=browser")
        wanted = decode(data, 10**6)
        assert shown.shape == wanted.shape, name
        difference = np.abs(shown.astype(int) - wanted).mean()
        assert difference <= (LOSSY if name in SHOWN_ALIKE else 0), (name, difference)


@pytest.mark.smoke
def test_a_tiff_is_annotated(console: OpenConsole, live: Server) -> None:
    dataset = uploaded(live)
    content = sha256(ODD["turned.tif"]).hexdigest()
    page = console().open(f"#/annotate/{dataset}/{content}")
    image = page.locator(".annotate-image img")
    expect(image).to_be_visible()
    size = image.evaluate("(one) => [one.naturalWidth, one.naturalHeight, one.width, one.height]")
    assert size == [HEIGHT, WIDTH, HEIGHT, WIDTH]


def test_a_tiff_is_tried_with_its_findings_drawn_by_the_server(
    console: OpenConsole, tmp_path: Path
) -> None:
    file = tmp_path / "street.tif"
    file.write_bytes(ODD["plain.tif"])
    page = console().open("#/try")
    page.locator(".try-file").first.set_input_files(file)
    expect(page.get_by_text("Your browser cannot show this file")).to_be_visible()
    image = page.get_by_alt_text("street.tif")
    assert image.evaluate("(one) => [one.naturalWidth, one.naturalHeight]") == [WIDTH, HEIGHT]
