from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference.images import decode_at_least
from inference.jpeg import dct_scale
from inference.preprocess import Letterbox, needed_size, normalise, prepare
from models_store.description import ModelDescription, Preprocessing
from tests.support.scenes import encoded, scene

SIZES = [(640, 480), (480, 640), (64, 64), (65, 64), (1, 300), (300, 1), (2000, 7), (33, 1000)]


def described(**preprocessing: Any) -> ModelDescription:
    return ModelDescription(
        task="classify",
        family="mobilenet",
        names=("a",),
        architecture={},
        preprocessing=Preprocessing(**preprocessing),
    )


def square(pixels: Any, how: ModelDescription) -> Letterbox:
    return Letterbox.of(how, "square", pixels.shape[1], pixels.shape[0])


@pytest.mark.parametrize("size", SIZES)
def test_letterbox_is_that_of_ultralytics(size: tuple[int, int]) -> None:
    from ultralytics.data.augment import LetterBox

    pixels = scene(*size)
    wanted = np.asarray(LetterBox((64, 64), auto=False, scaleup=True)(image=pixels[..., ::-1]))
    np.testing.assert_array_equal(Letterbox(*size, 64).apply(pixels), wanted[..., ::-1])


@pytest.mark.parametrize("stride", [32, 64])
@pytest.mark.parametrize("size", [*SIZES, (417, 640), (640, 417), (33, 1), (1920, 1080)])
def test_the_rectangle_is_that_of_ultralytics_predict(size: tuple[int, int], stride: int) -> None:
    from ultralytics.data.augment import LetterBox

    pixels = scene(*size)
    place = Letterbox(*size, 640, stride)
    wanted = np.asarray(LetterBox((640, 640), auto=True, stride=stride)(image=pixels[..., ::-1]))
    np.testing.assert_array_equal(place.apply(pixels), wanted[..., ::-1])
    assert place.frame == wanted.shape[1::-1]


def test_an_image_that_was_decoded_smaller_keeps_its_place() -> None:
    pixels = scene(640, 480)
    place = Letterbox(2560, 1920, 640, 32)
    np.testing.assert_array_equal(place.apply(pixels, scale=4), pixels)
    assert place.boxes_to_image(np.array([[0, 0, 640, 480]], np.float32)).tolist() == [
        [0, 0, 2560, 1920]
    ]


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    imgsz=st.sampled_from([64, 320, 640, 1280]),
    boxes=st.lists(st.lists(st.floats(-100, 1400, width=32), min_size=4, max_size=4), max_size=5),
)
@settings(max_examples=150, deadline=None)
def test_boxes_go_back_as_with_ultralytics(
    width: int, height: int, imgsz: int, boxes: list[list[float]]
) -> None:
    from ultralytics.utils.ops import scale_boxes

    array = np.array(boxes, np.float32).reshape(-1, 4)
    wanted = scale_boxes((imgsz, imgsz), array.copy(), (height, width))
    got = Letterbox(width, height, imgsz).boxes_to_image(array)
    np.testing.assert_allclose(got, wanted, atol=0.01, rtol=1e-5)
    assert got.dtype == np.float32
    assert (got >= 0).all()
    assert (got <= np.array((width, height, width, height))).all()


@given(width=st.integers(1, 4000), height=st.integers(1, 4000))
@settings(max_examples=50, deadline=None)
def test_letterbox_corners_map_to_the_pictures_corners(width: int, height: int) -> None:
    place = Letterbox(width, height, 640)
    corners = np.array((place.offset, np.add(place.offset, place.resized)), np.float32)
    np.testing.assert_allclose(
        place.points_to_image(corners), ((0, 0), (width, height)), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("size", [s for s in SIZES if max(s) / min(s) < 10])
@pytest.mark.parametrize(("imgsz", "resize_to"), [(64, 64), (48, 64), (80, 64)])
def test_centre_crop_is_that_of_torchvision(
    size: tuple[int, int], imgsz: int, resize_to: int
) -> None:
    from torchvision import transforms

    pixels = scene(*size)
    wanted = transforms.Compose([transforms.Resize(resize_to), transforms.CenterCrop(imgsz)])(
        Image.fromarray(pixels)
    )
    how = described(resize="centre_crop", imgsz=imgsz, resize_to=resize_to, antialias=True)
    np.testing.assert_array_equal(prepare(pixels, how, square(pixels, how)), np.asarray(wanted))


@pytest.mark.parametrize("size", [(3000, 20), (20, 3000), (2000, 1), (1, 2000)])
def test_centre_crop_of_long_pictures_is_as_good_without_the_long_way(
    size: tuple[int, int],
) -> None:
    from torchvision import transforms

    pixels = scene(*size)
    wanted = transforms.Compose([transforms.Resize(48), transforms.CenterCrop(48)])(
        Image.fromarray(pixels)
    )
    how = described(resize="centre_crop", imgsz=48, resize_to=48, antialias=True)
    difference = np.abs(prepare(pixels, how, square(pixels, how)).astype(int) - np.asarray(wanted))
    assert difference.max() <= 2


def test_centre_crop_of_a_strip_of_a_million_pixels_stays_small() -> None:
    pixels = np.full((1, 1_000_000, 3), 200, np.uint8)
    how = described(resize="centre_crop", imgsz=224, resize_to=256, antialias=True)
    assert (prepare(pixels, how, square(pixels, how)) == 200).all()


def test_squash_is_that_of_torchvision() -> None:
    from torchvision import transforms

    pixels = scene(97, 201)
    wanted = transforms.Resize((64, 64))(Image.fromarray(pixels))
    how = described(resize="squash", imgsz=64, antialias=True)
    got = prepare(pixels, how, square(pixels, how))
    np.testing.assert_array_equal(got, np.asarray(wanted))


def test_normalisation_is_that_of_torchvision() -> None:
    from torchvision import transforms

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = scene(32, 32)
    wanted = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])(
        pixels.copy()
    )
    how = Preprocessing(resize="squash", imgsz=32, mean=mean, std=std)
    np.testing.assert_allclose(normalise(pixels[None], how)[0], wanted.numpy(), atol=1e-6)
    plain = normalise(pixels[None], Preprocessing(resize="squash", imgsz=32))
    np.testing.assert_array_equal(plain[0], pixels.transpose(2, 0, 1).astype(np.float32) / 255)


