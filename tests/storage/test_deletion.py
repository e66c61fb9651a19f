"""Several objects are deleted though the store refuses some of them."""

from __future__ import annotations

import pytest

from errors import NotFound, StoreRefused, StoreUnavailable
from storage.deletion import delete_each


class Objects:
    """Objects of which some cannot be deleted."""

    def __init__(self, **refusals: Exception) -> None:
        self.refusals = refusals
        self.deleted: list[str] = []

    def delete(self, key: str) -> None:
        if error := self.refusals.get(key):
            raise error
        self.deleted.append(key)


def test_all_are_deleted_if_none_is_refused() -> None:
    objects = Objects()
    delete_each(iter("abc"), objects.delete)
    delete_each([], objects.delete)
    assert objects.deleted == ["a", "b", "c"]


def test_a_refused_object_does_not_keep_the_others() -> None:
    objects = Objects(a=StoreRefused("No rights."), c=NotFound("Gone."))
    with pytest.raises(StoreRefused, match=r"^2 of 4 objects could not be deleted: No rights\.$"):
        delete_each("abcd", objects.delete)
    assert objects.deleted == ["b", "d"]


def test_a_store_that_does_not_answer_is_asked_once() -> None:
    objects = Objects(b=StoreUnavailable("Away.", 5.0))
    with pytest.raises(StoreUnavailable, match="3 of 4 objects") as raised:
        delete_each("abcd", objects.delete)
    assert objects.deleted == ["a"]
    assert raised.value.retry_after == 5.0
