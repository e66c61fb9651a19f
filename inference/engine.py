"""Inference engines: their protocol, and the choice of the fastest one available."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from errors import EngineUnavailable
from inference import engine_files
from inference.cancellation import Halt
from inference.cpu.engine_choice import (
    INT8_FILE,
    StoredChoice,
    choice_folder,
    damaged_file,
    read_choice,
)
from inference.device import device, limits
from inference.gpu.faults import is_sticky
from inference.images import Pixels
from inference.onnx_engine import OnnxEngine
from inference.postprocess import Found, Thresholds
from inference.prediction import Float
from inference.preprocess import Letterbox, LetterboxKind, prepare
from models_store.description import ONNX_FILE, ModelDescription
from settings import Settings

log = logging.getLogger("visionloop.inference")

# Maximum differences between a GPU backend and the fp32 ONNX model: of 99 % of the box coordinates,
# in input pixels, and of every score. YOLOv8n in half precision differs by 0.3 pixels.
PIXELS_TOLERANCE = 2.0
SCORES_TOLERANCE = 0.02

# Maximum differences between two engines in fp32, of all boxes and keypoints in input pixels, of
# scores, and of masks relative to the largest value. YOLOv8n differs by 0.001 pixels.
EXACT_PIXELS = 0.5
EXACT_SCORES = 1e-3
EXACT_MASKS = 1e-2


class Engine(Protocol):
    """A loaded network. `run` may be called from several threads at once.

    Attributes:
        backend: Name in `status`, such as `onnxruntime-cpu`.
        batched: Whether many images in one `run` are faster than one at a time.
        letterbox: `rect` if the engine takes inputs of any height and width that are multiples
            of the stride; `square` if it only takes imgsz × imgsz.
    """

    backend: str
    batched: bool
    letterbox: LetterboxKind

    def run(
        self, pixels: NDArray[np.uint8], wide: bool = False, halt: Halt | None = None
    ) -> tuple[Float, ...]:
        """The network's raw outputs for prepared images, as `models_store.export` lists them.

        Args:
            pixels: (n, h, w, channels) RGB uint8, see `preprocess.prepare`.
            wide: Use the whole device for this call, because no other call is running.
            halt: May stop the run early. A GPU run takes milliseconds and is not stopped.

        Returns:
            float32 arrays, each with n rows.

        Raises:
            Halted: `halt` was set, and the run stopped early.
        """
        ...


class DeviceImage(Protocol):
    """An image on the engine's device, prepared as by `preprocess.prepare`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, columns, channels."""
        ...


@runtime_checkable
class DeviceEngine(Engine, Protocol):
    """An engine on a GPU, which returns detections instead of the megabytes of raw outputs."""

    def detect(
        self,
        images: Sequence[Pixels | DeviceImage],
        places: Sequence[Letterbox],
        wanted: Sequence[Thresholds],
        halt: Halt | None = None,
    ) -> list[Found]:
        """What is in each prepared image; of a classifier, the raw outputs.

        Images of the same shape run together.

        Args:
            images: Of any shapes, see `preprocess.prepare`.
            places: The letterbox of each image.
            wanted: The thresholds of each image.
            halt: May stop the call between two batches.

        Raises:
            Halted: `halt` was set.
        """
        ...

    def decode(
        self, jpegs: Sequence[bytes], places: Sequence[Letterbox]
    ) -> list[DeviceImage | None]:
        """Decode and prepare JPEGs on the device; None for one that the device cannot decode.

        Args:
            jpegs: Files of which `images.read_plain_jpeg` says that a device may decode them.
            places: The letterbox of each image.
        """
        ...

    @property
    def decodes(self) -> bool:
        """Whether `decode` is faster here than the host's threads."""
        ...


def find_each(
    engine: Engine,
    prepared: Sequence[Pixels | DeviceImage],
    places: Sequence[Letterbox],
    wanted: Sequence[Thresholds],
    wide: bool = False,
    halt: Halt | None = None,
) -> list[Found]:
    """What the engine finds in each prepared image, for `postprocess`. Raises as `Engine.run`."""
    if isinstance(engine, DeviceEngine):
        return engine.detect(prepared, places, wanted, halt)
    return list(run_each(engine, cast(Sequence[Pixels], prepared), wide, halt))


