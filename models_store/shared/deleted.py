"""Copies of versions that were deleted on another machine: deleted here, too."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Collection

from errors import VisionLoopError
from models_store.shared.model_trees import ModelTrees
from settings import Settings

log = logging.getLogger(__name__)


def delete_copies(
    trees: ModelTrees, settings: Settings, gone: Collection[tuple[str, str]]
) -> threading.Thread | None:
    """Delete what this machine has of versions without a row, in a thread: callers do not wait.

    What is left of it, `sweep` deletes at the next start.

    Args:
        trees: Without an object store nothing is done.
        settings: Provide the folders of exports and engines.
        gone: Names and versions.
    """
    copies = [key for key in gone if trees.store.is_copy(trees.store.folder(*key))]
    if not trees.shared or not copies:
        return None

    def delete() -> None:
        try:
            with trees.store.lock():
                for name, version in copies:
                    trees.store.remove(name, version)
                    for made in (settings.paths.exports, settings.paths.engines):
                        shutil.rmtree(made / name / version, ignore_errors=True)
                    log.info("Deleted the copy of %s:%s, which was deleted", name, version)
        except (OSError, VisionLoopError) as error:
            log.warning("Copies of deleted models are deleted at the next start: %s", error)

    thread = threading.Thread(target=delete, name="delete-copies", daemon=True)
    thread.start()
    return thread
