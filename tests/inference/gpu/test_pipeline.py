"""The way of a GPU, run on the CPU, answers what the NumPy path answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from formats.geometry import fill_parts, overlap
from inference.cancellation import Halt, Halted
from inference.engine import DeviceEngine, disagreement, find_each, run_each
from inference.gpu import jpeg, pipeline
from inference.gpu.graphs import FREQUENT
from inference.gpu.letterbox import letterbox
from inference.images import decode, read_plain_jpeg
from inference.onnx_engine import OnnxEngine
from inference.postprocess import Detections, Found, Thresholds, postprocess
from inference.prediction import Prediction
from inference.preprocess import Letterbox, prepare
from inference.torch_engine import TorchEngine
from models_store.description import ModelDescription
from settings import Settings
from tests.support.patience import PATIENCE, wait_until
from tests.support.scenes import encoded, scene

KINDS = ("detect", "segment", "pose", "pose2", "classify", "mobilenet")
SIZES = [(320, 240), (97, 211), (160, 160), (640, 360), (320, 240)]
CPU = torch.device("cpu")
DRAWN = 5  # masks of an image that are drawn and compared


class Case:
    """Drawn scenes prepared for a model, with the thresholds of each."""

    def __init__(self, folder: Path, sizes: Sequence[tuple[int, int]] = SIZES) -> None:
        self.folder = folder
        self.description = ModelDescription.load(folder)
        self.scenes = [scene(*size, seed=seed) for seed, size in enumerate(sizes)]
        self.places = [Letterbox.of(self.description, "rect", *size) for size in sizes]
        self.prepared = [
            prepare(pixels, self.description, place)
            for pixels, place in zip(self.scenes, self.places, strict=True)
        ]
        self.wanted = [Thresholds.of(self.description, 0.3)] * len(sizes)

    def predictions(self, found: Sequence[Found]) -> list[Prediction]:
        return [
            postprocess(
                one,
                self.description,
                place,
                confidence=wanted.confidence,
                iou=wanted.iou,
                max_det=wanted.max_det,
                classes=wanted.classes,
            )
            for one, place, wanted in zip(found, self.places, self.wanted, strict=True)
        ]

    def on_host(self, engine: TorchEngine) -> list[Prediction]:
        """From the raw outputs of the same engine, in NumPy."""
        return self.predictions(run_each(engine, self.prepared))

    def on_device(self, engine: TorchEngine) -> list[Prediction]:
        return self.predictions(engine.detect(self.prepared, self.places, self.wanted))


def assert_same(got: Sequence[Prediction], wanted: Sequence[Prediction]) -> None:
    """Same classes, boxes within 0.5 px, scores within 1e-3, in the same order."""
    for one, other in zip(got, wanted, strict=True):
        assert one.class_ids.tolist() == other.class_ids.tolist()
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.5)
        assert (one.keypoints is None) == (other.keypoints is None)
        if one.keypoints is not None and other.keypoints is not None:
            np.testing.assert_allclose(one.keypoints, other.keypoints, atol=0.5)
        assert (one.polygons is None) == (other.polygons is None)
        if one.polygons is not None:
            for i in range(min(len(one), DRAWN)):
                drawn = [
                    fill_parts(each.outlines(i), one.width, one.height) for each in (one, other)
                ]
                assert overlap(*drawn) >= 0.98


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_detections_are_those_of_numpy(
    kind: str, graphs: bool, model_folder: Callable[[str], Path]
) -> None:
    case = Case(model_folder(kind))
    engine = TorchEngine(case.folder, "cpu", half=False, graphs=graphs)
    assert isinstance(engine, DeviceEngine)
    expected = case.on_host(engine)
    assert sum(map(len, expected)) > 5
    for _ in range(FREQUENT):
        assert_same(case.on_device(engine), expected)


@pytest.mark.parametrize("kind", ["detect", "segment", "pose", "classify"])
def test_predictions_are_those_of_the_onnx_engine(
    kind: str, model_folder: Callable[[str], Path]
) -> None:
    case = Case(model_folder(kind))
    # with suppression, two nearly equal overlaps would be decided by the engines' last bits
    case.wanted = [Thresholds.of(case.description, 0.3, iou=1.0)] * len(case.scenes)
    onnx = OnnxEngine(case.folder, case.description, Settings(device="cpu"))
    engine = TorchEngine(case.folder, "cpu", half=False)
    expected = case.predictions(find_each(onnx, case.prepared, case.places, case.wanted))
    got = case.on_device(engine)
    assert disagreement(engine, onnx, case.description) is None
    for one, other in zip(got, expected, strict=True):
        count = min(len(one), len(other), 10)
        np.testing.assert_allclose(one.scores[:count], other.scores[:count], atol=1e-3)
        assert abs(len(one) - len(other)) <= 1


@pytest.mark.parametrize("kind", ["detect", "segment", "pose", "classify"])
def test_each_image_has_its_own_thresholds(kind: str, model_folder: Callable[[str], Path]) -> None:
    case = Case(model_folder(kind))
    case.wanted = [
        Thresholds(0.3, 0.7, 300),
        Thresholds(0.05, 0.2, 2),
        Thresholds(0.999999, 0.7, 300),
        Thresholds(0.1, 0.7, 300, (1,)),
        Thresholds(0.1, 0.7, 3, (0, 2)),
    ]
    engine = TorchEngine(case.folder, "cpu", half=False)
    expected = case.on_host(engine)
    assert_same(case.on_device(engine), expected)
    assert len(expected[0]) > 0
    assert len(expected[2]) == 0
    assert len(expected[1]) <= 2
    assert set(expected[3].class_ids.tolist()) <= {1}


@pytest.mark.parametrize("kind", ["detect", "segment", "pose"])
def test_nothing_found(kind: str, model_folder: Callable[[str], Path]) -> None:
    case = Case(model_folder(kind))
    case.wanted = [Thresholds(1.0, 0.7, 300)] * len(case.scenes)
    got = case.on_device(TorchEngine(case.folder, "cpu", half=False))
    assert_same(got, case.on_host(TorchEngine(case.folder, "cpu", half=False)))
    assert [len(one) for one in got] == [0] * len(SIZES)
    assert TorchEngine(case.folder, "cpu", half=False).detect([], [], []) == []


def test_images_of_one_shape_run_together(model_folder: Callable[[str], Path]) -> None:
    case = Case(model_folder("detect"))
    engine = TorchEngine(case.folder, "cpu", half=False, max_batch=2)
    batches = noting_shapes(engine)
    case.on_device(engine)
    assert sorted(batches) == sorted([(2, 128, 160), (1, 96, 160), (1, 160, 160), (1, 160, 96)])
    batches.clear()
    engine.run(np.stack([case.prepared[0]] * 5))
    assert batches == [(2, 128, 160), (2, 128, 160), (1, 128, 160)]


def noting_shapes(engine: TorchEngine) -> list[tuple[int, int, int]]:
    """Images, rows and columns of each batch that the networks run from now on."""
    batches: list[tuple[int, int, int]] = []
    for slot in slots(engine):

        def noted(images: Any, run: Any = slot.network) -> Any:
            batches.append((len(images), *images.shape[2:]))
            return run(images)

        slot.network = noted
    return batches


def slots(engine: TorchEngine) -> tuple[Any, ...]:
    with engine._pipeline._pool.all() as found:
        return found


def test_a_batch_of_a_recurring_shape_runs_in_the_graph_of_its_size(
    model_folder: Callable[[str], Path],
) -> None:
    case = Case(model_folder("detect"), [(320, 240)] * 3)
    engine = TorchEngine(case.folder, "cpu", half=False, graphs=True)
    expected = case.on_host(engine)
    for _ in range(FREQUENT):
        assert_same(case.on_device(engine), expected)
    wait_until(lambda: all(len(slot.graphs) == 1 for slot in slots(engine)))
    batches = noting_shapes(engine)
    for count in (3, 4, 1):
        case.on_device(engine) if count == 3 else engine.run(np.stack([case.prepared[0]] * count))
    assert batches == [(4, 128, 160), (4, 128, 160), (1, 128, 160)]  # the lone one has none yet
    assert_same(case.on_device(engine), expected)


def test_a_network_that_cannot_be_recorded_runs_without_a_graph(
    model_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(model_folder("detect"))
    engine = TorchEngine(case.folder, "cpu", half=False, graphs=True)
    tried = threading.Event()

    def refused(*_: Any) -> Any:
        tried.set()
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(engine._pipeline, "_graph", refused)
    expected = case.on_host(engine)
    for _ in range(2 * FREQUENT):
        assert_same(case.on_device(engine), expected)
    assert tried.wait(PATIENCE)
    assert_same(case.on_device(engine), expected)
    assert [len(slot.graphs) for slot in slots(engine)] == [0, 0]


def test_no_graph_is_recorded_on_a_gpu_that_is_nearly_full(
    model_folder: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(pipeline, "has_room", lambda _: False)
    case = Case(model_folder("detect"))
    engine = TorchEngine(case.folder, "cpu", half=False, graphs=True)
    expected = case.on_host(engine)
    for _ in range(2 * FREQUENT):
        assert_same(case.on_device(engine), expected)
    wait_until(lambda: "nearly full" in caplog.text)
    assert_same(case.on_device(engine), expected)
    assert [len(slot.graphs) for slot in slots(engine)] == [0, 0]
    assert caplog.text.count("nearly full") == 1


def test_one_model_at_a_time_records_graphs(
    model_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch permits one capture in a process."""
    case = Case(model_folder("detect"), [(320, 240)])
    engines = [TorchEngine(case.folder, "cpu", half=False, graphs=True) for _ in range(2)]
    running, most, both = [0], [0], threading.Event()
    record = pipeline.Pipeline._graph

    def noted(*given: Any) -> Any:
        running[0] += 1
        most[0] = max(most[0], running[0])
        both.wait(0.1)  # so that the other one would begin as well
        try:
            return record(*given)
        finally:
            running[0] -= 1

    monkeypatch.setattr(pipeline.Pipeline, "_graph", noted)
    for _ in range(FREQUENT):
        for engine in engines:
            case.on_device(engine)
    wait_until(lambda: all(len(slot.graphs) == 1 for one in engines for slot in slots(one)))
    assert most == [1]


