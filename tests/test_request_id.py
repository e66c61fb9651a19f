from __future__ import annotations

import re

import pytest

from request_id import HEADER, REQUEST_ID, chosen, of_request

NEW = re.compile(r"[0-9a-f]{16}")


def sent(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"a"), *((HEADER.lower().encode(), value.encode()) for value in values)]


@pytest.mark.parametrize(
    "value", ["7", "a" * 128, "0af7651916cd43dd8448eb211c80319c", "job-7:step=2/3+4@host_a.b"]
)
def test_a_sane_id_is_taken(value: str) -> None:
    assert chosen(sent(value)) == chosen(sent(f" {value} \t")) == value  # RFC 9110, 5.5


@pytest.mark.parametrize(
    "value", ["", "a" * 129, "two words", 'quo"te', "line\nend", "semi;colon", "umlaut-ü", "%0a"]
)
def test_another_is_replaced(value: str) -> None:
    assert NEW.fullmatch(chosen(sent(value)))


def test_without_one_or_with_two_there_is_a_new_one_each_time() -> None:
    found = {chosen(sent()), chosen(sent()), chosen(sent("a", "b")), chosen(sent("a", "a"))}
    assert len(found) == 4
    assert all(map(NEW.fullmatch, found))


def test_the_context_ends() -> None:
    with of_request("outer"):
        with of_request("inner"):
            assert REQUEST_ID.get() == "inner"
        assert REQUEST_ID.get() == "outer"
    assert REQUEST_ID.get() is None
