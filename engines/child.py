"""Makes one export, as a child process: `python -m engines.child JSON`.

Prints one JSON object a line: `step` and `progress` while it works; at the end `export`, or `error`
and `code`. The file is written to a temporary folder, compared with the engine that serves, and
becomes visible only if it agrees.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock
from pydantic import BaseModel

from disk_space import NO_ROOM, check_room, is_disk_full
from engines.availability import check_available
from engines.metadata import metadata, notes
from engines.options import ExportOptions, ExportRequest, file_name, resolve
from engines.parity import BOUNDS, Case, Run, differences
from engines.probe_images import probe_images
from engines.store import ExportRecord, read_record
from errors import Conflict, InsufficientStorage, ModelNotFound, VisionLoopError
from files import atomic_folder, sha256_of
from inference.engine import Engine, load_engine
from inference.preprocess import Letterbox, normalise, prepare
from models_store.description import (
    DESCRIPTION_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    ModelDescription,
    Preprocessing,
)
from models_store.subprocesses import MEMORY, limit_self, refused
from models_store.versions import unless_deleted
from settings import Settings, get_settings

COPIES = 8  # sizes of the fp16 weights that an export needs at most, graphs in between included
CUDA_MEMORY = 1 << 46  # address space, of which the driver reserves terabytes
PROGRAMS = {
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "torchscript": ("torch", "ultralytics"),
    "pt": ("torch", "ultralytics"),
    "engine": ("onnx", "tensorrt", "torch"),
}

Report = Callable[[str, float], None]


class ExportTask(BaseModel):
    """What the process is asked for.

    Attributes:
        folder: The model's folder.
        model_id: Its `name:version`.
        content: Its `content_hash` when it was published.
        target: The folder of its exports.
        request: The options as they were sent.
        copied_to: A folder that gets a copy, and may not have a file of its name yet; None: any.
    """

    folder: Path
    model_id: str
    content: str
    target: Path
    request: ExportRequest
    copied_to: Path | None = None


@dataclass(frozen=True)
class Written:
    """An exported file and how to run it.

    Attributes:
        path: The file to offer.
        run: Runs it as its users do.
        runtime: The program that runs it here.
        usual: Runs it as the program does by itself, where that is less precise.
        usual_precision: The precision of its layers then.
    """

    path: Path
    run: Run
    runtime: str
    usual: Run | None = None
    usual_precision: str = ""


def make(task: ExportTask, settings: Settings, report: Report) -> ExportRecord:
    """The export of a task: the one that exists, or a new one.

    Raises:
        VisionLoopError: It cannot be made, or does not reproduce the model; nothing is left.
    """
    with unless_deleted(task.model_id, task.folder):
        return _make(task, settings, report)


def _make(task: ExportTask, settings: Settings, report: Report) -> ExportRecord:
    description = ModelDescription.load(task.folder)
    options = resolve(task.request, description)
    check_available(options.format, settings)
    if task.copied_to is not None:  # before the work begins
        copy = task.copied_to / file_name(task.model_id, options)
        if copy.exists():
            raise Conflict(f"{copy} exists already. Name another file, or overwrite it: --force.")
    key, gpu = options.key, None
    if options.format == "engine":
        from engines.tensorrt_file import engine_key, gpu_name

        key, gpu = engine_key(options), gpu_name()
    task.target.mkdir(parents=True, exist_ok=True)
    with FileLock(task.target / f".{key}.lock"):  # a second process then finds what it made
        found = read_record(task.target / key)
        if found is not None and found.content == task.content:
            return found
        check_room(settings, COPIES * (task.folder / WEIGHTS_FILE).stat().st_size)
        with atomic_folder(task.target / key) as folder:
            about = metadata(description, task.model_id, options)
            exporter = Exporter(task, settings, description, options, about, folder, report)
            record = exporter.make(key, gpu)
            record.save(folder)
            if not (task.folder / DESCRIPTION_FILE).exists():
                raise ModelNotFound(f"No model '{task.model_id}': it has been deleted.")
    return record


class Exporter:
    """Writes and checks one export."""

    def __init__(
        self,
        task: ExportTask,
        settings: Settings,
        description: ModelDescription,
        options: ExportOptions,
        about: dict[str, Any],
        folder: Path,
        report: Report,
    ) -> None:
        self.task, self.options, self.report = task, options, report
        self.description, self.about, self.folder = description, about, folder
        exact = settings.model_copy(update={"device": "cpu", "engine": "onnxruntime"})
        self.serving, _ = load_engine(task.folder, exact)
        self._network: Any = None

    def make(self, key: str, gpu: str | None) -> ExportRecord:
        options = self.options
        self.report(f"Writing {options.format}.", 0.1)
        scratch = self.folder / "scratch"
        scratch.mkdir()
        written = self._write(self.folder / file_name(self.task.model_id, options), scratch)
        self.report("Comparing it with the model that serves.", 0.6)
        parity = self._check(written)
        for file in sorted(scratch.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        scratch.rmdir()
        return ExportRecord(
            id=key,
            model_id=self.task.model_id,
            content=self.task.content,
            **options.model_dump(),
            file=written.path.name,
            size_bytes=written.path.stat().st_size,
            sha256=sha256_of(written.path),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            parity=parity,
            notes=[*notes(self.description, options), *_usual_notes(parity)],
            versions={name: version(name) for name in PROGRAMS[options.format]},
            gpu=gpu,
        )

    @property
    def network(self) -> Any:
        """The model in PyTorch, which takes seconds to import."""
        if self._network is None:
            from engines.network import Network

            self._network = Network(self.task.folder)
        return self._network

    # -- writing

    def _write(self, path: Path, scratch: Path) -> Written:
        options = self.options
        if options.format == "pt":
            from engines.network import Network, read_checkpoint

            # from weights of its own: half precision would change those it is compared with
            Network(self.task.folder).write_checkpoint(path, options.precision)
            return Written(path, read_checkpoint(path, self.description), _named("torch"))
        if options.format == "torchscript":
            from engines.network import read_torchscript

            self.network.write_torchscript(path, options, self.about)
            return Written(path, read_torchscript(path), _named("torch"))
        graph = path if options.format == "onnx" else scratch / "graph.onnx"
        self._write_graph(graph, scratch)
        if options.format == "openvino":
            return self._write_openvino(graph, path, scratch)
        if options.format == "engine":
            from engines.tensorrt_file import read_engine, write_engine

            write_engine(graph, path, options, self.about)
            return Written(path, read_engine(path, self.description, options), _named("tensorrt"))
        return Written(path, _read_onnx(path), _named("onnxruntime"))

    def _write_graph(self, graph: Path, scratch: Path) -> None:
        from engines.graph import finish_graph

        options = self.options
        source = self.task.folder / ONNX_FILE
        stored_dynamic = self.serving.letterbox == "rect"
        if options.dynamic != stored_dynamic or options.imgsz != self.description.imgsz:
            source = scratch / "traced.onnx"
            self.network.write_graph(source, options.imgsz, options.dynamic)
        how = self.description.preprocessing
        blank = np.zeros((1, 3, options.imgsz, options.imgsz), np.float32)
        shapes = [output.shape for output in _read_onnx(source)(blank)]
        finish_graph(source, graph, options, how, shapes, self.about)

    def _write_openvino(self, graph: Path, path: Path, scratch: Path) -> Written:
        from engines.openvino_files import pack, read_openvino, write_openvino

        stem = self.task.model_id.replace(":", "-")
        folder = scratch / "openvino"
        xml = write_openvino(graph, folder, self.options, self.description, self.about, stem)
        pack(folder, path)
        run, _ = read_openvino(xml, exact=True)
        usual, precision = read_openvino(xml, exact=False)
        written = Written(path, run, _named("openvino"))
        if precision == "f32":
            return written
        return replace(written, usual=usual, usual_precision=precision)

    # -- checking

    def _check(self, written: Written) -> dict[str, Any]:
        options = self.options
        cases, references = zip(*self._cases(), strict=True)
        bounds = BOUNDS[options.precision].scaled(options.imgsz)
        batch = 2 if options.dynamic else options.max_batch
        found = differences(written.run, cases, self.description, batch)
        found.check(bounds)
        parity: dict[str, Any] = {
            "reference": " and ".join(dict.fromkeys(references)),
            "runtime": written.runtime,
            "images": found.images,
            **found.to_json(bounds.candidates),
            "allowed_score_error": bounds.score,
        }
        if self.description.task != "classify":
            parity["candidates"] = found.compared(bounds.candidates).shape[1]
            parity["allowed_box_error_px"] = bounds.box
        if self.description.task == "segment":
            parity["allowed_mask_error"] = bounds.mask
        if written.usual is not None:
            usual = differences(written.usual, cases, self.description, batch)
            figures = usual.to_json(BOUNDS["fp16"].candidates)
            parity["default_precision"] = written.usual_precision
            parity |= {f"default_{name}": value for name, value in figures.items()}
        return parity

    def _cases(self) -> Iterator[tuple[Case, str]]:
        """Prepared images with the outputs to compare with, and the name of what gave them."""
        images, description = probe_images(), self.description
        if self.options.dynamic or self.options.imgsz == description.imgsz:
            places = [Letterbox.of(description, "square", *image.shape[1::-1]) for image in images]
            prepared = np.stack(
                [prepare(i, description, place) for i, place in zip(images, places, strict=True)]
            )
            yield Case(_unit(prepared), _served(self.serving, prepared)), self.serving.backend
        for height, width in self._other_sizes():
            sized = [cv2.resize(image, (width, height)) for image in images]
            prepared = np.stack([np.asarray(image, np.uint8) for image in sized])
            outputs = [self.network.run(_unit(part[None])) for part in prepared]
            expected = tuple(np.concatenate(parts) for parts in zip(*outputs, strict=True))
            yield Case(_unit(prepared), expected), _named("torch")

    def _other_sizes(self) -> list[tuple[int, int]]:
        size, stride = self.options.imgsz, self.description.stride
        if self.options.dynamic:  # a rectangle, as Ultralytics pads for such a model
            return [(max(stride, size * 3 // 4 // stride * stride), size)]
        return [] if size == self.description.imgsz else [(size, size)]


def _served(engine: Engine, prepared: np.ndarray) -> tuple[Any, ...]:
    outputs = [engine.run(part[None], wide=True) for part in prepared]
    return tuple(np.concatenate(parts) for parts in zip(*outputs, strict=True))


def _unit(prepared: np.ndarray) -> np.ndarray:
    """Images (n, h, w, 3) as (n, 3, h, w) from 0 to 1."""
    return normalise(prepared, Preprocessing(resize="squash", imgsz=prepared.shape[1]))


def _read_onnx(path: Path) -> Run:
    from models_store._onnxruntime import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})


def _named(package: str) -> str:
    return f"{package} {version(package)}"


def _usual_notes(parity: dict[str, Any]) -> list[str]:
    if "default_precision" not in parity:
        return []
    box = parity.get("default_max_box_error_px")
    lowest = BOUNDS["fp16"].candidates
    boxes = f", boxes with a score of {lowest} and more by up to {box:.2g} px" if box else ""
    return [
        f"OpenVINO computes in {parity['default_precision']} on a CPU like this server's unless "
        "it is told EXECUTION_MODE_HINT=ACCURACY. Scores then differ by up to "
        f"{parity['default_max_score_error']:.2g}{boxes}."
    ]


def main() -> int:
    logging.disable(logging.INFO)
    task = ExportTask.model_validate_json(sys.argv[1])
    limit_self(CUDA_MEMORY if task.request.format == "engine" else MEMORY)

    def report(step: str, progress: float) -> None:
        print(json.dumps({"step": step, "progress": progress}), flush=True)

    try:
        record = make(task, get_settings(), report)
    except VisionLoopError as error:
        return refused(error)
    except MemoryError:
        return refused(VisionLoopError("The export needs more memory than it may use."))
    except Exception as error:
        if is_disk_full(error):
            return refused(InsufficientStorage(NO_ROOM))
        raise
    print(json.dumps({"export": record.model_dump()}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
