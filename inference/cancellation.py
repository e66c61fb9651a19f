"""Cancellation of a running prediction: one thread sets a flag, the predicting thread checks it."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Halted(Exception):
    """A prediction was cancelled before its end."""


class Halt:
    """A cancellation flag, set once by one thread and checked by the predicting thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ordered = False
        self._then: Callable[[], None] | None = None

    def order(self) -> None:
        """Set the flag and call the callback registered by `on_order`."""
        with self._lock:
            self._ordered = True
            then = self._then
        if then is not None:
            then()

    def check(self) -> None:
        """Raise if the flag is set. Call this between two steps of a prediction.

        Raises:
            Halted: The flag is set.
        """
        if self._ordered:
            raise Halted

    def on_order(self, then: Callable[[], None]) -> None:
        """Register the callback that stops the next step; call it at once if the flag is set."""
        with self._lock:
            self._then = then
            ordered = self._ordered
        if ordered:
            then()