def run_each(
    engine: Engine, prepared: Sequence[Pixels], wide: bool = False, halt: Halt | None = None
) -> list[list[Float]]:
    """The raw outputs for each prepared image (h, w, c), without the batch dimension.

    Images of the same shape run together.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(prepared):
        by_shape.setdefault(image.shape, []).append(index)
    found: dict[int, list[Float]] = {}
    for places in by_shape.values():
        outputs = engine.run(np.stack([prepared[index] for index in places]), wide, halt)
        for row, index in enumerate(places):
            found[index] = [output[row] for output in outputs]
    return [found[index] for index in range(len(prepared))]


def load_engine(folder: Path, settings: Settings) -> tuple[Engine, ModelDescription]:
    """The engine that serves the model in `folder` on this machine.

    On a CPU that is the one that was chosen by measurement (`engine_choice`), and ONNX Runtime
    where nothing was measured, or the chosen one cannot be loaded. On a GPU it is TensorRT if
    installed, else PyTorch, in half precision if that agrees with the fp32 ONNX on the CPU, else in
    single precision. A damaged ONNX file is first rebuilt from the weights. `settings.engine`
    forces one of them.

    Raises:
        ModelDamaged: It is damaged and cannot be rebuilt.
        InsufficientStorage: It is to be rebuilt, and the disk is full.
        EngineUnavailable: The forced engine cannot serve this model.
    """
    description = engine_files.load_description(folder)
    reference = _reference(folder, description, settings)
    if device(settings) == "cpu":
        return _cpu_engine(folder, description, settings, reference), description
    refusals = []
    for name, make in _cuda_engines(folder, description, settings):
        try:
            engine = make()
            reason = disagreement(engine, reference, description)
            if reason is None:
                _select(engine, description)
        except Exception as error:  # driver, build or missing library; the next backend may work
            if is_sticky(error):
                raise
            log.exception("%s: %s cannot be used", folder.name, name)
            refusals.append(f"{name} cannot be used ({type(error).__name__}; see the log)")
            continue
        if reason is None:
            return engine, description
        log.warning("%s: %s is not used: %s", folder.name, name, reason)
        refusals.append(f"{name}: {reason}")
    if settings.engine != "auto":
        raise unavailable(folder, settings, "; ".join(refusals))
    log.warning("%s: no GPU backend works; the model runs on the CPU", folder.name)
    return reference, description


def load_exact_engine(folder: Path, settings: Settings) -> tuple[Engine, ModelDescription]:
    """The engine with which models are measured, so that their metrics can be compared.

    On a CPU it is ONNX Runtime in fp32, whatever serves; on a GPU it is the engine that serves.
    Raises as `load_engine`.
    """
    if device(settings) == "cpu":
        settings = settings.model_copy(update={"engine": "onnxruntime"})
    return load_engine(folder, settings)


def unavailable(folder: Path, settings: Settings, why: str) -> EngineUnavailable:
    """The error for a model that the forced engine cannot serve."""
    return EngineUnavailable(
        f"VISIONLOOP_ENGINE is '{settings.engine}', which cannot serve the model "
        f"'{folder.parent.name}:{folder.name}': {why}. Set VISIONLOOP_ENGINE to auto, or to "
        "another engine."
    )


class _Refused(Exception):
    """Why an engine may not serve a model."""


def _cpu_engine(
    folder: Path, description: ModelDescription, settings: Settings, reference: Engine
) -> Engine:
    choice = read_choice(folder, settings)
    forced = settings.engine != "auto"
    wanted = settings.engine if forced else choice.engine if choice else "onnxruntime"
    if wanted not in ("openvino", "int8"):
        return reference
    try:
        if wanted == "int8":
            return _int8(folder, description, settings, choice)
        return _openvino(folder, description, settings, reference)
    except _Refused as error:
        if forced:
            raise unavailable(folder, settings, str(error)) from None
        reason = str(error)
    except Exception as error:  # OpenVINO is missing, or cannot run the network on this machine
        if forced:
            raise
        reason = str(error).strip() or type(error).__name__
    name = f"{folder.parent.name}:{folder.name}"
    log.warning("%s: %s was chosen and cannot serve; ONNX Runtime does: %s.", name, wanted, reason)
    return reference


def _openvino(
    folder: Path, description: ModelDescription, settings: Settings, reference: Engine
) -> Engine:
    from inference.cpu.openvino_engine import FP32, OpenVinoEngine  # imported only where it serves

    engine = OpenVinoEngine(folder / ONNX_FILE, FP32, description, settings)
    if (reason := fp32_disagreement(engine, reference, description)) is not None:
        raise _Refused(reason)
    return engine


def _int8(
    folder: Path,
    description: ModelDescription,
    settings: Settings,
    choice: StoredChoice | None,
) -> Engine:
    trial = None if choice is None else choice.trial("int8")
    name = f"{folder.parent.name}:{folder.name}"
    if choice is None or trial is None:
        raise _Refused(
            f"its engines were not tried on this machine yet; start it with "
            f"POST /models/{name}/engines or visionloop engines {name} --measure"
        )
    if not trial.usable:
        raise _Refused(trial.note.rstrip("."))
    files = choice_folder(folder, settings)
    if (damaged := damaged_file(choice, files)) is not None:
        raise _Refused(f"{damaged} is damaged; make it again: POST /models/{name}/engines")
    from inference.cpu.openvino_engine import INT8, OpenVinoEngine

    return OpenVinoEngine(files / INT8_FILE, INT8, description, settings)


def _reference(folder: Path, description: ModelDescription, settings: Settings) -> OnnxEngine:
    intact = engine_files.is_intact(folder)
    if intact is False:
        engine_files.rebuild(folder)
    try:
        engine = OnnxEngine(folder, description, settings)
    except Exception:
        if intact is not None:  # the file is as its export wrote it: something else is wrong
            raise
        engine_files.rebuild(folder)
        engine = OnnxEngine(folder, description, settings)
    if intact is None:
        engine_files.accept(folder)
    return engine


def _cuda_engines(
    folder: Path, description: ModelDescription, settings: Settings
) -> Iterator[tuple[str, Callable[[], Engine]]]:
    from inference.torch_engine import TorchEngine  # imports torch, not needed on a CPU

    wanted, most = settings.engine, limits(settings).max_batch
    if wanted != "torch" and importlib.util.find_spec("tensorrt") is not None:
        from inference.tensorrt_engine import TensorRTEngine, stored_plan

        cache = settings.paths.engines
        yield (
            "TensorRT",
            lambda: TensorRTEngine(
                description, most, stored_plan(folder, description, cache, most)
            ),
        )
    if wanted != "tensorrt":
        yield "PyTorch fp16", lambda: TorchEngine(folder, "cuda", True, most)
        yield "PyTorch fp32", lambda: TorchEngine(folder, "cuda", False, most)


def disagreement(engine: Engine, reference: Engine, description: ModelDescription) -> str | None:
    """The reason why a half-precision engine may not replace `reference`; None if it may.

    Both run one fixed image of smooth random blobs.
    """
    picture = _blobs(640, 480, description, engine, reference)
    got, wanted = engine.run(picture)[0], reference.run(picture)[0]
    if got.shape != wanted.shape:
        return f"its output is {got.shape}, not {wanted.shape}"
    off = np.abs(got - wanted)[0]
    if description.task == "classify":
        scores, places = off, off[:0]
    else:
        nc = len(description.names)
        scores, places = off[4 : 4 + nc], off[:4]
    worst_score = float(scores.max())
    worst_place = float(np.percentile(places, 99)) if places.size else 0.0
    if worst_score <= SCORES_TOLERANCE and worst_place <= PIXELS_TOLERANCE:  # false for NaN
        return None
    return f"scores differ by {worst_score:.3g}, boxes by {worst_place:.3g} pixels"


def _select(engine: Engine, description: ModelDescription) -> None:
    """Have a GPU engine select few and many candidates of an image, as requests will.

    Raises what they would get if that does not work on this device.
    """
    if isinstance(engine, DeviceEngine):
        picture = _blobs(640, 480, description, engine)[0]
        place = Letterbox.of(description, engine.letterbox, 640, 480)
        usual = Thresholds.of(description)
        for wanted in (usual, replace(usual, confidence=-1.0)):
            engine.detect([picture], [place], [wanted])


def fp32_disagreement(
    engine: Engine, reference: Engine, description: ModelDescription
) -> str | None:
    """The reason why an engine in fp32 may not replace `reference`; None if it may.

    Both run an upright and a lying image of smooth random blobs, narrow and wide.
    """
    worst = np.zeros(3)
    for size in ((640, 480), (480, 640)):
        picture = _blobs(*size, description, engine, reference)
        wanted = reference.run(picture)
        for wide in (False, True):
            got = engine.run(picture, wide=wide)
            if (shapes := [a.shape for a in got]) != [a.shape for a in wanted]:
                return f"its outputs are {shapes}, not {[a.shape for a in wanted]}"
            places, scores, masks = _differences(got, wanted, description)
            found = [off.max() if off.size else 0.0 for off in (places, scores, masks)]
            worst = np.maximum(worst, found)  # NaN stays NaN
    box, score, mask = worst
    if box <= EXACT_PIXELS and score <= EXACT_SCORES and mask <= EXACT_MASKS:
        return None
    return f"scores differ by {score:.3g}, boxes by {box:.3g} pixels, masks by {mask:.3g}"


def _differences(
    got: Sequence[Float], wanted: Sequence[Float], description: ModelDescription
) -> tuple[Float, Float, Float]:
    """Absolute differences of places (pixels), probabilities, and masks, for one image.

    Those of masks are relative to the largest value. What the task lacks is empty.
    """
    off, none = np.abs(got[0] - wanted[0])[0], np.zeros(0, np.float32)
    if description.task == "classify":
        return none, off, none
    end = 4 + len(description.names)
    places, scores, rest = off[:4], off[4:end], off[end:]
    if description.task == "pose" and description.keypoint_shape is not None:
        points = rest.reshape(*description.keypoint_shape, -1)
        places = np.concatenate((places.ravel(), points[:, :2].ravel()))
        return places, np.concatenate((scores.ravel(), points[:, 2:].ravel())), none
    if description.task != "segment":
        return places, scores, none
    parts = [(rest, wanted[0][0, end:]), (np.abs(got[1] - wanted[1]), wanted[1])]
    scaled = [part.ravel() / max(float(np.abs(values).max()), 1e-6) for part, values in parts]
    return places, scores, np.concatenate(scaled)


def _blobs(
    width: int, height: int, description: ModelDescription, *engines: Engine
) -> NDArray[np.uint8]:
    """A prepared image of smooth random blobs that all engines take, as a batch of one."""
    blobs = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    kind: LetterboxKind = "square" if any(e.letterbox == "square" for e in engines) else "rect"
    place = Letterbox.of(description, kind, width, height)
    image = cv2.resize(blobs, (width, height)).astype(np.uint8)
    return prepare(image, description, place)[None]
