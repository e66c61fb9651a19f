"""The OpenAPI document, which takes a second or two to make."""

from __future__ import annotations

from functools import cache
from typing import Any

from docs_reference import rest_pages


@cache
def described() -> dict[str, Any]:
    """The document, once for all tests of a process. It is not to be changed."""
    return rest_pages.described()
