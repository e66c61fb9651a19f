from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from inference.preprocess import Letterbox, normalise, prepare
from models_store.description import ModelDescription, Preprocessing
from tests.support.seeds import rng
from training.mobilenet.data import evaluation, preprocessing_for

SQUASH = Preprocessing(
    resize="squash", imgsz=64, antialias=False, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)


@pytest.mark.parametrize("size", [(70, 50), (50, 70), (200, 31), (32, 32)])
@pytest.mark.parametrize("known", [None, SQUASH])
def test_validation_sees_what_serving_sees(
    size: tuple[int, int], known: Preprocessing | None
) -> None:
    how = preprocessing_for(32, known)
    pixels = rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    description = ModelDescription(
        task="classify", family="mobilenet", names=("a",), architecture={}, preprocessing=how
    )
    place = Letterbox.of(description, "square", pixels.shape[1], pixels.shape[0])
    served = normalise(prepare(pixels, description, place)[None], how)[0]
    validated = evaluation(how)(Image.fromarray(pixels)).numpy()
    assert np.abs(served - validated).max() < 1e-5


def test_start_weights_keep_their_normalisation_at_another_size() -> None:
    assert preprocessing_for(96, SQUASH) == SQUASH.model_copy(
        update={"imgsz": 96, "antialias": True}
    )
    usual = preprocessing_for(224, None)
    assert (usual.resize, usual.imgsz, usual.resize_to) == ("centre_crop", 224, 256)
    assert preprocessing_for(112, usual).resize_to == 128
    assert preprocessing_for(32, Preprocessing(resize="letterbox", imgsz=640)).imgsz == 32
