"""A published model version, and the in-memory snapshot of all versions that reads use."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from database import State
from errors import ModelNotFound
from models_store.description import DESCRIPTION_FILE, ModelDescription
from models_store.names import split_tag
from models_store.shared.model_trees import ModelTrees
from models_store.tables import Promotion, PublishedModel, generation
from short_ids import RULE, SHORTEST, only_match

log = logging.getLogger(__name__)

SOURCE_KEYS = ("kind", "job_id", "parent")
SHOWN_NAMES = 8  # names or versions in a message


@dataclass(frozen=True)
class ModelVersion:
    """A published model version, as it was when the snapshot was read."""

    name: str
    version: str
    description: ModelDescription
    created_at: str
    size_bytes: int
    source: dict[str, Any]
    metrics: dict[str, Any] | None
    content: str
    path: Path  # of its folder on this machine, see `files`
    promoted: bool = False
    active: bool = False
    trees: ModelTrees | None = field(default=None, repr=False, compare=False)

    @property
    def id(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def class_counts(self) -> dict[str, int]:
        """Training objects by class, with which live traffic is compared; empty: not known.

        An imported or restored version has those of the version that it was.
        """
        source: Any = self.source
        while isinstance(source, dict):
            noted = source.get("class_counts")
            if isinstance(noted, dict) and noted:
                # An archive may hold anything.
                known = all(type(count) is int and count >= 0 for count in noted.values())
                return dict(noted) if known else {}
            origin = source.get("origin")
            source = origin.get("source") if isinstance(origin, dict) else None
        return {}

    @property
    def is_here(self) -> bool:
        """Whether the files are on this machine. They always are without an object store."""
        if self.trees is None or not self.trees.shared:
            return True
        return self.trees.is_here(self.name, self.version)

    def files(self) -> Path:
        """`path`, with the files in it: from an object store they are downloaded first.

        That may take minutes: not on the event loop. Raises as `ModelTrees.locate`.
        """
        return self.path if self.trees is None else self.trees.fetch(self.name, self.version)

    def to_json(self) -> dict[str, Any]:
        """The version as a `Model` of the REST API."""
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description.description,
            "type": self.description.type,
            "family": self.description.family,
            "version": self.version,
            "classes": list(self.description.names),
            "imgsz": self.description.imgsz,
            "active": self.active,
            "promoted": self.promoted,
            "created_at": self.created_at,
            "size_bytes": self.size_bytes,
            "metrics": self.metrics,
            "source": dict.fromkeys(SOURCE_KEYS) | self.source,
        }


@dataclass(frozen=True)
class Snapshot:
    """An immutable snapshot of the registry: all published versions at one state."""

    generation: int
    versions: Mapping[str, tuple[ModelVersion, ...]]  # by name, the newest first
    active: str | None  # the active model as it was set: a name or name:version

    @cached_property
    def all(self) -> list[ModelVersion]:
        return [version for name in sorted(self.versions) for version in self.versions[name]]

    def find(self, name: str, version: str | None) -> ModelVersion | None:
        """An exact version; for a bare name the promoted version, else the newest."""
        candidates = self.versions.get(name, ())
        if version is None:
            promoted = next((v for v in candidates if v.promoted), None)
            return promoted or (candidates[0] if candidates else None)
        return next((v for v in candidates if v.version == version), None)

    def begins(self, name: str, start: str) -> ModelVersion | None:
        """The version of a name that begins with `start`.

        Raises:
            ValidationFailed: There are several.
        """
        if len(start) < SHORTEST:
            return None
        found = [v for v in self.versions.get(name, ()) if v.version.startswith(start)]
        only = only_match(f"{name}:{start}", [v.id for v in found], "models")
        return found[0] if only else None

    def known(self, name: str = "") -> str:
        """The versions of a known name, else the names, as a sentence for error messages."""
        if name in self.versions:
            versions = [version.version for version in self.versions[name]]
            return f"Give a version of {name}, {RULE}: {_some(versions)}."
        if not self.versions:
            return "The registry is empty. Import one with `visionloop models import FILE`."
        return f"Known: {_some(sorted(self.versions))}."


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - SHOWN_NAMES} more" if len(words) > SHOWN_NAMES else ""
    return f"{', '.join(words[:SHOWN_NAMES])}{more}"


@contextmanager
def unless_deleted(model_id: str, folder: Path) -> Iterator[None]:
    """A block that reads a version's folder, and whose failure may be that this is deleted.

    Raises:
        ModelNotFound: The block failed, and the version is gone.
    """
    try:
        yield
    except Exception as error:
        if (folder / DESCRIPTION_FILE).exists():
            raise
        raise ModelNotFound(f"No model {model_id!r}: it has been deleted.") from error


def load_snapshot(session: Session, trees: ModelTrees) -> Snapshot:
    """Read a snapshot; `trees` has the versions' files."""
    number = generation(session)
    promotions = {row.name: row.version for row in session.scalars(select(Promotion))}
    pointer = session.get(State, "active")
    versions: dict[str, list[ModelVersion]] = {}
    order = (PublishedModel.created_at.desc(), PublishedModel.version.desc())
    for row in session.scalars(select(PublishedModel).order_by(*order)):
        try:
            model = _version(row, trees, promotions.get(row.name) == row.version)
        except ValidationError:
            log.exception("Model %s:%s has an unusable description", row.name, row.version)
            continue
        versions.setdefault(row.name, []).append(model)
    by_name = {name: tuple(found) for name, found in versions.items()}
    snapshot = Snapshot(number, by_name, pointer.text if pointer else None)
    active = snapshot.find(*split_tag(snapshot.active)) if snapshot.active else None
    if active is None:
        return snapshot
    marked = tuple(replace(v, active=v.version == active.version) for v in by_name[active.name])
    return replace(snapshot, versions={**by_name, active.name: marked})


def _version(row: PublishedModel, trees: ModelTrees, promoted: bool) -> ModelVersion:
    return ModelVersion(
        name=row.name,
        version=row.version,
        description=ModelDescription.model_validate_json(row.description),
        created_at=row.created_at,
        size_bytes=row.size_bytes,
        source=row.source,
        metrics=row.metrics,
        content=row.content,
        path=trees.store.folder(row.name, row.version),
        promoted=promoted,
        trees=trees,
    )
