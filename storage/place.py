"""The place of this server's trees, as the settings say."""

from __future__ import annotations

from functools import lru_cache

from settings import Settings
from storage.trees import FolderTrees, TreeStore


def open_trees(settings: Settings) -> TreeStore:
    """The place of this server's trees: one object a process and URL. It makes no request."""
    return _opened(settings.store_url)


@lru_cache(maxsize=8)
def _opened(url: str | None) -> TreeStore:
    if url is None:
        return FolderTrees()
    from storage.object_trees import ObjectTrees  # obstore: only where there is a store

    return ObjectTrees(url)
