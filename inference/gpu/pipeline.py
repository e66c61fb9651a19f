"""From prepared images to detections on one device, with two batches in flight.

A slot is what one batch needs: a stream, page-locked buffers on the host and its own CUDA graphs.
While the network works for one slot, the other copies, selects, or waits for its thread. Batches
of one shape that recur get a graph (`graphs`), recorded by a thread of its own between two
batches; other shapes are launched kernel by kernel. A CPU has neither streams nor graphs: there
everything runs at once, and a stand-in for a graph computes again into the same tensors.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.cancellation import Halt
from inference.gpu import jpeg
from inference.gpu.graphs import MOST, GraphCache, Shape, SlotPool, bucket
from inference.gpu.letterbox import letterbox
from inference.gpu.suppression import Kept, Ranked, rank, suppress
from inference.postprocess import Detections, Found, MaskLogits, Thresholds, mask_windows
from inference.prediction import Float
from inference.preprocess import Letterbox
from models_store.description import ModelDescription

log = logging.getLogger("visionloop.inference")

SLOTS = 2  # batches in flight
ROOM = 0.25  # share of a GPU's memory that graphs leave to batches, other models and trainings
WARM_UP = 3  # runs before a graph is recorded: cuDNN chooses its kernels in them

_one_capture = threading.Lock()  # PyTorch permits one capture at a time in a process

Network = Callable[[Tensor], Sequence[Tensor]]
"""Normalised images (n, c, h, w) to the outputs of `models_store.export.ServingModule`."""


class Heads(NamedTuple):
    """What the fixed part of the work gives: the network and the sorting of its candidates.

    Attributes:
        outputs: The raw outputs in single precision, but mask prototypes in the network's.
        ranked: None for a classifier.
    """

    outputs: tuple[Tensor, ...]
    ranked: Ranked | None


@dataclass(frozen=True, slots=True)
class Graph:
    """The fixed part of the work for one shape, with the tensors that it reads and writes."""

    pixels: Tensor
    heads: Heads
    replay: Callable[[], None]


class Slot:
    """The place of one batch; used by one thread at a time."""

    def __init__(self, network: Network, device: torch.device, most: int = MOST) -> None:
        self.network = network
        self.device = device
        self.graphs: GraphCache[Graph] = GraphCache(most)
        self.stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.memory = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._in, self._out = _Pinned(device), _Pinned(device)

    def active(self) -> AbstractContextManager[Any]:
        """A context in which kernels are launched on the slot's stream."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def wait(self) -> None:
        """Return once all that was launched on the slot's stream is done."""
        if self.stream is not None:
            self.stream.synchronize()

    def fill(self, images: Sequence[Any], target: Tensor) -> None:
        """Copy images of one shape, on the host or the device, to the first rows of `target`."""
        hosted = [i for i, image in enumerate(images) if isinstance(image, np.ndarray)]
        if hosted:
            staged = self._in.view((len(hosted), *target.shape[1:]), torch.uint8)
            rows = staged.numpy()
            for row, i in enumerate(hosted):
                rows[row] = images[i]
        if len(hosted) == len(images):
            target[: len(images)].copy_(staged, non_blocking=True)
            return
        for row, i in enumerate(hosted):
            target[i].copy_(staged[row], non_blocking=True)
        for i, image in enumerate(images):
            if not isinstance(image, np.ndarray):
                target[i].copy_(image, non_blocking=True)

    def fetch(self, tensor: Tensor) -> NDArray[Any]:
        """A tensor as an array of its own on the host; waits for the slot's stream."""
        if self.stream is None:
            return np.array(tensor.numpy())
        staged = self._out.view(tuple(tensor.shape), tensor.dtype)
        staged.copy_(tensor, non_blocking=True)
        self.wait()
        return staged.numpy().copy()


