"""How our objects pass between the gateway and a runner."""

from __future__ import annotations

from typing import Any


class Envelope:
    """Carries an object through BentoML's pickle between two of our processes.

    BentoML 1.4.39 passes arguments through pydantic's `model_dump`, which turns dataclasses
    into dicts, even below `Any`; a class it does not know, it leaves alone.
    """

    __slots__ = ("content",)

    def __init__(self, content: Any) -> None:
        self.content = content