@pytest.mark.parametrize("graphs", [False, True])
def test_batches_of_several_threads_do_not_mix(
    graphs: bool, model_folder: Callable[[str], Path]
) -> None:
    folder = model_folder("segment")
    engine = TorchEngine(folder, "cpu", half=False, graphs=graphs)
    cases = [Case(folder, [size] * count) for count, size in enumerate(SIZES[:4], 1)]
    expected = [detected(engine, case) for case in cases]
    assert min(len(one.scores) for found in expected for one in found) > 0

    def ask(turn: int) -> None:
        index = turn % len(cases)
        for one, other in zip(detected(engine, cases[index]), expected[index], strict=True):
            np.testing.assert_allclose(one.boxes, other.boxes, atol=0.01)
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
            assert one.masks is not None
            assert other.masks is not None
            for logits, others in zip(one.masks.logits, other.masks.logits, strict=True):
                np.testing.assert_allclose(logits, others, atol=1e-2, rtol=1e-2)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(32)))


def detected(engine: TorchEngine, case: Case) -> list[Detections]:
    return cast(list[Detections], engine.detect(case.prepared, case.places, case.wanted))


def test_half_precision_agrees_with_single(model_folder: Callable[[str], Path]) -> None:
    case = Case(model_folder("detect"))
    onnx = OnnxEngine(case.folder, case.description, Settings(device="cpu"))
    half = TorchEngine(case.folder, "cpu", half=True)
    assert half.backend == "pytorch-cpu-fp16"
    assert disagreement(half, onnx, case.description) is None
    raw, reference = half.run(case.prepared[0][None])[0], onnx.run(case.prepared[0][None])[0]
    assert raw.dtype == np.float32
    assert len(np.unique(raw[0, :2])) > 0.9 * raw[0, :2].size  # not rounded to half pixels
    assert np.abs(raw - reference)[0, :4].max() < 1