def test_one_channel_models_get_grey() -> None:
    how = described(resize="letterbox", imgsz=64).model_copy(update={"channels": 1})
    prepared = prepare(scene(100, 50), how, Letterbox(100, 50, 64))
    assert prepared.shape == (64, 64, 1)
    assert normalise(prepared[None], how.preprocessing).shape == (1, 1, 64, 64)


def ramp(width: int, height: int) -> np.ndarray:
    """An image whose red and green tell the place, so that a shift shows."""
    x = np.broadcast_to(np.linspace(0, 255, width)[None], (height, width))
    y = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    return np.rint(np.stack((x, y, np.full_like(x, 128)), axis=-1)).astype(np.uint8)


WAYS: list[dict[str, Any]] = [
    {"resize": "letterbox"},
    {"resize": "squash"},
    {"resize": "squash", "antialias": True},
    {"resize": "centre_crop", "resize_to": 72},
    {"resize": "centre_crop", "resize_to": 72, "antialias": True},
    {"resize": "centre_crop", "resize_to": 72, "interpolation": "bicubic"},
]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("size", [(521, 393), (393, 521), (600, 601), (2561, 1707)])
def test_an_image_at_a_dct_scale_is_placed_as_the_full_one(
    size: tuple[int, int], how: dict[str, Any]
) -> None:
    model = described(imgsz=64, **how)
    needed = needed_size(model, "fast")
    data = encoded(ramp(*size), "JPEG", quality=100, subsampling=0)
    full = decode_at_least(data, 10**7, needed_size(model, "exact"))
    fast = decode_at_least(data, 10**7, needed)
    assert full.scale == 1
    assert fast.scale > 1
    place = Letterbox(*size, 64)
    wanted = prepare(full.pixels, model, place).astype(float)
    got = prepare(fast.pixels, model, place, fast.scale)
    assert got.shape == wanted.shape
    columns, rows = (got - wanted)[..., 0].mean(axis=0), (got - wanted)[..., 1].mean(axis=1)
    assert np.abs(columns).max() < 1  # four levels are a pixel
    assert np.abs(rows).max() < 1


def test_a_strip_at_a_dct_scale_is_cropped_as_the_full_one() -> None:
    how = described(resize="centre_crop", imgsz=8, resize_to=8)
    place = Letterbox(2401, 17, 8)
    data = encoded(ramp(2401, 17), "JPEG", quality=100, subsampling=0)
    full, fast = (decode_at_least(data, 10**7, needed_size(how, way)) for way in ("exact", "fast"))
    assert fast.scale == 2
    wanted = prepare(full.pixels, how, place).astype(int)
    assert np.abs(prepare(fast.pixels, how, place, fast.scale) - wanted).max() <= 12


@given(
    width=st.integers(1, 9000), height=st.integers(1, 9000), imgsz=st.sampled_from([64, 320, 640])
)
@settings(max_examples=200, deadline=None)
@pytest.mark.parametrize("resize", ["letterbox", "squash", "centre_crop"])
def test_what_is_decoded_is_never_enlarged(
    resize: str, width: int, height: int, imgsz: int
) -> None:
    needed = needed_size(described(resize=resize, imgsz=imgsz), "fast")
    assert needed is not None
    size = needed(width, height)
    scale = dct_scale(width, height, 1, size)
    assert scale == 1 or (-(-width // scale) >= size[0] and -(-height // scale) >= size[1])
    assert scale == 8 or any(-(-side // (2 * scale)) < least for side, least in
        zip((width, height), size, strict=True)) or min(width, height) < 2 * scale  # fmt: skip
