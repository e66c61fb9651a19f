"""The last 15 minutes in steps of 10 seconds: rates and latencies, in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from serving.operations.counters import EDGES, Counters

STEP = 10.0  # seconds
KEPT = 90  # steps: 15 minutes


@dataclass(frozen=True)
class Step:
    """What happened in a step.

    Attributes:
        at: Its end, in seconds since 1970.
        seconds: How long it was.
        images_per_second, requests_per_second, predictions_per_second: Rates; predictions are
            requests of routes that predict.
        p50_ms, p99_ms: Latency of requests of routes that predict, interpolated in the buckets of
            the metrics; None: there were none.
        batch_size: Mean number of images in a batch; None: there was none.
        queued: Images that waited at its end.
        errors: Error responses by code.
        client_errors, server_errors: Responses with a status of 4xx and 5xx.
    """

    at: float
    seconds: float
    images_per_second: float
    requests_per_second: float
    predictions_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    batch_size: float | None
    queued: float
    errors: dict[str, int] = field(default_factory=dict)
    client_errors: int = 0
    server_errors: int = 0


class Window:
    """The newest steps, each made of two readings of the counters.

    A step that were shorter than `shortest` seconds, as the first after a start, becomes a part of
    the next: one error in half a second is no rate of 120 a minute.
    """

    def __init__(self, kept: int = KEPT, shortest: float = STEP / 2) -> None:
        self._shortest = shortest
        self._steps: deque[Step] = deque(maxlen=kept)
        self._last: tuple[float, Counters] | None = None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps, the oldest first."""
        return tuple(self._steps)

    def add(self, at: float, now: Counters, queued: float) -> None:
        """Add the step from the last reading to this one; the first reading makes none.

        Args:
            at: The time of the reading, in seconds since 1970.
            now: The counters.
            queued: Images that wait.
        """
        if self._last is not None and 0 < at - self._last[0] < self._shortest:
            return
        last, self._last = self._last, (at, now)
        if last is None or at <= last[0] or now.requests < last[1].requests:  # begun anew
            return
        before, seconds = last[1], at - last[0]
        latency = [b - a for a, b in zip(before.latency, now.latency, strict=True)]
        batches = now.batches - before.batches
        statuses = now.statuses - before.statuses
        images = now.images - before.images  # only what rose: the counts of a model may be removed
        self._steps.append(
            Step(
                at=at,
                seconds=seconds,
                images_per_second=images.total() / seconds,
                requests_per_second=(now.requests - before.requests) / seconds,
                predictions_per_second=max(0.0, now.predicting - before.predicting) / seconds,
                p50_ms=quantile_ms(latency, 0.5),
                p99_ms=quantile_ms(latency, 0.99),
                batch_size=(now.batched - before.batched) / batches if batches > 0 else None,
                queued=queued,
                errors={code: int(n) for code, n in (now.errors - before.errors).items()},
                client_errors=int(statuses["4xx"]),
                server_errors=int(statuses["5xx"]),
            )
        )


def quantile_ms(counts: Sequence[float], share: float) -> float | None:
    """A quantile in milliseconds of a histogram with the buckets of the latencies.

    It is interpolated within its bucket, as Prometheus does. In the last one, which has no end, it
    is that bucket's beginning.

    Args:
        counts: The number of requests in each bucket, not cumulative.
        share: 0.5 is the median.
    """
    total = sum(counts)
    if total <= 0:
        return None
    wanted, below = share * total, 0.0
    for place, count in enumerate(counts):
        if count and below + count >= wanted:
            begin = EDGES[place - 1] if place else 0.0
            end = EDGES[place]
            if end == float("inf"):
                return 1000 * begin
            return 1000 * (begin + (end - begin) * (wanted - below) / count)
        below += count
    return 1000 * EDGES[-2]
