"""Repair of what machines share: makes rows, the object store and the copies here consistent."""

from __future__ import annotations

import time

from sqlalchemy import select

from database import Database
from models_store.description import ModelDescription
from models_store.shared.model_trees import Card, ModelTrees
from models_store.store import version_time
from models_store.tables import PublishedModel

UNSETTLED = 3600.0  # seconds for which a publication of another machine may go on

Key = tuple[str, str]  # name and version


def sweep_shared(trees: ModelTrees, database: Database) -> list[str]:
    """Finish or undo what interrupted processes left in the object store, and fill what it lacks.

    Versions that were published without a store are uploaded. Copies of versions that other
    machines deleted are deleted. Requires the store's lock.

    Returns:
        A sentence for each change.
    """
    if not trees.shared:
        return []
    done = []
    with database.read() as session:
        rows = {(row.name, row.version): row for row in session.scalars(select(PublishedModel))}
    for key in trees.pending():
        if key in rows:
            trees.publish(*key)
            done.append(f"Finished publishing {_id(key)}.")
        elif version_time(key[1]) < time.time() - UNSETTLED:
            trees.remove(*key)
            done.append(f"Removed {_id(key)}, which was never published, or was deleted.")
    done += [f"Removed {one}, whose upload broke off." for one in trees.remove_abandoned()]
    files, cards = trees.versions(), trees.cards()
    for key, row in sorted(rows.items()):
        if key not in files and trees.is_here(*key):
            trees.upload(trees.store.folder(*key), *key)
            trees.store.mark_copy(*key)
            done.append(f"Stored {_id(key)} in the object store.")
        elif key not in files:
            done.append(
                f"{_id(key)} is neither in the object store nor here: it cannot serve. Restore or "
                "delete it."
            )
        if key not in cards:
            trees.write_card(*key, card_of(row))
    for model in trees.store.scan()[0]:
        if (model.name, model.version) not in rows and trees.store.is_copy(model.path):
            trees.store.remove(model.name, model.version)
            done.append(f"Removed the copy of {model.name}:{model.version}, which was deleted.")
    return done


def published(trees: ModelTrees) -> set[Key]:
    """The versions in the object store; without those that are being published or deleted."""
    return (trees.versions() & trees.cards()) - set(trees.pending())


def shared_row(trees: ModelTrees, key: Key) -> PublishedModel:
    """The row of a version in the object store.

    Raises:
        StoreDamaged, KeyError, ValidationError: Its card is damaged.
    """
    card = trees.card(*key)
    return PublishedModel(
        name=key[0],
        version=key[1],
        created_at=card.metadata["created_at"],
        size_bytes=card.size_bytes,
        description=ModelDescription.model_validate_json(card.description).model_dump_json(),
        source=card.metadata["source"],
        metrics=card.metadata["metrics"],
        content=card.metadata["content"],
    )


def card_of(row: PublishedModel) -> Card:
    """The card of a version, from its row."""
    description = ModelDescription.model_validate_json(row.description)
    metadata = {
        "type": description.type,
        "created_at": row.created_at,
        "source": row.source,
        "metrics": row.metrics,
        "content": row.content,
    }
    return Card(metadata, row.description, row.size_bytes)


def _id(key: Key) -> str:
    return f"{key[0]}:{key[1]}"
