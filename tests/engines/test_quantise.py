"""Quantisation to int8: which layers it takes, and what stays in fp32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines.quantise import (
    MOST_IMAGES,
    after_convolutions,
    calibration,
    network_input,
    quantised,
    write,
)
from errors import VisionLoopError
from inference.cpu._openvino import openvino
from inference.cpu.openvino_engine import INT8, OpenVinoEngine
from inference.onnx_engine import OnnxEngine
from models_store.description import ONNX_FILE, ModelDescription
from settings import Settings
from tests.support.scenes import encoded, scene

SETTINGS = Settings(device="cpu", sessions=2)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = []
    for number in range(6):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encoded(scene(200, 150, number), "PNG"))
        paths.append(path)
    return paths


@pytest.mark.parametrize("kind", ["detect", "segment", "pose", "classify", "mobilenet"])
def test_a_quantised_network_is_close_to_the_model(
    kind: str, gentle_folder: Callable[[str], Path], pictures: list[Path], tmp_path: Path
) -> None:
    folder = gentle_folder(kind)
    description = ModelDescription.load(folder)
    read: list[Path] = []

    def once_read(path: Path) -> np.ndarray:
        read.append(path)
        return network_input(path, description, "rect", 1_000_000)

    network = quantised(folder / ONNX_FILE, pictures, once_read)
    assert set(read) == set(pictures)
    write(network, tmp_path / "int8.xml")
    kinds = [node.get_type_name() for node in network.get_ordered_ops()]
    assert kinds.count("FakeQuantize") > 10
    engine = OpenVinoEngine(tmp_path / "int8.xml", INT8, description, SETTINGS)
    exact = OnnxEngine(folder, description, SETTINGS)
    assert engine.letterbox == exact.letterbox
    side = description.imgsz
    shape = (side * 3 // 4 // 32 * 32, side) if exact.letterbox == "rect" else (side, side)
    pixels = scene(shape[1], shape[0], 3)[None]
    got, wanted = engine.run(pixels), exact.run(pixels)
    assert [array.shape for array in got] == [array.shape for array in wanted]
    assert all(np.isfinite(array).all() for array in got)
    end = 4 + len(description.names)
    scores = slice(None) if description.task == "classify" else (slice(None), slice(4, end))
    off = np.abs(got[0] - wanted[0])[scores]
    assert 0 < off.mean() < 0.05  # it is another network, of nearly the same values
    for wide in (True, False):
        assert np.array_equal(engine.run(pixels, wide=wide)[0], got[0])


@pytest.mark.parametrize("kind", ["detect", "segment", "pose"])
def test_what_follows_the_last_convolutions_stays_in_fp32(
    kind: str, model_folder: Callable[[str], Path]
) -> None:
    network = openvino.Core().read_model(str(model_folder(kind) / ONNX_FILE))
    names = set(after_convolutions(network))
    nodes = {node.get_friendly_name(): node for node in network.get_ordered_ops()}
    kinds = [nodes[name].get_type_name() for name in names]
    assert {"Concat", "Softmax", "Sigmoid"} <= set(kinds)
    assert all("/dfl/" in n for n in names if nodes[n].get_type_name() == "Convolution")
    convolutions = [node for node in nodes.values() if node.get_type_name() == "Convolution"]
    assert sum(node.get_friendly_name() in names for node in convolutions) == 1  # that of the dfl
    assert len(convolutions) > 20


def test_at_most_as_many_images_as_needed_are_taken_evenly() -> None:
    few = [Path(f"{number}.png") for number in range(6)]
    many = [Path(f"{number}.png") for number in range(2 * MOST_IMAGES)]
    assert calibration(few) == few
    found = calibration(many)
    assert (len(set(found)), found[0], found[-1]) == (MOST_IMAGES, many[0], many[-1])


def test_without_images_there_is_no_int8(model_folder: Callable[[str], Path]) -> None:
    def never(path: Path) -> np.ndarray:
        raise AssertionError(path)

    with pytest.raises(VisionLoopError, match="no image to calibrate"):
        quantised(model_folder("classify") / ONNX_FILE, [], never)


@pytest.mark.parametrize("kind", ["detect", "mobilenet"])
def test_the_first_layer_fits_cpus_without_vnni(
    kind: str, gentle_folder: Callable[[str], Path], pictures: list[Path], tmp_path: Path
) -> None:
    """They add two products of 8 bits in 16: its weights have 7, those of the others 8."""
    folder = gentle_folder(kind)
    description = ModelDescription.load(folder)
    network = quantised(
        folder / ONNX_FILE,
        pictures,
        lambda path: network_input(path, description, "rect", 1_000_000),
    )
    write(network, tmp_path / "int8.xml")
    largest = []
    for node in openvino.Core().read_model(str(tmp_path / "int8.xml")).get_ordered_ops():
        if node.get_type_name() == "Convolution":
            weights = node
            while weights.get_type_name() != "Constant":
                port = 1 if weights is node else 0
                weights = weights.input(port).get_source_output().get_node()
            largest.append(int(np.abs(weights.get_data().astype(int)).max()))
    assert largest[0] <= 64
    assert max(largest[1:]) > 120
