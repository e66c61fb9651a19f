"""A runner's batches on an engine that decodes on its device, with PyTorch on the CPU."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from errors import InvalidImage, PayloadTooLarge
from inference.engine import Engine
from inference.images import Pixels, read_plain_jpeg
from inference.prediction import InferenceItem
from inference.runtime.model_runtime import ModelRuntime
from inference.torch_engine import TorchEngine
from models_store.description import ModelDescription
from settings import Settings
from tests.support.scenes import encoded, scene

MAX_PIXELS = 1_000_000


class Recording(TorchEngine):
    """Notes which files it decodes; one of them it cannot."""

    def __init__(self, folder: Path, decodes: bool, refused: bytes = b"") -> None:
        super().__init__(folder, "cpu", half=False, decodes=decodes)
        self.refused = refused
        self.files: list[bytes] = []

    def decode(self, jpegs: Any, places: Any) -> list[Any]:
        self.files += jpegs
        images = super().decode(jpegs, places)
        return [
            None if data == self.refused else image
            for data, image in zip(jpegs, images, strict=True)
        ]


def cmyk(pixels: Pixels) -> bytes:
    return encoded(Image.fromarray(pixels).convert("CMYK"))


def turned(pixels: Pixels) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(pixels, exif=exif)


ODD: dict[str, Callable[[Pixels], bytes]] = {
    "progressive": lambda pixels: encoded(pixels, progressive=True),
    "cmyk": cmyk,
    "grey": lambda pixels: encoded(Image.fromarray(pixels).convert("L")),
    "turned": turned,
    "png": lambda pixels: encoded(pixels, "PNG"),
    "without end": lambda pixels: encoded(pixels)[:-2],
    "cut, and another behind it": lambda pixels: encoded(pixels)[:-200] + encoded(pixels),
}


@pytest.mark.parametrize("kind", ODD)
def test_only_plain_jpegs_are_for_a_device(kind: str) -> None:
    pixels = scene(90, 60)
    assert read_plain_jpeg(ODD[kind](pixels), MAX_PIXELS) is None
    assert read_plain_jpeg(encoded(pixels), MAX_PIXELS) == (90, 60)


def test_what_is_no_image_or_too_large_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(PayloadTooLarge):
        read_plain_jpeg(encoded(scene(90, 60)), 1000)
    with pytest.raises(InvalidImage):
        read_plain_jpeg(b"no image", MAX_PIXELS)


def answers(
    folder: Path, items: list[InferenceItem], decodes: bool, refused: bytes = b"", **given: Any
) -> tuple[list[Any], list[bytes]]:
    """The results of one batch, and the files that the device decoded."""
    engine = Recording(folder, decodes, refused)

    def load(*_: Any) -> tuple[Engine, ModelDescription]:
        return engine, ModelDescription.load(folder)

    async def story() -> list[Any]:
        settings = Settings(device="cpu", sessions=2, max_pixels=MAX_PIXELS, **given)
        runtime = ModelRuntime(lambda _: folder, settings, load)
        try:
            return await runtime.predict_batch(items)
        finally:
            runtime.close()

    return asyncio.run(story()), engine.files


def test_a_batch_of_everything(model_folder: Callable[[str], Path]) -> None:
    plain = [encoded(scene(300, 200, seed)) for seed in range(3)]
    broken = {"without end", "cut, and another behind it"}
    odd = [make(scene(300, 200, 7)) for kind, make in ODD.items() if kind not in broken]
    heavy = encoded(scene(310, 200))
    items = [
        InferenceItem(plain[0], "m"),
        InferenceItem(b"no image", "m"),
        *(InferenceItem(data, "m") for data in odd),
        InferenceItem(plain[1], "m", draw=True),
        InferenceItem(plain[2], "m", confidence=0.01, iou=1.0, max_det=7),
        InferenceItem(encoded(scene(2000, 1000)), "m"),
        InferenceItem(heavy, "m", heavy=True),
        InferenceItem(plain[2], "m", tiles=2),
    ]
    folder = model_folder("detect")
    got, files = answers(folder, items, decodes=True)
    wanted, none = answers(folder, items, decodes=False)
    assert files == [plain[0], plain[2]]  # not drawn, heavy or tiled ones
    assert none == []
    for index, (one, other) in enumerate(zip(got, wanted, strict=True)):
        assert type(one.error) is type(other.error), index
        assert (one.drawn is None) == (not items[index].draw)
        if one.prediction is not None:
            assert set(one.times) == {"preprocess", "inference", "postprocess"}
            assert (one.prediction.width, one.prediction.height) == (
                other.prediction.width,
                other.prediction.height,
            )
            if items[index].image not in files:
                np.testing.assert_array_equal(one.prediction.boxes, other.prediction.boxes)
    assert [type(got[i].error) for i in (1, 9)] == [InvalidImage, PayloadTooLarge]
    assert len(got[8].prediction) == 7


def test_a_file_that_the_device_cannot_decode_is_decoded_on_the_host(
    model_folder: Callable[[str], Path],
) -> None:
    files = [encoded(scene(300, 200, seed)) for seed in range(2)]
    items = [InferenceItem(data, "m") for data in files]
    got, decoded = answers(model_folder("detect"), items, decodes=True, refused=files[1])
    wanted, _ = answers(model_folder("detect"), items, decodes=False)
    assert decoded == files
    assert all(one.error is None for one in got)
    np.testing.assert_array_equal(got[1].prediction.boxes, wanted[1].prediction.boxes)


def test_the_host_decodes_what_the_dct_makes_smaller_and_everything_exactly_if_told(
    model_folder: Callable[[str], Path],
) -> None:
    small, large = (encoded(scene(*size)) for size in ((300, 200), (700, 500)))
    items = [InferenceItem(data, "m") for data in (small, large)]
    _, fast = answers(model_folder("detect"), items, decodes=True)
    _, exact = answers(model_folder("detect"), items, decodes=True, decode="exact")
    assert fast == [small]
    assert exact == []