def test_a_halted_call_stops_between_two_batches(model_folder: Callable[[str], Path]) -> None:
    case = Case(model_folder("detect"))
    engine = TorchEngine(case.folder, "cpu", half=False)
    halt, batches = Halt(), noting_shapes(engine)
    run = slots(engine)[0].network

    def halting(images: Any) -> Any:
        halt.order()
        return run(images)

    for slot in slots(engine):
        slot.network = halting
    with pytest.raises(Halted):
        engine.detect(case.prepared, case.places, case.wanted, halt)
    assert len(batches) == 1
    with pytest.raises(Halted):
        engine.run(case.prepared[0][None], halt=halt)
    assert len(batches) == 1


@pytest.mark.parametrize("size", [*SIZES, (1280, 960), (2, 300), (1000, 700)])
@pytest.mark.parametrize("imgsz", [160, 640])
def test_letterbox_of_the_device_is_at_most_a_level_off(size: tuple[int, int], imgsz: int) -> None:
    pixels, place = scene(*size), Letterbox(*size, imgsz, 32)
    wanted = place.apply(pixels).astype(np.int16)
    got = letterbox(torch.from_numpy(pixels.transpose(2, 0, 1).copy()), place).numpy()
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= 1
    assert (got != wanted).mean() < 0.15


