"""What holds for some paths: by the path, or by a pattern of it."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

Value = TypeVar("Value")


class PathTable(dict[str, Value]):
    """A dict whose keys may hold `*`, which stands for anything in a path.

    Examples:
        >>> PathTable({"/a/*/b": 1}).get("/a/x/b")
        1
    """

    def __init__(self, values: Mapping[str, Value]) -> None:
        super().__init__(values)
        self._patterns = [key for key in values if "*" in key]

    def get(self, key: str, default: Any = None) -> Any:
        return self[found] if (found := self._find(key)) is not None else default

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key) is not None

    def _find(self, key: str) -> str | None:
        if super().__contains__(key):
            return key
        return next((p for p in self._patterns if fnmatchcase(key, p)), None)
