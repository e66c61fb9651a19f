"""How a prediction under way learns that nobody wants its answer any more."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Halted(Exception):
    """A prediction stopped before its end, as it was told to."""


class Halt:
    """An order that one thread gives, once, and that the predicting one meets."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ordered = False
        self._then: Callable[[], None] | None = None

    def order(self) -> None:
        with self._lock:
            self._ordered = True
            then = self._then
        if then is not None:
            then()

    def check(self) -> None:
        """Between two steps of a prediction.

        Raises:
            Halted: it is to stop.
        """
        if self._ordered:
            raise Halted

    def on_order(self, then: Callable[[], None]) -> None:
        """What else stops the step that follows; at once, where the order has come already."""
        with self._lock:
            self._then = then
            ordered = self._ordered
        if ordered:
            then()
