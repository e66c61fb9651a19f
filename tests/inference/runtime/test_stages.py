"""How far images are decoded for the network."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from inference.images import DecodedImage
from inference.prediction import InferenceItem, Prediction
from inference.runtime import stages
from inference.tiles import AUTO, OFF
from models_store.description import ModelDescription
from tests.support.closeness import assert_close
from tests.support.running_models import KINDS, photo, running
from tests.support.scenes import encoded, scene


class Decodings:
    """Records the scale of each decoding."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scales: list[int] = []
        self._real = stages.decode_at_least
        monkeypatch.setattr(stages, "decode_at_least", self._decode)

    def _decode(self, *args: Any) -> DecodedImage:
        found = self._real(*args)
        self.scales.append(found.scale)
        return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_photo_is_decoded_small_and_answered_in_its_own_pixels(
    locate: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    photo = encoded(
        cv2.resize(scene(300, 200), (1200, 800)).astype(np.uint8), quality=95, subsampling=0
    )
    sure = 0.0 if kind in ("classify", "mobilenet") else 0.3
    item = InferenceItem(photo, kind, confidence=sure, max_det=20)
    decodings = Decodings(monkeypatch)

    async def answer(**settings: Any) -> Prediction:
        with running(locate, **settings) as runtime:
            drawing = replace(item, draw=True)
            plain, drawn = await runtime.predict_batch([item, drawing])
            assert drawn.drawn is not None
            assert Image.open(io.BytesIO(drawn.drawn)).size == (1200, 800)
            assert plain.prediction is not None
            assert drawn.prediction is not None
            assert_close(plain.prediction, drawn.prediction)
            return plain.prediction

    exact = asyncio.run(answer(decode="exact"))
    assert decodings.scales == [1, 1]
    fast = asyncio.run(answer(decode="fast"))
    assert all(scale > 1 for scale in decodings.scales[2:])
    assert len(decodings.scales) == 4
    assert (fast.width, fast.height) == (exact.width, exact.height) == (1200, 800)
    if fast.task == "classify":
        assert sorted(fast.class_ids) == sorted(exact.class_ids)
    else:
        assert 600 < fast.boxes.max() <= 1200


def test_tiles_are_cut_from_the_full_image(
    locate: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decodings = Decodings(monkeypatch)

    async def story() -> None:
        with running(locate) as runtime:
            size = ModelDescription.load(locate("detect")).imgsz
            for longer, tiled, scale in (
                (4 * size, AUTO, 1),
                (4 * size, 2, 1),
                (4 * size, OFF, 4),
                (round(2.4 * size), AUTO, 2),
            ):
                item = InferenceItem(photo(0, longer, longer // 2), "detect", tiles=tiled)
                (result,) = await runtime.predict_batch([item])
                assert result.prediction is not None
                assert (result.prediction.width, result.prediction.height) == (longer, longer // 2)
                assert decodings.scales.pop() == scale, (longer, tiled)

    asyncio.run(story())