class _Pinned:
    """A buffer in page-locked memory, from which a device copies without the CPU; it grows."""

    def __init__(self, device: torch.device) -> None:
        self._pin = device.type == "cuda"
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def view(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        size = int(np.prod(shape)) * dtype.itemsize
        if size > len(self._bytes):
            self._bytes = torch.empty(size, dtype=torch.uint8, pin_memory=self._pin)
        return self._bytes[:size].view(dtype).view(shape)


class Pipeline:
    """Runs a network for batches on a device, and selects what its images contain there."""

    def __init__(
        self,
        networks: Sequence[Network],
        description: ModelDescription,
        device: torch.device,
        dtype: torch.dtype,
        max_batch: int,
        *,
        graphs: bool = True,
        decodes: bool | None = None,
    ) -> None:
        """
        Args:
            networks: One for each slot: a network is not called by two threads at once.
            description: The model's task, classes and preprocessing.
            device: `cuda` or `cpu`.
            dtype: Of the network's input; it is channels-last.
            max_batch: Most images that run together.
            graphs: Whether shapes that recur get a graph.
            decodes: Whether JPEGs are decoded on the device; None: measured on a GPU.
        """
        self._description = description
        self._device = device
        self._dtype = dtype
        self._most = max_batch
        self._graphs = graphs
        self._pool = SlotPool([Slot(network, device) for network in networks])
        self._recorder = ThreadPoolExecutor(1, "graphs")
        self._recording = threading.Lock()
        self._full = False  # whether there was no room for a graph
        how = description.preprocessing
        channels = description.channels
        self._scale: tuple[Tensor, Tensor] | None = None
        if any(how.mean) or any(value != 1 for value in how.std):
            mean, std = (torch.tensor(v[:channels]).view(-1, 1, 1) for v in (how.mean, how.std))
            self._scale = mean.to(device), std.to(device)
        fits = how.resize == "letterbox" and channels == 3
        if decodes is None:
            decodes = fits and device.type == "cuda" and jpeg.pays_here(device)
        self.decodes = decodes and fits
        if device.type == "cuda":
            # The slots' streams do not wait for this one, on which the weights were laid out.
            torch.cuda.current_stream(device).synchronize()

    # -- for engines

    def run(self, pixels: NDArray[np.uint8]) -> tuple[Float, ...]:
        """The raw outputs for prepared images (n, h, w, c), see `engine.Engine.run`."""
        parts = []
        for start in range(0, len(pixels), self._most):
            part = list(pixels[start : start + self._most])
            with self._slot() as slot:
                heads = self._heads(slot, part)
                rows = [output[: len(part)].to(torch.float32) for output in heads.outputs]
                parts.append([slot.fetch(row) for row in rows])
        return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))

    def detect(
        self,
        images: Sequence[Any],
        places: Sequence[Letterbox],
        wanted: Sequence[Thresholds],
        halt: Halt | None = None,
    ) -> list[Found]:
        """What is in each image, see `engine.DeviceEngine.detect`."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            by_shape.setdefault(tuple(image.shape), []).append(index)
        found: dict[int, Found] = {}
        for group in by_shape.values():
            for start in range(0, len(group), self._most):
                part = group[start : start + self._most]
                if halt is not None:
                    halt.check()
                results = self._detect(
                    [images[i] for i in part], [places[i] for i in part], [wanted[i] for i in part]
                )
                found.update(zip(part, results, strict=True))
        return [found[index] for index in range(len(images))]

    def decode(self, jpegs: Sequence[bytes], places: Sequence[Letterbox]) -> list[Tensor | None]:
        """Decode and prepare JPEGs on the device, see `engine.DeviceEngine.decode`."""
        with self._slot() as slot:
            # nvJPEG writes into memory that this stream may still read (pytorch/vision#9606). A
            # batch has waited for it at its end, but one that failed may not have.
            slot.wait()
            images = [
                None if image is None else letterbox(image, place)
                for image, place in zip(jpeg.decode_each(jpegs, self._device), places, strict=True)
            ]
            slot.wait()  # a batch of another stream uses them next
        return images

    # -- a batch

    @contextmanager
    def _slot(self) -> Iterator[Slot]:
        with self._pool.one() as slot, torch.inference_mode(), slot.active():
            yield slot

    def _detect(
        self, images: list[Any], places: list[Letterbox], wanted: list[Thresholds]
    ) -> list[Found]:
        with self._slot() as slot:
            heads = self._heads(slot, images)
            if heads.ranked is None:
                rows = slot.fetch(heads.outputs[0][: len(images)])
                return [[row] for row in rows]
            kept = suppress(heads.ranked, len(self._description.names), wanted)
            detections = _split(slot, kept)
            if self._description.task != "segment":
                return cast(list[Found], detections)
            protos = heads.outputs[1]
            return [
                _masked(slot, protos[i], kept.rows[i, : len(one.scores), 6:], one, place)
                for i, (one, place) in enumerate(zip(detections, places, strict=True))
            ]

    def _heads(self, slot: Slot, images: list[Any]) -> Heads:
        """The fixed part of the work for images of one shape; it may have more rows than these."""
        rows, columns, channels = images[0].shape
        graph = None
        if self._graphs:
            shape = (bucket(len(images), self._most), rows, columns, channels)
            graph = slot.graphs.get(shape)
            if graph is None and slot.graphs.due() is not None:
                self._record_soon()
        if graph is None:
            shape = (len(images), rows, columns, channels)
            pixels = torch.empty(shape, dtype=torch.uint8, device=self._device)
            slot.fill(images, pixels)
            return self._fixed(slot, pixels)
        slot.fill(images, graph.pixels)
        graph.replay()
        return graph.heads

    def _fixed(self, slot: Slot, pixels: Tensor) -> Heads:
        """Launches kernels only: no copy from the host, and nothing is waited for."""
        images = pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)
        if self._scale is not None:
            images = images.sub_(self._scale[0]).div_(self._scale[1])
        images = images.to(self._dtype, memory_format=torch.channels_last)
        first, *others = slot.network(images)
        output = first.to(torch.float32)
        outputs = (output, *others)
        if self._description.task == "classify":
            return Heads(outputs, None)
        return Heads(outputs, rank(output, len(self._description.names)))

    # -- graphs

    def _record_soon(self) -> None:
        if not self._full and self._recording.acquire(blocking=False):
            try:
                self._recorder.submit(self._record_due)
            except RuntimeError:  # the interpreter is shutting down
                self._recording.release()

    def _record_due(self) -> None:
        """Record the shapes that are due, for every slot, while no batch runs."""
        try:
            with _one_capture, self._pool.all() as slots:
                for shape in {slot.graphs.due() for slot in slots} - {None}:
                    if not has_room(self._device):
                        log.warning("%s is nearly full: no further CUDA graphs", self._device)
                        self._full = True
                        return
                    for slot in slots:
                        self._record(slot, cast(Shape, shape))
        except Exception:
            log.exception("CUDA graphs could not be recorded")
        finally:
            self._recording.release()

    def _record(self, slot: Slot, shape: Shape) -> None:
        try:
            with torch.inference_mode():
                graph = self._graph(slot, shape)
        except Exception:  # a network that copies or waits on its way; it runs without a graph
            log.exception("No CUDA graph for batches of %d × %d × %d × %d", *shape)
            slot.graphs.refuse(shape)
        else:
            slot.graphs.add(shape, graph)

    def _graph(self, slot: Slot, shape: Shape) -> Graph:
        if self._device.type != "cuda":
            pixels = torch.zeros(shape, dtype=torch.uint8)
            heads = self._fixed(slot, pixels)

            def replay() -> None:
                for old, new in zip(
                    _tensors(heads), _tensors(self._fixed(slot, pixels)), strict=True
                ):
                    old.copy_(new)

            return Graph(pixels, heads, replay)
        stream = _capture_stream(self._device)
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=True),
            torch.cuda.stream(stream),
        ):
            pixels = torch.zeros(shape, dtype=torch.uint8, device=self._device)
            for _ in range(WARM_UP):
                self._fixed(slot, pixels)
            stream.synchronize()
            recorded = torch.cuda.CUDAGraph()
            # Graphs of a slot share memory: they are never replayed at the same time, and none
            # reads what another has left. Other models' threads may go on meanwhile.
            with torch.cuda.graph(
                recorded,
                pool=slot.memory,
                stream=stream,
                capture_error_mode="thread_local",
            ):
                heads = self._fixed(slot, pixels)
        return Graph(pixels, heads, recorded.replay)


def has_room(device: torch.device) -> bool:
    """Whether enough of a GPU's memory is free for another graph, whose tensors stay there."""
    if device.type != "cuda":
        return True
    free, total = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free > ROOM * total


