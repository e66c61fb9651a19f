"""Sends webhook deliveries in a thread with an event loop of its own, and retries them for a day.

One sender runs per VISIONLOOP_HOME: in the process that holds the dispatcher's lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx

from jobs.webhooks.deliveries import GIVEN_UP_AFTER, Delivery, DeliveryStore, target_of
from jobs.webhooks.post import GONE, TIMEOUT, Answer, client, post
from settings import Settings

log = logging.getLogger("visionloop")

PER_ADDRESS = 4  # deliveries to one address at the same time; a slow one does not delay others
GRACE = 3.0  # seconds for attempts in flight when the server stops

Outcome = Callable[[str], None]


@dataclass(frozen=True)
class Timing:
    """Waiting times in seconds.

    Attributes:
        poll: Between two reads of the table.
        first: Before the second attempt; the wait doubles with every further one.
        longest: Longest wait, unless the receiver asks for more by `Retry-After`.
        give_up: Age at which a delivery is given up.
        timeout: Time limit of an attempt.
        lease: How long a delivery is reserved for its attempt, in case the process dies.
        clean_up: Between two deletions of old rows.
    """

    poll: float = 1.0
    first: float = 5.0
    longest: float = 3600.0
    give_up: float = GIVEN_UP_AFTER.total_seconds()
    timeout: float = TIMEOUT
    lease: float = 60.0
    clean_up: float = 3600.0


def wait_before(attempt: int, timing: Timing, spread: float) -> float:
    """Seconds between attempt number `attempt`, which failed, and the next one.

    Args:
        attempt: From 1.
        timing: Waiting times.
        spread: A random number from 0 to 1: the wait is 0.75 to 1.25 times its nominal value, so
            that the deliveries of an outage do not all return at the same moment.
    """
    nominal = min(timing.longest, timing.first * 2.0 ** min(attempt - 1, 30))
    return nominal * (0.75 + 0.5 * spread)


class WebhookSender:
    """Sends the deliveries of the table to the addresses of the settings.

    Args:
        store: The table.
        settings: Provide addresses and secret.
        on_outcome: Called with `delivered`, `retried` or `failed` for each attempt.
        timing: Waiting times.
    """

    def __init__(
        self,
        store: DeliveryStore,
        settings: Settings,
        on_outcome: Outcome = lambda _: None,
        timing: Timing = Timing(),
    ) -> None:
        self.store = store
        self.timing = timing
        self._addresses = {target_of(address): address for address in settings.webhook_url}
        secret = settings.webhook_secret
        self._secret = secret.get_secret_value() if secret else ""
        self._on_outcome = on_outcome
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._started = threading.Event()
        self._thread: threading.Thread | None = None
        self._in_flight: dict[asyncio.Task[None], Delivery] = {}

    def start(self) -> None:
        """Start the thread; without an address there is nothing to send, and no thread."""
        if not self._addresses:
            return
        self._thread = threading.Thread(target=self._main, name="webhooks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the attempts in flight, at most some seconds later."""
        if self._thread is None:
            return
        self._started.wait()
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except Exception:
            log.exception("Webhooks are not sent any more: start the server again")
        finally:
            self._started.set()

    async def _run(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._started.set()
        cleaned = -self.timing.clean_up
        async with client() as http:
            while not self._stopping.is_set():
                try:
                    if time.monotonic() - cleaned >= self.timing.clean_up:
                        await asyncio.to_thread(self._clean_up)
                        cleaned = time.monotonic()
                    await self._send_due(http)
                except Exception:
                    log.exception("The webhook deliveries could not be read; retrying")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.timing.poll):
                        await self._stopping.wait()
            await self._finish()

    def _clean_up(self) -> None:
        for _ in range(self.store.clean_up(self._addresses)):
            self._on_outcome("failed")

    async def _send_due(self, http: httpx.AsyncClient) -> None:
        for target, address in self._addresses.items():
            busy = sum(one.target == target for one in self._in_flight.values())
            if busy >= PER_ADDRESS:
                continue
            lease = timedelta(seconds=self.timing.lease)
            due = await asyncio.to_thread(self.store.claim, target, PER_ADDRESS - busy, lease)
            for delivery in due:
                task = asyncio.create_task(self._deliver(http, address, delivery))
                self._in_flight[task] = delivery
                task.add_done_callback(self._in_flight.pop)

    async def _deliver(self, http: httpx.AsyncClient, address: str, delivery: Delivery) -> None:
        message = delivery.event, delivery.id, delivery.body
        try:
            answer = await post(http, address, self._secret, *message, self.timing.timeout)
            outcome = await asyncio.to_thread(self._record, delivery, answer)
        except Exception:  # it is sent again after the lease
            log.exception("The outcome of delivery %s could not be stored", delivery.id)
        else:
            self._on_outcome(outcome)

    def _record(self, delivery: Delivery, answer: Answer) -> str:
        """Store the outcome of an attempt. Returns its name."""
        if answer.error is None:
            assert answer.status is not None
            self.store.delivered(delivery, answer.status)
            return "delivered"
        current = datetime.now(UTC)
        expires = datetime.fromisoformat(delivery.created_at) + timedelta(
            seconds=self.timing.give_up
        )
        if answer.status == GONE or current >= expires:
            if not self.store.failed(delivery, answer.status, answer.error):
                return "retried"  # it was sent again during this attempt
            log.warning(
                "Webhook delivery %s (%s) to %s is given up after %d attempts: %s",
                delivery.id, delivery.event, delivery.address, delivery.attempts, answer.error,
            )  # fmt: skip
            return "failed"
        wait = wait_before(delivery.attempts, self.timing, random.random())  # no secret
        wait = max(wait, answer.retry_after or 0.0)
        remaining = (expires - current).total_seconds()  # the last attempt is made at that time
        next_attempt = current + timedelta(seconds=min(wait, remaining))
        self.store.retry(delivery, answer.status, answer.error, next_attempt)
        return "retried"

    async def _finish(self) -> None:
        """Await the attempts in flight; those that take too long are made again at the start."""
        if not self._in_flight:
            return
        deliveries = dict(self._in_flight)
        _, late = await asyncio.wait(deliveries, timeout=GRACE)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for task in late:
            with contextlib.suppress(Exception):  # then it is sent again after the lease
                await asyncio.to_thread(self.store.release, deliveries[task])
