"""Uses a server for a while, and tells whether its processes grow.

Clients recognise images of several kinds with several models, with and without drawing, pre-label,
list, upload datasets, correct labels and make mistakes; a shadow model runs along; trainings and
evaluations follow each other. Every few seconds the memory (without what is shared), descriptors
and threads of each lasting process are noted. The first five minutes are left out (of a shorter run
the first half), because caches and pools fill: in less than ten minutes they may not be full yet.
Exits with 1 if one clearly grows, if a process was started again, or if calls failed.
`python -m benchmarks.stress.soak [--minutes 20] [--gateways 1]`
"""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from benchmarks.cpu import cpu
from benchmarks.stress.jobs import ended, submit
from benchmarks.stress.server import Failed, Service
from benchmarks.stress.traffic import DROPPED, OTHER, Traffic
from shell import Parser

DETECTOR, CLASSIFIER = "traffic_signs_yolov8n", "traffic_signs_mobilenet_v2"
NAME = "stressed"  # of the models that `submit` trains
MOST_VERSIONS = 4  # of it; older ones are deleted
LEFT_OUT = 300.0  # seconds at the begin, in which models are loaded for the first time
MODEL_CACHE = 3  # fewer than the models in use, so that some are evicted and loaded again
MOST_SAMPLES = 400  # of a process; a slope compares each two
MEMORY_SLOPE = 20.0  # MiB an hour that the slope must surely exceed to count as growth
MEMORY_RISE = 8.0  # MiB that the memory must have risen by as well
COUNT_RISE = 8  # descriptors, and threads, by which their number must have risen
SURE = 2.58  # standard deviations of a 99 % interval


@dataclass
class Sample:
    """Of one process at one moment: seconds since the begin, MiB and numbers."""

    seconds: float
    memory: float
    descriptors: int
    threads: int


@dataclass
class Lasting:
    """A process that lives as long as the server."""

    name: str
    process: psutil.Process
    samples: list[Sample] = field(default_factory=list)

    def note(self, seconds: float) -> None:
        """Add a sample.

        Raises:
            Failed: The process has ended.
        """
        try:
            with self.process.oneshot():
                memory = self.process.memory_full_info().uss / 2**20
                descriptors, threads = self.process.num_fds(), self.process.num_threads()
        except psutil.NoSuchProcess:
            raise Failed(f"The process {self.process.pid} of {self.name} has ended.") from None
        self.samples.append(Sample(seconds, memory, descriptors, threads))


