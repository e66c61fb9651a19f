"""Paths in recipes, as another machine reads them: relative to VISIONLOOP_HOME.

With an object store, the recipe in a job's row has `$VISIONLOOP_HOME/datasets/ID/…` in place of the
home of the machine that wrote it. Readers get the path in their own home, whether the file is there
or not; `dataset.shared` downloads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

HOME = "$VISIONLOOP_HOME"


def referring(recipe: Mapping[str, Any], home: Path) -> dict[str, Any]:
    """A recipe in which each path in the home is written relative to it."""
    return cast("dict[str, Any]", _replaced(dict(recipe), {str(home), str(home.resolve())}, HOME))


def resolved(recipe: Mapping[str, Any], home: Path) -> dict[str, Any]:
    """A recipe with the paths in this home; the opposite of `referring`."""
    return cast("dict[str, Any]", _replaced(dict(recipe), {HOME}, str(home.resolve())))


def _replaced(value: Any, olds: set[str], new: str) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(part, olds, new) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(part, olds, new) for part in value]
    if isinstance(value, str):
        for old in olds:
            if value.startswith(f"{old}/"):
                return new + value[len(old) :]
    return value
