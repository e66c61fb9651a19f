"""Which shapes of batches get a CUDA graph: the frequent ones, as many as there is room for.

A graph replays the kernels of one shape with a single launch. Recording it takes some runs of the
network, so it is not done for a shape that is seen now and then. Plain logic, without torch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Shape = tuple[int, int, int, int]
"""Images, rows, columns and channels of a batch."""

G = TypeVar("G")
S = TypeVar("S")

MOST = 24  # graphs of a slot
FREQUENT = 4  # batches of a shape before it is worth a graph
UNUSED = 512  # batches since a graph's last use before another shape may have its place
KNOWN = 256  # shapes that are counted


def bucket(images: int, most: int) -> int:
    """The size of batch, a power of two or `most`, that the graph for so many images has.

    Examples:
        >>> [bucket(n, 24) for n in (1, 2, 3, 9, 17, 24)]
        [1, 2, 4, 16, 24, 24]
    """
    return min(1 << (images - 1).bit_length(), most)


class GraphCache(Generic[G]):
    """The graphs of one slot by shape, and which shape should have one next.

    A graph is evicted only for a shape that is frequent now, and only if it was not used for
    `UNUSED` batches: more frequent shapes than places would else be recorded again and again.
    Not thread-safe: it belongs to its slot.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._graphs: OrderedDict[Shape, G] = OrderedDict()  # the least recently used first
        self._used: dict[Shape, int] = {}  # by shape of a graph: the batch that used it last
        self._counts: OrderedDict[Shape, int] = OrderedDict()  # of shapes without a graph
        self._refused: set[Shape] = set()
        self._batches = 0

    def __len__(self) -> int:
        return len(self._graphs)

    def get(self, shape: Shape) -> G | None:
        """The graph of a shape, if it has one; this counts as a use of the shape."""
        self._batches += 1
        if (graph := self._graphs.get(shape)) is not None:
            self._graphs.move_to_end(shape)
            self._used[shape] = self._batches
            return graph
        if shape not in self._refused:
            self._counts[shape] = self._counts.get(shape, 0) + 1
            self._counts.move_to_end(shape)
            if len(self._counts) > KNOWN:
                self._counts.popitem(last=False)
        return None

    def due(self) -> Shape | None:
        """The most frequent shape that should get a graph; None if there is none, or no place."""
        shape = max(self._counts, key=self._counts.__getitem__, default=None)
        if shape is None or self._counts[shape] < FREQUENT:
            return None
        if len(self._graphs) >= self._most:
            oldest = next(iter(self._graphs))
            if self._batches - self._used[oldest] < UNUSED:
                return None
        return shape

    def add(self, shape: Shape, graph: G) -> None:
        """Keep a graph; the least recently used one is dropped if there is no place."""
        while len(self._graphs) >= self._most:
            oldest, _ = self._graphs.popitem(last=False)
            del self._used[oldest]
        self._graphs[shape] = graph
        self._used[shape] = self._batches
        self._counts.pop(shape, None)

    def refuse(self, shape: Shape) -> None:
        """Never offer a shape again, because it could not be recorded."""
        self._refused.add(shape)
        self._counts.pop(shape, None)


class SlotPool(Generic[S]):
    """Slots of batches in flight: each is used by one thread, or all of them by one."""

    def __init__(self, slots: list[S], patience: float = 2.0) -> None:
        """`patience`: seconds for which `all` waits for a moment without a batch."""
        self._all = tuple(slots)
        self._free = list(slots)
        self._patience = patience
        self._waiting = 0
        self._exclusive = False
        self._changed = threading.Condition()

    @contextmanager
    def one(self) -> Iterator[S]:
        """A free slot, as soon as there is one."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: self._free and not self._exclusive)
            self._waiting -= 1
            slot = self._free.pop()
        try:
            yield slot
        finally:
            with self._changed:
                self._free.append(slot)
                self._changed.notify_all()

    @contextmanager
    def all(self) -> Iterator[tuple[S, ...]]:
        """Every slot, in a moment without a batch; after `patience` seconds between two batches.

        One thread at a time may call this.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._idle() and not self._waiting, self._patience)
            self._exclusive = True  # no further batch begins
            self._changed.wait_for(self._idle)
        try:
            yield self._all
        finally:
            with self._changed:
                self._exclusive = False
                self._changed.notify_all()

    def _idle(self) -> bool:
        return len(self._free) == len(self._all)