def slope(seconds: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """The slope per hour, and the slope that it surely exceeds.

    The median of the slopes between each two points (Theil-Sen), and the lower end of its 99 %
    interval by Kendall's rank correlation: a few outliers change neither.
    """
    step = -(-len(values) // MOST_SAMPLES)
    x, y = np.asarray(seconds[::step]), np.asarray(values[::step], float)
    first, second = np.triu_indices(len(x), 1)
    slopes = np.sort((y[second] - y[first]) / (x[second] - x[first])) * 3600
    n = len(x)
    spread = SURE * np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    lowest = max(int((len(slopes) - spread) / 2), 0)
    return float(np.median(slopes)), float(slopes[lowest])


def rise(values: Sequence[float]) -> float:
    """The median of the last fifth minus the median of the first fifth."""
    part = max(len(values) // 5, 1)
    return statistics.median(values[-part:]) - statistics.median(values[:part])


def growth(samples: Sequence[Sample]) -> list[str]:
    """What clearly grows: `memory`, `descriptors`, `threads`."""
    seconds = [sample.seconds for sample in samples]
    found = []
    memory = [sample.memory for sample in samples]
    if slope(seconds, memory)[1] > MEMORY_SLOPE and rise(memory) > MEMORY_RISE:
        found.append("memory")
    for what in ("descriptors", "threads"):
        counts = [float(getattr(sample, what)) for sample in samples]
        if slope(seconds, counts)[1] > 0 and rise(counts) > COUNT_RISE:
            found.append(what)
    return found


def table(processes: Sequence[Lasting], after: float) -> str:
    """A Markdown table of the samples from `after` seconds on, and of the first and last ones."""
    lines = [
        "| process | MiB, begin | MiB, end | MiB/hour | surely above | descriptors | threads "
        "| grows |",
        "|---|" + "--:|" * 6 + "---|",
    ]
    for one in processes:
        kept = _kept(one, after)
        first, last = kept[0], kept[-1]
        middle, low = slope([s.seconds for s in kept], [s.memory for s in kept])
        lines.append(
            f"| {one.name} | {first.memory:.1f} | {last.memory:.1f} | {middle:+.1f} | {low:+.1f} | "
            f"{first.descriptors} → {last.descriptors} | {first.threads} → {last.threads} | "
            f"{', '.join(growth(kept)) or 'no'} |"
        )
    return "\n".join(lines)


def pictures() -> list[bytes]:
    """Images of different sizes, modes and formats."""
    made = []
    kinds = [("JPEG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGB"), ("JPEG", "L"), ("BMP", "RGB")]
    sizes = [(320, 240), (640, 480), (1280, 960), (97, 333), (1920, 1080)]
    for number, ((kind, mode), size) in enumerate(zip(kinds, sizes, strict=True)):
        coarse = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
        file = io.BytesIO()
        image.save(file, kind)
        made.append(file.getvalue())
    return made


class MixedTraffic(Traffic):
    """The traffic of the stress test, and requests for other models, with drawing, and wrong ones.

    Attributes:
        models: Ids of further models that requests name.
        mistakes: Answers to wrong requests, by status.
    """

    def __init__(self, url: str, images: Sequence[bytes]) -> None:
        super().__init__(url, images)
        self.models: list[str] = [DETECTOR, CLASSIFIER]
        self.mistakes: Counter[int] = Counter()
        self._threads += [
            threading.Thread(target=self._run, args=(work, 100 + number), daemon=True)
            for number, work in enumerate((self._vary, self._vary, self._err))
        ]

    def _vary(self, client: httpx.Client, chance: random.Random) -> None:
        fields = {"model_id": chance.choice(self.models)}
        if chance.random() < 0.3:
            fields["draw_boxes"] = "true"
        sent = {"image": chance.choice(self.images)}
        self._call(client, "POST", "/infer", files=sent, data=fields)

    def _err(self, client: httpx.Client, chance: random.Random) -> None:
        """Send a request that must be refused as the client's mistake."""
        image = chance.choice(self.images)
        wrong: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", "/infer", {"files": {"image": image[: len(image) // 2]}}),
            ("POST", "/infer", {"files": {"image": image}, "data": {"model_id": "unknown"}}),
            ("POST", "/infer", {"files": {"image": b"no image"}}),
            ("POST", "/infer/base64", {"json": {"image": "%%%"}}),
            ("POST", "/train", {"json": {"mode": "nonsense"}}),
            ("GET", "/jobs/unknown", {}),
            ("GET", "/nothing", {}),
        ]
        method, path, options = chance.choice(wrong)
        with contextlib.suppress(httpx.TransportError):
            self.mistakes[client.request(method, path, **options).status_code] += 1


def work(
    service: Service, traffic: MixedTraffic, over: threading.Event, done: Counter[str]
) -> None:
    """Train, evaluate, and let the newest model shadow the one before, until `over`."""
    from synthetic.shapes import write_shapes

    data = write_shapes(service.folder / "data" / "shapes", "classify", 24, 8, 64)
    made: list[str] = []
    while not over.is_set():
        job = ended(service, submit(service, data, epochs=2))
        if job["status"] != "completed":
            raise Failed(f"A training ended as {job['status']}: {job['error']}")
        done["trainings"] += 1
        made.append(str(job["model_id"]))
        answer = service.client.post(f"{service.url}/metrics/{made[-1]}/evaluate", json={})
        if answer.status_code != 202:
            raise Failed(f"An evaluation was refused: {answer.text[:200]}")
        job = ended(service, str(answer.json()["job_id"]))
        done["evaluations"] += job["status"] == "completed"
        if len(made) > 1:
            choice = {"model_id": made[-1], "against": made[-2]}
            service.ask("POST", "/models/shadow", json=choice)
            done["shadows"] += 1
        traffic.models = [DETECTOR, CLASSIFIER, *made[-2:]]
        while len(made) > MOST_VERSIONS:
            service.client.delete(f"{service.url}/models/{made.pop(0)}")
        over.wait(5)


def lasting(service: Service) -> list[Lasting]:
    """The processes that must last: the supervisor and the services."""
    assert service.process is not None
    supervisor = psutil.Process(service.process.pid)
    found = [Lasting("supervisor", supervisor)]
    for child in supervisor.children():
        with contextlib.suppress(psutil.Error):
            line = child.cmdline()
            if "--service-name" in line:
                found.append(Lasting(line[line.index("--service-name") + 1], child))
    return found


def soak(
    service: Service, seconds: float, interval: float
) -> tuple[list[Lasting], MixedTraffic, str]:
    """Use a running server for some time. Returns its processes, the calls, and what was done.

    Raises:
        Failed: A process has ended, or a job failed.
    """
    over, done = threading.Event(), Counter[str]()
    failed: list[Exception] = []
    processes = lasting(service)
    with MixedTraffic(service.url, pictures()) as traffic:

        def jobs() -> None:
            try:
                work(service, traffic, over, done)
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=jobs, daemon=True)
        thread.start()
        began = time.monotonic()
        try:
            for turn in itertools.count(1):
                for one in processes:
                    one.note(time.monotonic() - began)
                if failed:
                    raise failed[0]
                if time.monotonic() - began >= seconds:
                    break
                time.sleep(max(began + turn * interval - time.monotonic(), 0))
        finally:
            over.set()
    told = ", ".join(f"{number} {name}" for name, number in done.items())
    mistakes = dict(sorted(traffic.mistakes.items()))
    return processes, traffic, f"{told}; wrong requests by status: {mistakes}"


def main() -> None:
    parser = Parser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="minutes of use (20)")
    parser.add_argument("--gateways", type=int, default=1, help="number of gateway processes (1)")
    parser.add_argument(
        "--interval", type=float, default=5.0, help="seconds between two samples (5)"
    )
    asked = parser.parse_args()
    seconds = 60 * asked.minutes
    print(f"{cpu()}, {asked.minutes:g} minutes, {asked.gateways} gateways", flush=True)
    with tempfile.TemporaryDirectory(prefix="visionloop-soak-") as folder:
        settings = {"VISIONLOOP_GATEWAY_WORKERS": str(asked.gateways)}
        settings |= {"VISIONLOOP_LOG_LEVEL": "WARNING", "VISIONLOOP_KEEP_BELOW": "0.5"}
        settings |= {"VISIONLOOP_MODEL_CACHE": str(MODEL_CACHE)}
        service = Service(Path(folder), settings)
        try:
            service.start()
            processes, traffic, told = soak(service, seconds, asked.interval)
        except Failed as error:
            raise SystemExit(f"{error}\n{service.log.read_text()[-3000:]}") from None
        finally:
            service.stop()
    after = min(LEFT_OUT, seconds / 2)
    print(table(processes, after))
    span = traffic.since(0.0)
    print(f"{len(span.calls)} calls; {told}; slowest {span.slowest():.1f} s")
    grown = [one.name for one in processes if growth(_kept(one, after))]
    wrong = span.count(OTHER) + span.count(DROPPED)
    for detail, number in span.details().most_common(10):
        print(f"{number} × {detail}")
    if grown or wrong or any(status >= 500 for status in traffic.mistakes):
        raise SystemExit(f"Growing: {', '.join(grown) or 'nothing'}; {wrong} calls failed.")


def _kept(one: Lasting, after: float) -> list[Sample]:
    return [sample for sample in one.samples if sample.seconds >= after]


if __name__ == "__main__":
    main()
