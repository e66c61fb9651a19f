"""Times of engines on this CPU, measured in turn while the machine is idle."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from cores import CONTROL_GROUP, cpu_count, quota
from inference.engine import Engine
from inference.preprocess import MIN_STRIDE
from models_store.description import ModelDescription

ROUNDS = 7
REPEATS = 3  # runs of one engine in a row; the fastest counts
SHARE = 0.1  # of all cores, which others may use while it is measured
LOOK = 1.0  # seconds over which the load is observed before a round
WAYS = {"one thread": False, "all threads": True}

Name = TypeVar("Name", bound=str)

TICKS = os.sysconf("SC_CLK_TCK")
STAT = Path("/proc/stat")


class OthersLoad:
    """The cores that other processes used since the last call.

    Under the quota of a control group, as in a container, only processes of that group count: the
    machine has more cores, which others may use without taking any from this one.
    """

    def __init__(self, stat: Path = STAT, group: Path = CONTROL_GROUP) -> None:
        self._stat, self._group = stat, group
        self._limited = quota(group) is not None
        self._last = self._now()

    def __call__(self) -> float:
        """Cores, on average over the time since the last call; 0 where it is not known."""
        before, self._last = self._last, self._now()
        seconds = self._last[0] - before[0]
        busy = self._last[1] - before[1] - (self._last[2] - before[2])
        return max(0.0, busy / seconds) if seconds > 0 else 0.0

    def _now(self) -> tuple[float, float, float]:
        """Time, CPU seconds of the machine or of the control group, and of this process."""
        own = time.process_time()
        if self._limited and (used := self._of_group()) is not None:
            return time.monotonic(), used, own
        try:
            fields = [int(text) for text in self._stat.read_text().split("\n", 1)[0].split()[1:8]]
        except (OSError, ValueError):  # not Linux
            return time.monotonic(), 0.0, 0.0
        user, nice, system, _, _, irq, softirq = fields
        return time.monotonic(), (user + nice + system + irq + softirq) / TICKS, own

    def _of_group(self) -> float | None:
        """CPU seconds of the control group; None if it does not tell (version 1)."""
        try:
            name, used = (self._group / "cpu.stat").read_text().split("\n", 1)[0].split()
            return int(used) / 1e6 if name == "usage_usec" else None
        except (OSError, ValueError):
            return None


@dataclass
class Times:
    """Median milliseconds of each engine, by input and way, and the load they were measured under.

    Attributes:
        milliseconds: By engine; of each `HEIGHTxWIDTH one thread`, or `all threads`.
        load: The most cores that others used in a round that counts.
        discarded: Number of rounds that were measured again, because others used the CPU.
    """

    milliseconds: dict[str, dict[str, float]] = field(default_factory=dict)
    load: float = 0.0
    discarded: int = 0

    def relative(self, engine: str, reference: str) -> float:
        """Geometric mean of an engine's times relative to another's."""
        ours, theirs = self.milliseconds[engine], self.milliseconds[reference]
        return float(np.exp(np.mean([np.log(ours[key] / theirs[key]) for key in theirs])))


def shapes(description: ModelDescription, rect: bool) -> list[tuple[int, int]]:
    """Heights and widths that are measured: the square, and that of a 4:3 photo."""
    side = description.imgsz
    if not (rect and description.any_size):
        return [(side, side)]
    stride = max(description.stride, MIN_STRIDE)
    short = -(-side * 3 // 4 // stride) * stride
    return list(dict.fromkeys([(side, side), (short, side)]))


def measure(
    engines: Mapping[Name, Engine],
    description: ModelDescription,
    idle: Callable[[], None],
    load: Callable[[], float],
    rounds: int = ROUNDS,
) -> Times:
    """Measure engines in rounds; in each every engine runs every shape, in a changing order.

    Args:
        engines: By name.
        description: The model's.
        idle: Returns once the machine is idle.
        load: The cores that others used since its last call.
        rounds: Number of rounds that count.
    """
    rect = all(engine.letterbox == "rect" for engine in engines.values())
    sizes = shapes(description, rect)
    random = np.random.default_rng(0)
    images = {
        f"{height}x{width}": random.integers(
            0, 256, (1, height, width, description.channels), np.uint8
        )
        for height, width in sizes
    }
    for engine in engines.values():
        for image in images.values():
            for wide in WAYS.values():
                engine.run(image, wide=wide)  # the first run of a shape allocates
    found: dict[Name, dict[str, list[float]]] = {name: {} for name in engines}
    times, order = Times(), list(engines)
    while rounds > 0:
        idle()
        load()
        this: dict[Name, dict[str, float]] = {name: {} for name in engines}
        for size, image in images.items():
            for way, wide in WAYS.items():
                for name in order:
                    this[name][f"{size} {way}"] = _fastest(engines[name], image, wide)
        used = load()
        if not is_idle(used):
            times.discarded += 1
            continue
        times.load = max(times.load, used)
        for name, values in this.items():
            for key, value in values.items():
                found[name].setdefault(key, []).append(value)
        order.append(order.pop(0))
        rounds -= 1
    times.milliseconds = {
        name: {key: round(statistics.median(values), 3) for key, values in rows.items()}
        for name, rows in found.items()
    }
    times.load = round(times.load, 2)
    return times


def is_idle(load: float) -> bool:
    """Whether others use so little of the CPU that times can be compared."""
    return load <= SHARE * cpu_count()


def _fastest(engine: Engine, image: np.ndarray, wide: bool) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        engine.run(image, wide=wide)
        best = min(best, time.perf_counter() - start)
    return best * 1000
