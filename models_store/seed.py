"""Publishing of the bundled starter models at the first start."""

from __future__ import annotations

import json
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from database import State
from errors import ModelNotFound, VisionLoopError
from files import temporary_folder
from models_store.description import DESCRIPTION_FILE, WEIGHTS_FILE
from models_store.registry import Registry
from models_store.store import content_hash
from models_store.subprocesses import ChildTimeout, run_module

log = logging.getLogger(__name__)

STARTERS = Path(__file__).parent / "starter"
FIRST_ACTIVE = "traffic_signs_yolov8n"
SOURCE_FILE = "source.json"  # in the starter's folder; has `class_counts` of its training images
METRICS_FILE = "metrics.json"  # measured by `evaluation.starters`, for weights of one content
EXPORT_TIMEOUT = 600.0  # seconds, for all starters together


@dataclass(frozen=True)
class Starter:
    """A folder with model.json and model.safetensors; its name is the model's name."""

    name: str
    folder: Path
    content: str


def starters(folder: Path = STARTERS) -> list[Starter]:
    """The complete starter models in a folder."""
    folders = sorted(path.parent for path in folder.glob(f"*/{DESCRIPTION_FILE}"))
    return [
        Starter(path.name, path, content_hash(path))
        for path in folders
        if (path / WEIGHTS_FILE).is_file()
    ]


def seed(registry: Registry, folder: Path = STARTERS, again: bool = False) -> list[str]:
    """Publish the missing starter models, and activate one if no model is active.

    Safe to call at every start and from several processes. Changed weights become a new version,
    promoted only if a starter was promoted. A starter that was deleted is not published again.

    Args:
        registry: Receives the versions.
        folder: Contains one folder per starter.
        again: Publish deleted starters too.

    Returns:
        A sentence for each thing done.

    Raises:
        VisionLoopError: The serving engines could not be exported.
    """
    shipped = starters(folder)
    unmeasured = _unmeasured(registry, shipped)
    present = not _wanted(registry, shipped, again) and registry.active_pointer() is not None
    if present and not unmeasured:
        return []
    done: list[str] = []
    with registry.database.exclusive("seed"):  # a second process waits, then finds them
        registry.refresh()
        if wanted := _wanted(registry, shipped, again):
            done += _publish(registry, wanted)
        if registry.active_pointer() is None:
            done += _activate(registry, shipped)
        for model_id, metrics in _unmeasured(registry, shipped).items():
            registry.set_metrics(model_id, metrics)
            done.append(f"Added the recorded metrics of {model_id}.")
    return done


def _wanted(registry: Registry, shipped: list[Starter], again: bool) -> list[Starter]:
    present = {(model.name, model.content) for model in registry.list()}
    absent = [starter for starter in shipped if (starter.name, starter.content) not in present]
    if again:
        return absent
    return [starter for starter in absent if _seeded(registry, starter.name) != starter.content]


def _publish(registry: Registry, wanted: list[Starter]) -> list[str]:
    started = time.monotonic()
    done = []
    with temporary_folder(registry.settings.paths.scratch) as folder:
        copies = [folder / starter.name for starter in wanted]
        for starter, copy in zip(wanted, copies, strict=True):
            copy.mkdir()
            for file in (DESCRIPTION_FILE, WEIGHTS_FILE):
                shutil.copyfile(starter.folder / file, copy / file)
        _export(copies)
        for starter, copy in zip(wanted, copies, strict=True):
            model = registry.publish(
                copy,
                starter.name,
                {"kind": "starter", **_source(starter)},
                metrics=_metrics(starter),
                promote=_starter_is_promoted(registry, starter.name),
                unless_present=True,
            )
            _remember(registry, starter)
            done.append(f"Added the starter model {model.id}.")
    log.info("Seeded %d starter model(s) in %.1f s", len(done), time.monotonic() - started)
    return done


def _source(starter: Starter) -> dict[str, Any]:
    path = starter.folder / SOURCE_FILE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _metrics(starter: Starter) -> dict[str, Any] | None:
    """The metrics that were recorded for these weights; None if there are none."""
    path = starter.folder / METRICS_FILE
    if not path.is_file():
        return None
    recorded = json.loads(path.read_text(encoding="utf-8"))
    return dict(recorded["metrics"]) if recorded["content"] == starter.content else None


def _unmeasured(registry: Registry, shipped: list[Starter]) -> dict[str, dict[str, Any]]:
    """Starter models of a home without metrics → those that were recorded for their weights."""
    recorded = {(s.name, s.content): metrics for s in shipped if (metrics := _metrics(s))}
    return {
        model.id: recorded[model.name, model.content]
        for model in registry.list()
        if model.metrics is None
        and model.source.get("kind") == "starter"
        and (model.name, model.content) in recorded
    }


def _export(folders: list[Path]) -> None:
    log.info("Preparing %d starter model(s) for serving; only at the first start", len(folders))
    try:
        child = run_module("models_store.export", folders, EXPORT_TIMEOUT)
    except ChildTimeout as error:
        raise VisionLoopError(
            f"The starter models could not be prepared: {error}. `visionloop models seed` "
            "tries again."
        ) from error
    if child.returncode != 0:
        reason = child.stderr.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        raise VisionLoopError(
            f"The starter models could not be prepared: {reason[0]}. `visionloop models seed` "
            "tries again."
        )


def _starter_is_promoted(registry: Registry, name: str) -> bool:
    """Whether to promote a new starter: no version is promoted, or an older starter is."""
    promoted = [model for model in registry.list() if model.name == name and model.promoted]
    return all(model.source.get("kind") == "starter" for model in promoted)


def _activate(registry: Registry, shipped: list[Starter]) -> list[str]:
    names = [starter.name for starter in shipped]
    for name in sorted(names, key=lambda name: name != FIRST_ACTIVE):
        try:
            return [f"Made {registry.activate(name).name} the active model."]
        except ModelNotFound:  # it was deleted
            continue
    return []


def _seeded(registry: Registry, name: str) -> str | None:
    with registry.database.read() as session:
        row = session.get(State, f"seeded:{name}")
        return row.text if row else None


def _remember(registry: Registry, starter: Starter) -> None:
    with registry.database.write() as session:
        session.merge(State(key=f"seeded:{starter.name}", number=0, text=starter.content))
