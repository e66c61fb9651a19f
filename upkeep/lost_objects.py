"""Objects in the store that nothing refers to: their deletion failed, or their maker was killed.

Those of datasets, uploads and jobs have finders of their own; models are repaired at each start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import select

from database import Database
from evaluation.store import EVALUATIONS, EvaluationRow
from models_store.shared.model_trees import EXPORTS
from models_store.tables import PublishedModel
from monitoring.kept_images import CARDS, IMAGES
from storage.place import open_trees
from storage.trees import TreeStore

MIN_AGE = 86_400.0  # seconds; a younger object's row or record may be about to be written


@dataclass(frozen=True)
class LostObject:
    """An object that nothing refers to.

    Attributes:
        key: Its key.
        reason: Why nobody needs it.
        delete: Deletes it, unless it has come into use since.
    """

    key: str
    reason: str
    delete: Callable[[], None] = field(repr=False, compare=False)


def lost_objects(database: Database, min_age: float) -> Iterator[LostObject]:
    """Lost objects of evaluations, exports and kept images; none without a store.

    Args:
        database: Its rows say what there is.
        min_age: Seconds since an object was written; at least MIN_AGE.

    Raises:
        StoreUnavailable, StoreRefused: The objects cannot be listed.
    """
    trees = open_trees(database.settings)
    if not trees.shared:
        return
    age = max(min_age, MIN_AGE)
    evaluations = trees.list(EVALUATIONS, age)
    files, records = trees.list(EXPORTS, age), trees.list_bytes(EXPORTS, age)
    images, cards = trees.list_bytes(IMAGES, age), set(trees.list_bytes(CARDS))
    recorded = set(trees.list_bytes(EXPORTS))
    with database.read() as session:  # after the objects: what is newer is not listed
        evaluation_ids = set(session.scalars(select(EvaluationRow.id)))
        query = select(PublishedModel.name, PublishedModel.version)
        models = {f"{name}/{version}" for name, version in session.execute(query)}
    for key in evaluations:
        if key.split("/")[1] not in evaluation_ids:
            yield LostObject(key, "no evaluation has it", partial(trees.delete, key))
    for key in records:
        if _model(key) not in models:
            yield LostObject(key, "its model was deleted", partial(trees.delete_bytes, key))
    for key in files:
        if _model(key) not in models:
            yield LostObject(key, "its model was deleted", partial(trees.delete, key))
        elif key not in recorded:
            yield LostObject(key, "no export has it", partial(_delete_old, trees, key, age))
    for key in images:
        if key.replace(IMAGES, CARDS, 1) not in cards:
            yield LostObject(key, "no kept image has it", partial(trees.delete_bytes, key))


def _delete_old(trees: TreeStore, key: str, age: float) -> None:
    """Delete an export's file unless it was made again: ids of exports are used again."""
    if key in trees.list(key.rpartition("/")[0], age):
        trees.delete(key)


def _model(key: str) -> str:
    """`NAME/VERSION` of an export's key."""
    return "/".join(key.split("/")[1:3])