def test_jpegs_decoded_by_the_device_are_answered_as_those_of_the_host(
    model_folder: Callable[[str], Path],
) -> None:
    case = Case(model_folder("detect"))
    engine = TorchEngine(case.folder, "cpu", half=False, decodes=True)
    assert engine.decodes
    jpegs = [encoded(pixels, quality=95) for pixels in case.scenes]
    assert [read_plain_jpeg(data, 10_000_000) for data in jpegs] == SIZES
    *images, broken = engine.decode(
        [*jpegs, b"\xff\xd8 no JPEG \xff\xd9"], [*case.places, case.places[0]]
    )
    assert broken is None
    case.prepared = []
    for data, place, image in zip(jpegs, case.places, images, strict=True):
        on_host = prepare(decode(data, 10_000_000), case.description, place)
        assert np.abs(image.numpy().astype(np.int16) - on_host).max() <= 1
        case.prepared.append(image.numpy())
    expected = case.on_host(engine)
    mixed = [image if i % 2 else case.prepared[i] for i, image in enumerate(images)]
    for given in (images, mixed):
        found = engine.detect(given, case.places, case.wanted)
        assert_same(case.predictions(found), expected)


def test_the_device_decodes_only_for_detectors_that_letterbox(
    model_folder: Callable[[str], Path],
) -> None:
    assert not TorchEngine(model_folder("classify"), "cpu", half=False, decodes=True).decodes
    assert not TorchEngine(model_folder("detect"), "cpu", half=False).decodes


def test_whether_decoding_pays_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"host": 1.0, "device": 0.5}
    order = iter(("host", "device") * 2)
    monkeypatch.setattr(jpeg, "_seconds", lambda work: (work(), times[next(order)])[1])
    assert jpeg.pays(CPU)
    times["device"] = 0.9
    assert not jpeg.pays(CPU)


def test_a_decoder_that_gives_other_pixels_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    real = jpeg._decode
    monkeypatch.setattr(jpeg, "_decode", lambda *args: [255 - one for one in real(*args)])
    assert not jpeg.pays(CPU)
    monkeypatch.setattr(jpeg, "_decode", lambda *_: [][1])  # as without nvJPEG
    assert not jpeg.pays(CPU)