@cache
def _capture_stream(device: torch.device) -> Any:
    """The stream on which the graphs of all models are recorded.

    PyTorch has 32 streams of a priority and hands them out in turn, so that slots of two models may
    have the same one. What one launched while the other recorded would be in the graph instead of
    being run. No slot has a stream of this priority.
    """
    return torch.cuda.Stream(device, priority=-1)


def _tensors(heads: Heads) -> list[Tensor]:
    ranked = heads.ranked
    if ranked is None:
        return list(heads.outputs)
    return [*heads.outputs, *ranked[1:]]  # its first is the first output


def _split(slot: Slot, kept: Kept) -> list[Detections]:
    """The detections of each image, on the host; mask coefficients stay on the device as well."""
    rows, n = kept.rows, len(kept.counts)
    flat = slot.fetch(torch.cat((rows.flatten(), kept.counts.to(torch.float32))))
    table = flat[: rows.numel()].reshape(rows.shape)
    counts = flat[rows.numel() :].astype(np.int64)
    found = []
    for i in range(n):
        one = table[i, : counts[i]]
        found.append(Detections(one[:, :4], one[:, 4], one[:, 5].astype(np.int64), one[:, 6:]))
    return found


def _masked(
    slot: Slot, protos: Tensor, coefficients: Tensor, found: Detections, place: Letterbox
) -> Detections:
    """The detections with the logits of their masks, of which only the windows leave the device."""
    rows, columns = protos.shape[1:]
    grid = (int(rows), int(columns))
    windows = mask_windows(found.boxes, place, grid)
    if not len(windows):
        logits: tuple[Float, ...] = ()
    else:
        whole = coefficients @ protos.to(torch.float32).flatten(1)
        left, top, right, bottom = torch.from_numpy(windows).to(protos.device)[:, :, None].unbind(1)
        x = torch.arange(grid[1], device=protos.device)[None]
        y = torch.arange(grid[0], device=protos.device)[None]
        inside = ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None]
        flat = slot.fetch(whole.view(-1, *grid)[inside])
        sizes = windows[:, 2:] - windows[:, :2]
        parts = np.split(flat, np.cumsum(sizes.prod(axis=1))[:-1])
        logits = tuple(
            part.reshape(height, width)
            for part, (width, height) in zip(parts, sizes.tolist(), strict=True)
        )
    return Detections(
        found.boxes, found.scores, found.class_ids, found.extra, MaskLogits(grid, windows, logits)
    )
