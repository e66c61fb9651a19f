"""Cancellation of a running prediction: one thread orders it, the predicting one checks."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Halted(Exception):
    """A prediction was stopped before its end, as ordered."""


class Halt:
    """A cancellation flag, set once by one thread and checked by the predicting thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ordered = False
        self._then: Callable[[], None] | None = None

    def order(self) -> None:
        """Set the flag and call what `on_order` registered."""
        with self._lock:
            self._ordered = True
            then = self._then
        if then is not None:
            then()

    def check(self) -> None:
        """Raise if the flag is set; call it between two steps of a prediction.

        Raises:
            Halted: The prediction is to stop.
        """
        if self._ordered:
            raise Halted

    def on_order(self, then: Callable[[], None]) -> None:
        """Register a callback that stops the next step; called at once if the flag is set."""
        with self._lock:
            self._then = then
            ordered = self._ordered
        if ordered:
            then()
