"""Paths in recipes, as another machine reads them: relative to VISIONLOOP_HOME.

With an object store, the recipe in a job's row has `$VISIONLOOP_HOME/datasets/ID/…` in place of the
home of the machine that wrote it. Readers get the path in their own home, whether the file is there
or not; `dataset.shared` downloads it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from errors import ValidationFailed
from settings import Settings

HOME = "$VISIONLOOP_HOME"


def referring(recipe: Mapping[str, Any], home: Path) -> dict[str, Any]:
    """A recipe in which each path in the home is written relative to it."""
    return cast("dict[str, Any]", _replaced(dict(recipe), {str(home), str(home.resolve())}, HOME))


def resolved(recipe: Mapping[str, Any], home: Path) -> dict[str, Any]:
    """A recipe with the paths in this home; the opposite of `referring`."""
    return cast("dict[str, Any]", _replaced(dict(recipe), {HOME}, str(home.resolve())))


def refuse_paths_elsewhere(recipe: Mapping[str, Any], settings: Settings) -> None:
    """Refuse a recipe for a cluster that names start weights or files in VISIONLOOP_DATA_ROOTS.

    Those are on this server only: nothing copies them to a node.

    Raises:
        ValidationFailed: It names one.
    """
    for weights in _weight_files(recipe):
        raise ValidationFailed(
            f"The weights '{Path(weights).name}' are a file of this server, but jobs run on the "
            "nodes of a cluster (VISIONLOOP_CLUSTER_URL), which do not have it. Import it as the "
            f"model '{Path(weights).stem}' (POST /models/import), and name that, or the network: "
            "models of the registry come before files."
        )
    home = Path(os.path.realpath(settings.home))
    roots = [Path(os.path.realpath(root)) for root in settings.data_roots]
    for path in map(Path, _absolute_paths(recipe)):
        if not path.is_relative_to(home) and any(path.is_relative_to(root) for root in roots):
            shown = "/".join(path.parts[-2:])
            raise ValidationFailed(
                f"'{shown}' is in a folder of this server (VISIONLOOP_DATA_ROOTS), but jobs run on "
                "the nodes of a cluster (VISIONLOOP_CLUSTER_URL), which do not have it. Upload the "
                "data to /api/datasets, and name the dataset's id."
            )


def _weight_files(value: Any) -> Iterator[str]:
    """The paths of start weights: of the base, of a teacher."""
    if isinstance(value, Mapping):
        if value.get("kind") == "file" and isinstance(value.get("value"), str):
            yield value["value"]
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for part in value:
        yield from _weight_files(part)


def _absolute_paths(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.startswith("/"):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _absolute_paths(part)


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
