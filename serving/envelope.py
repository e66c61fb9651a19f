"""A wrapper for objects that the gateway and a runner send to each other."""

from __future__ import annotations

from typing import Any


class Envelope:
    """Carries an object, pickled by BentoML, from one process of the service to another.

    BentoML 1.4.39 passes arguments through pydantic's `model_dump`, which turns dataclasses into
    dicts, even where the type is `Any`. It leaves instances of unknown classes as they are.
    """

    __slots__ = ("content",)

    def __init__(self, content: Any) -> None:
        self.content = content
