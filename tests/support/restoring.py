"""Restore a backup into homes of a test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from home_paths import SERVER_LOCK
from models_store.store import ModelStore
from settings import Settings
from upkeep.restore import Restored, restore


def restore_into(path: Path, root: Path, **options: Any) -> Restored:
    settings = Settings(home=root / "home", disk_reserve=0)
    return restore(settings, path, store=ModelStore(root / "bento"), **options)


def nothing_in(root: Path) -> bool:
    """Whether there are locks and empty folders at most."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return all(path.name == SERVER_LOCK or path.suffix == ".lock" for path in files)
