"""Deletes several objects of the store, though some of them are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from errors import StoreUnavailable, VisionLoopError

LATER = "`visionloop prune` finds them when they are a day old."

T = TypeVar("T")


def delete_each(objects: Iterable[T], delete: Callable[[T], object]) -> None:
    """Delete every object, and tell in the end how many could not be.

    Once the store does not answer, the rest is not tried: each would wait for its time limit.

    Args:
        objects: Keys, or whatever `delete` takes.
        delete: Deletes one of them.

    Raises:
        VisionLoopError: Of the kind of the first failure; its message says how many stay.
    """
    wanted = list(objects)
    stay = 0
    first: VisionLoopError | None = None
    for tried, one in enumerate(wanted):
        try:
            delete(one)
        except StoreUnavailable as error:
            stay += len(wanted) - tried
            first = first or error
            break
        except VisionLoopError as error:
            stay += 1
            first = first or error
    if first is not None:
        message = f"{stay} of {len(wanted)} objects could not be deleted: {first.message}"
        raise type(first)(message, first.retry_after)
